from __future__ import annotations

from pathlib import Path

import pytest

from genseg_monai.apps.command_line import bind
from genseg_monai.errors import UserError


def fetch(
    folder: str,
    *,
    patient_id: str | None = None,
    count: int = 1,
    threshold: float | None = None,
    out: Path | None = None,
    dry_run: bool = False,
) -> None: ...


def train(*, data: str, seed: int = 0, **overrides: str) -> None: ...


# what Fire alone would turn into numbers, None, tuples, booleans, or cut off
TYPED = [
    "1E5",
    "1_000",
    "12#3",
    "None",
    "True",
    "007",
    "0x1F",
    "1,2",
    "[1]",
    "{}",
    "'a'",
    '"a"',
    "1.0",
    "-5",
    "-",
    "a=b",
    " x ",
    "",
]


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("style", ["space", "equals"])
def test_identifiers_stay_as_typed(typed: str, style: str) -> None:
    words = ["--patient-id", typed] if style == "space" else [f"--patient-id={typed}"]
    assert bind(fetch, ["OUT", *words]) == {"folder": "OUT", "patient_id": typed}


@pytest.mark.parametrize("typed", TYPED)
def test_positions_stay_as_typed(typed: str) -> None:
    assert bind(fetch, [typed]) == {"folder": typed}


@pytest.mark.parametrize("typed", TYPED)
def test_overrides_stay_as_typed(typed: str) -> None:
    bound = bind(train, ["--data", "D", "--train#trainer#max_epochs", typed])
    assert bound == {"data": "D", "train#trainer#max_epochs": typed}


def test_numbers_and_switches_are_read_by_type() -> None:
    bound = bind(fetch, ["A", "--count", "2", "--threshold=0.5", "--dry-run", "--out", "o"])
    assert bound == {"folder": "A", "count": 2, "threshold": 0.5, "dry_run": True, "out": Path("o")}


@pytest.mark.parametrize(
    ("words", "value"), [(["--dry-run", "false"], False), (["--dry-run=no"], False), (["--dry_run", "True"], True)]
)
def test_a_switch_may_have_a_value(words: list[str], value: bool) -> None:
    assert bind(fetch, ["A", *words])["dry_run"] is value


def test_a_switch_does_not_eat_the_next_word() -> None:
    assert bind(fetch, ["--dry-run", "A"]) == {"dry_run": True, "folder": "A"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "FOLDER: wanted, but not given"),
        (["A", "B"], "B: did not expect this word"),
        (["A", "--patient"], "--patient: there is no such flag; did you mean --patient-id"),
        (["A", "--zzz", "1"], "--zzz: there is no such flag; there are --folder, --patient-id"),
        (["A", "--patient-id"], "--patient-id: wanted a value after it, got none"),
        (["A", "--patient-id", "--dry-run"], "--patient-id: wanted a value after it, got none"),
        (["A", "--count", "1", "--count", "2"], "--count: wanted once, given twice"),
        (["A", "--count", "two"], "--count: wanted a whole number, got 'two'"),
        (["A", "--threshold", "x"], "--threshold: wanted a number, got 'x'"),
        (["A", "--dry-run=maybe"], "--dry-run: wanted true or false, got 'maybe'"),
        (["--", "A"], "--: there is no such flag"),
    ],
)
def test_wrong_use_is_told_in_one_line(words: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        bind(fetch, words)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_a_missing_flag_is_named_as_it_is_typed() -> None:
    with pytest.raises(UserError, match="^--data: wanted, but not given"):
        bind(train, [])
