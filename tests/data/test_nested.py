"""Training sets that grow: nested by seed, patients kept together; a test where the data set names none."""

from __future__ import annotations

from pathlib import Path

import pytest

from genseg_monai.data import find_cases
from genseg_monai.data.nested import nested_cases, study_splits
from genseg_monai.errors import UserError
from tests.data.sets import pictures, splits

CASES = [{"case": f"c{i}", "group": f"p{i // 3}"} for i in range(14)]  # five patients, the last with two cases


def names(cases: list[dict]) -> list[str]:
    return [case["case"] for case in cases]


@pytest.mark.parametrize("seed", range(4))
def test_smaller_sets_are_parts_of_larger_ones(seed: int) -> None:
    sets = [set(names(nested_cases(CASES, size, seed))) for size in range(1, 15)]
    assert [len(one) for one in sets] == list(range(1, 15))
    assert all(small < large for small, large in zip(sets, sets[1:], strict=False))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1, 4, 7, 11])
def test_at_most_one_patient_is_there_in_part(seed: int, size: int) -> None:
    drawn = [case["group"] for case in nested_cases(CASES, size, seed)]
    whole = [case["group"] for case in CASES]
    assert sum(0 < drawn.count(group) < whole.count(group) for group in set(drawn)) <= 1


def test_seeds_draw_differently_and_alike() -> None:
    drawn = [names(nested_cases(CASES, 6, seed)) for seed in range(6)]
    assert len({tuple(one) for one in drawn}) > 2
    assert drawn[3] == names(nested_cases(CASES, 6, 3))
    assert names(nested_cases(CASES, 14, 5)) == names(CASES)


def test_too_many() -> None:
    with pytest.raises(UserError, match="--sizes: wanted 1 to 14 training cases, got 15"):
        nested_cases(CASES, 15, 0)


def test_a_test_is_made_where_there_is_none(tmp_path: Path) -> None:
    pictures(tmp_path, 20)
    cases = find_cases(tmp_path)
    made = study_splits(tmp_path, cases)
    assert (len(made.train), len(made.val), len(made.test)) == (12, 4, 4)
    assert len({*names(made.train), *names(made.val), *names(made.test)}) == 20
    assert names(study_splits(tmp_path, cases).test) == names(made.test)
    assert study_splits(tmp_path, cases, needs_test=False).test == []


def test_the_split_of_the_data_set_is_kept(tmp_path: Path) -> None:
    splits(pictures(tmp_path, 6), train=["c0", "c1"], val=["c2"], test=["c3", "c4"])
    made = study_splits(tmp_path, find_cases(tmp_path))
    assert [names(part) for part in (made.train, made.val, made.test)] == [["c0", "c1"], ["c2"], ["c3", "c4"]]


def test_no_validation_cases(tmp_path: Path) -> None:
    splits(pictures(tmp_path, 6), train=["c0", "c1"], test=["c3"])
    with pytest.raises(UserError, match=r"wanted validation cases to choose learning rates by.*write splits\.json"):
        study_splits(tmp_path, find_cases(tmp_path))
