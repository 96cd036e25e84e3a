from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from genseg_monai.data.bundle_files import copy_bundle, describe, write_block
from genseg_monai.errors import UserError
from tests.bundle.tiny import PLAN_3D, SHIPPED

CONFIGS = ("inference", "evaluate", "generate")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_block_is_replaced_and_all_else_stays(name: str, tmp_path: Path) -> None:
    path = copy_bundle(SHIPPED, tmp_path / "b") / "configs" / f"{name}.yaml"
    before = path.read_text()
    write_block(path, "plan", PLAN_3D)
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(before) | {"plan": PLAN_3D}
    kept = [line for line in before.splitlines() if line.startswith("#")]
    assert [line for line in path.read_text().splitlines() if line.startswith("#")] == kept
    write_block(path, "plan", yaml.safe_load(before)["plan"])
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(before)


def test_a_block_may_be_a_number_or_a_list_at_the_margin(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1  # one\nb:\n- 1\n- 2\nc: 3\n")
    write_block(path, "b", 7)
    write_block(path, "a", "text")
    assert yaml.safe_load(path.read_text()) == {"a": "text", "b": 7, "c": 3}


def test_an_unknown_block_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nplan_b: 2\n")
    with pytest.raises(UserError, match="wanted the entry plan: at the top level"):
        write_block(path, "plan", 1)


def test_a_copy_is_a_bundle_without_models(tmp_path: Path) -> None:
    out = copy_bundle(SHIPPED, tmp_path / "b")
    assert sorted(path.name for path in out.iterdir()) == ["LICENSE", "configs", "docs", "models"]
    assert not list((out / "models").iterdir())
    copy_bundle(out, out / "again")
    with pytest.raises(UserError, match="no configs/metadata.json"):
        copy_bundle(tmp_path, tmp_path / "c")


@pytest.mark.parametrize("name", ["LICENSE", "configs/train.yaml", "docs/README.md"])
def test_files_of_a_folder_that_is_no_bundle_are_never_replaced(name: str, tmp_path: Path) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=f"{name}: wanted a folder for a bundle, this file of something else is in it"):
        copy_bundle(SHIPPED, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "mine"


def test_the_description_follows_the_plan(tmp_path: Path) -> None:
    path = copy_bundle(SHIPPED, tmp_path / "b") / "configs" / "metadata.json"
    describe(path, PLAN_3D | {"in_channels": 2})
    told = json.loads(path.read_text())
    image, pred = told["network_data_format"]["inputs"]["image"], told["network_data_format"]["outputs"]["pred"]
    assert (image["num_channels"], image["spatial_shape"], image["modality"]) == (2, [32, 32, 32], "CT")
    assert pred["channel_def"] == {"0": "background", "1": "organ", "2": "lesion"}
    assert told["generator_data_format"]["inputs"]["mask"]["num_channels"] == 3
    assert told["generator_data_format"]["outputs"]["image"]["num_channels"] == 2
