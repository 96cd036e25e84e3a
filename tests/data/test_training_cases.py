from __future__ import annotations

import json
from pathlib import Path

import pytest

from genseg_monai.data.splits import read_splits
from genseg_monai.data.training_cases import training_cases
from genseg_monai.errors import UserError
from tests.data.sets import pictures, splits, volumes


def test_those_of_the_training_split(tmp_path: Path) -> None:
    root = splits(pictures(tmp_path), train=["c0", "c3"], val=["c1"], test=["c2"])
    assert [case["case"] for case in training_cases(root)] == ["c0", "c3"]


def test_all_without_a_split(tmp_path: Path) -> None:
    assert len(training_cases(pictures(tmp_path))) == 6


def test_cases_kept_for_a_test_are_left_out_wherever_that_is_said(tmp_path: Path) -> None:
    root = volumes(tmp_path / "nnunet", channels=1, listed=False)
    for folder in ("imagesT", "labelsT"):
        (root / f"{folder}s").mkdir()
        for file in list((root / f"{folder}r").glob("v[34]*")):
            file.rename(root / f"{folder}s" / file.name)
    listed = volumes(tmp_path / "listed")
    held = json.loads((listed / "dataset.json").read_text())
    parts = {"training": held["training"][:3], "validation": held["training"][3:4], "test": held["training"][4:]}
    (listed / "list.json").write_text(json.dumps(parts))
    for place in (root, listed / "list.json"):
        assert [case["case"] for case in training_cases(place)] == ["v0", "v1", "v2"]
        assert len(read_splits(place).test) >= 1, "the same that the training keeps for its test"
    (listed / "list.json").write_text(json.dumps({"training": [], "test": held["training"]}))
    with pytest.raises(UserError, match="wanted cases outside of the test set to learn from, found none"):
        training_cases(listed / "list.json")


def test_a_set_for_testing_only(tmp_path: Path) -> None:
    root = splits(pictures(tmp_path), train=[], test=["c2"])
    with pytest.raises(UserError, match="wanted cases in the split train of splits.json"):
        training_cases(root)
