from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genseg_monai.data.held_out import find_masks, held_out, scored_after_training
from genseg_monai.data.splits import read_splits
from genseg_monai.errors import UserError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for i in range(6):
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / kind / f"c{i}.png")
    return tmp_path


def _split(data: Path, **splits: list[str]) -> None:
    (data / "splits.json").write_text(json.dumps({"train": [], "val": [], "test": []} | splits))


def test_the_test_split_comes_first(data: Path) -> None:
    _split(data, train=["c0", "c1"], val=["c2"], test=["c3", "c4"])
    assert [case["case"] for case in held_out(data)] == ["c3", "c4"]
    assert [case["case"] for case in held_out(data, "val")] == ["c2"]
    assert [case["case"] for case in held_out(data, "train")] == ["c0", "c1"]


def test_validation_where_there_is_no_test(data: Path) -> None:
    _split(data, train=["c0", "c1"], val=["c2"])
    assert [case["case"] for case in held_out(data)] == ["c2"]


def test_without_a_split_it_is_that_of_the_training(data: Path) -> None:
    first = held_out(data, seed=1)
    assert first == held_out(data, seed=1)
    assert 0 < len(first) < 6


def test_an_empty_split_is_refused(data: Path) -> None:
    _split(data, train=["c0"], val=["c1"])
    with pytest.raises(UserError, match="wanted labelled cases in the split test, found none"):
        held_out(data, "test")
    with pytest.raises(UserError, match="^split: wanted train, val, test, got 'tset'"):
        held_out(data, "tset")


def test_masks(data: Path) -> None:
    assert [mask["case"] for mask in find_masks(data / "masks")] == [f"c{i}" for i in range(6)]
    assert find_masks(data / "masks" / "c1.png") == [{"label": str(data / "masks" / "c1.png"), "case": "c1"}]
    assert Path(find_masks("phantom://2d?cases=3&size=32")[0]["label"]).parent.name == "masks"


def test_a_training_scores_its_test_cases_else_those_that_validated(data: Path) -> None:
    _split(data, train=["c0", "c1"], val=["c2"], test=["c3", "c4"])
    splits = read_splits(data)
    assert scored_after_training(data, splits.train, splits.val) == splits.test
    assert scored_after_training(data, splits.train[:1], splits.val) == splits.test
    _split(data, train=["c0", "c1"], val=["c2"])
    assert scored_after_training(data, splits.train, splits.val) == splits.val


def test_a_training_on_cases_from_elsewhere_scores_nothing_of_this_data_set(data: Path) -> None:
    _split(data, train=["c0", "c1"], val=["c2"], test=["c3", "c4"])
    given = [{"image": "/elsewhere/a.nii.gz", "label": "/elsewhere/b.nii.gz"}]
    assert scored_after_training(data / "not there", given, []) == []
    named = [{**given[0], "case": "a"}]
    assert scored_after_training(data, named, given) == given
    # a test case that trains is not scored as one
    splits = read_splits(data)
    assert scored_after_training(data, [*splits.train, *splits.test], splits.val) == splits.val
