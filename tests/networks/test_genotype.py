from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from genseg_monai.errors import UserError
from genseg_monai.networks.genotype import Genotype

GENOTYPE = Genotype("wide", ("conv_4", "pool_3"), ("resize_1", "conv_4_dilated_2"))


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "genotype.json"
    GENOTYPE.save(path)
    assert Genotype.load(path) == GENOTYPE
    GENOTYPE.save(path)  # over the old one
    assert [p.name for p in path.parent.iterdir()] == ["genotype.json"]


def test_json_is_plain() -> None:
    assert json.loads(GENOTYPE.to_json()) == {
        "space": "wide",
        "encoder": ["conv_4", "pool_3"],
        "decoder": ["resize_1", "conv_4_dilated_2"],
    }


def test_frozen_and_hashable() -> None:
    assert len({GENOTYPE, Genotype.from_json(GENOTYPE.to_json())}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        GENOTYPE.space = "paper"  # type: ignore[misc]


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "genotype.json"
    GENOTYPE.save(path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        Genotype("paper", ("conv_4",), ("conv_4",)).save(path)
    assert Genotype.load(path) == GENOTYPE
    assert [p.name for p in tmp_path.iterdir()] == ["genotype.json"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("narrow", ("conv_4",), ("conv_4",)), "wanted space to be one of paper, wide, shared, got 'narrow'"),
        (("paper", ("conv_5",), ("conv_4",)), "genotype encoder.0: wanted one of conv_4, conv_6, conv_8, got 'conv_5'"),
        (("wide", ("conv_4",), ("pool_1",)), "genotype decoder.0: wanted one of .*resize_3, got 'pool_1'"),
        (("paper", ("conv_4",), ()), "wanted as many encoder as decoder cells"),
        (("paper", (), ()), "at least one"),
    ],
)
def test_invalid(fields: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Genotype(*fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "wanted a genotype in JSON"),
        ("[]", "wanted the keys .*got list"),
        ('{"space": "paper"}', "wanted the keys"),
        ('{"space": "paper", "encoder": "conv_4", "decoder": ["conv_4"]}', "wanted encoder to be a list"),
    ],
)
def test_invalid_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        Genotype.load(path)
    assert error.value.where == str(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read it"):
        Genotype.load(tmp_path / "none.json")
