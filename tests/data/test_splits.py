from __future__ import annotations

import json
from pathlib import Path

import pytest

from genseg_monai.data import find_cases, read_splits, search_split
from genseg_monai.data.splits import pick_groups
from genseg_monai.errors import UserError
from tests.data.sets import pictures, splits, volumes


def many(*sizes: int) -> list[dict]:
    """Return cases of patients with so many images each."""
    return [{"case": f"p{g}_{i}", "group": f"p{g}"} for g, n in enumerate(sizes) for i in range(n)]


def groups(cases: list[dict], indices: list[int]) -> set[str]:
    return {cases[i]["group"] for i in indices}


@pytest.mark.parametrize(
    "cases", [many(*[1] * 4), many(*[1] * 40), many(2, 2), many(9, 1), many(3, 3, 3, 3), many(1, 1, 7)]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_search_split_keeps_patients_together(cases: list[dict], seed: int) -> None:
    train, search = search_split(cases, seed=seed)
    assert train
    assert search
    assert sorted(train + search) == list(range(len(cases)))
    assert not groups(cases, train) & groups(cases, search)
    assert (train, search) == search_split(cases, seed=seed)
    if len({case["group"] for case in cases}) == len(cases):
        assert len(search) == round(len(cases) / 4)


def test_another_seed_draws_others() -> None:
    assert len({tuple(search_split(many(*[1] * 20), seed=seed)[1]) for seed in range(5)}) > 1


def test_the_search_split_says_what_it_did_without_names(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        search_split(many(2, 2, 2))
    assert "2 of 6 training cases (1 of 3 patients) judge the architecture, 4 train" in caplog.text
    assert "p0" not in caplog.text


def test_too_few_to_search() -> None:
    with pytest.raises(UserError, match="wanted at least 4 for the search, got 3"):
        search_split(many(1, 1, 1))
    with pytest.raises(UserError, match="wanted at least 2 patients, got all 5 cases of one"):
        search_split(many(5))
    with pytest.raises(UserError, match="wanted a number between 0 and 1, got 1.5"):
        search_split(many(1, 1, 1, 1), 1.5)


def test_the_keys_of_monai_label_are_enough() -> None:
    train, search = search_split([{"image": f"{i}.nii.gz", "label": f"l{i}.nii.gz"} for i in range(4)])
    assert len(train), len(search) == (3, 1)


def test_a_large_patient_does_not_swallow_the_split() -> None:
    assert pick_groups(["a"] * 9 + ["b"], 0.25, 0) == {"b"}


@pytest.mark.parametrize(("count", "val"), [(4, 0), (5, 1), (10, 2), (20, 4)])
def test_a_fifth_validates(tmp_path: Path, count: int, val: int) -> None:
    parts = read_splits(pictures(tmp_path, count))
    assert (len(parts.train), len(parts.val), len(parts.test)) == (count - val, val, 0)
    assert parts == read_splits(tmp_path)


def test_groups_stay_together_in_validation(tmp_path: Path) -> None:
    pictures(tmp_path, 10)
    (tmp_path / "cases.csv").write_text("case,group\n" + "\n".join(f"c{i},g{i // 3}" for i in range(10)))
    parts = read_splits(tmp_path)
    assert parts.val
    assert not {c["group"] for c in parts.val} & {c["group"] for c in parts.train}


def test_splits_json_comes_first(tmp_path: Path) -> None:
    splits(volumes(tmp_path, 5), train=["v3", "v1"], val=["v0"], test=["v2"])
    parts = read_splits(tmp_path)
    assert [[c["case"] for c in part] for part in (parts.train, parts.val, parts.test)] == [
        ["v3", "v1"],
        ["v0"],
        ["v2"],
    ]


def test_sections_of_a_datalist_count(tmp_path: Path) -> None:
    pictures(tmp_path, 6)
    entry = [{"image": f"images/c{i}.png", "label": f"masks/c{i}.png"} for i in range(6)]
    (tmp_path / "a.json").write_text(
        json.dumps({"training": entry[:3], "validation": entry[3:4], "testing": entry[4:]})
    )
    parts = read_splits(tmp_path / "a.json")
    assert (len(parts.train), len(parts.val), len(parts.test)) == (3, 1, 2)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": ["c0", "c9"]}, "wanted cases of this data set, got 'c9' in train"),
        ({"train": ["c0"], "val": ["c0"]}, "wanted each case once, got 'c0' in train and val"),
        ({"train": ["c0"], "test": ["c1"]}, "wanted each patient in one split, got 'P' in train, test"),
        ({"train": "c0"}, "got other JSON"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, parts: dict, message: str) -> None:
    splits(pictures(tmp_path, 4), **parts)
    (tmp_path / "cases.csv").write_text("case,group\nc0,P\nc1,P\n")
    with pytest.raises(UserError, match=message):
        read_splits(tmp_path)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("fuseg", (40, 10, 200)), ("jsrt", (40, 10, 100)), ("busi", (40, 10, 10)), ("hippocampus_3d", (30, 10, 20)),
     ("odd_3d", (0, 0, 3)), ("drive", (16, 4, 20))],
)  # fmt: skip
def test_the_splits_of_real_sets(real_data: Path, name: str, sizes: tuple[int, int, int]) -> None:
    parts = read_splits(real_data / name, find_cases(real_data / name))
    assert (len(parts.train), len(parts.val), len(parts.test)) == sizes
