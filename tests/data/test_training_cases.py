from __future__ import annotations

from pathlib import Path

import pytest

from genseg_monai.data.training_cases import training_cases
from genseg_monai.errors import UserError
from tests.data.sets import pictures, splits


def test_those_of_the_training_split(tmp_path: Path) -> None:
    root = splits(pictures(tmp_path), train=["c0", "c3"], val=["c1"], test=["c2"])
    assert [case["case"] for case in training_cases(root)] == ["c0", "c3"]


def test_all_without_a_split(tmp_path: Path) -> None:
    assert len(training_cases(pictures(tmp_path))) == 6


def test_a_set_for_testing_only(tmp_path: Path) -> None:
    root = splits(pictures(tmp_path), train=[], test=["c2"])
    with pytest.raises(UserError, match="wanted cases in the split train of splits.json"):
        training_cases(root)
