"""Who trains, who validates, who is left for the test; and the part of the training cases the search looks at.

A patient is never on two sides.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genseg_monai.data.cases import data_folder, find_cases
from genseg_monai.data.layouts import read_json
from genseg_monai.errors import UserError

__all__ = ["Splits", "group_of", "pick_groups", "read_splits", "refuse_too_few", "search_split"]

logger = logging.getLogger(__name__)

_NAMES = ("train", "val", "test")
_VALIDATION = 0.2
_FEWEST_TO_VALIDATE = 5
_FEWEST_TO_SEARCH = 4


@dataclass(frozen=True)
class Splits:
    """The cases of each part.

    Attributes:
        train: train everything.
        val: choose the best model; train nothing.
        test: touched by nothing but the evaluation.
    """

    train: list[dict[str, Any]] = field(default_factory=list)
    val: list[dict[str, Any]] = field(default_factory=list)
    test: list[dict[str, Any]] = field(default_factory=list)


def read_splits(
    root: str | Path,
    cases: Sequence[Mapping[str, Any]] | None = None,
    seed: int = 0,
    split_file: str | Path | None = None,
) -> Splits:
    """Split the cases as the data set says, or make a split.

    ``splits.json`` beside the data (``{"train": [case, ...], "val": [...], "test": [...]}``) says all. Without it, the
    sections of a datalist and ``labelsTs`` count, and if they name no validation cases, one in five of the cases left
    validates: at least one when there are five, none below.

    Args:
        root: the data set, as for `find_cases`.
        cases: what `find_cases` found; found here if None.
        seed: of a split made here.
        split_file: a file like ``splits.json`` to go by instead.

    Raises:
        UserError: ``splits.json`` names a case that is not there, names one twice, or tears a patient apart.

    Example:
        >>> splits = read_splits("phantom://2d?cases=6&size=32")
        >>> len(splits.train), len(splits.val), len(splits.test)
        (4, 1, 1)
    """
    folder = data_folder(root)
    found = [dict(case) for case in (find_cases(folder) if cases is None else cases)]
    file = Path(split_file) if split_file else (folder if folder.is_dir() else folder.parent) / "splits.json"
    if split_file or file.is_file():
        return _from_file(file, found)
    test = [case for case in found if case.get("split") == "test"]
    named = [case for case in found if case.get("split") == "val"]
    rest = [case for case in found if case.get("split") not in {"val", "test"}]
    splits = Splits(rest, named, test) if named else Splits(*_validation(rest, seed), test)
    _refuse_torn(folder, splits)
    return splits


def refuse_too_few(groups: Sequence[str]) -> None:
    """Refuse a search in which some patients cannot judge what others have taught.

    Args:
        groups: patient of each training case.

    Raises:
        UserError: fewer than four cases or two patients.
    """
    if len(groups) < _FEWEST_TO_SEARCH:
        raise UserError(
            "training cases",
            f"wanted at least {_FEWEST_TO_SEARCH} for the search, got {len(groups)}; label more or hold out fewer",
        )
    if len(set(groups)) < 2:
        raise UserError(
            "training cases", f"wanted at least 2 patients, got all {len(groups)} cases of one; add another one"
        )


def search_split(
    cases: Sequence[Mapping[str, Any]], fraction: float = 0.25, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Divide the training cases: most train the weights, the others are what the architecture is judged by.

    Args:
        cases: training cases; ``group``, else ``case``, else the image keeps a patient together.
        fraction: share of the cases for the search, above 0 and below 1; at least one case is on each side.
        seed: of the draw.

    Returns:
        Indices that train, indices of the search; both in rising order.

    Raises:
        UserError: fewer than four cases or two patients.

    Example:
        >>> train, search = search_split([{"case": str(i)} for i in range(8)])
        >>> len(train), len(search)
        (6, 2)
    """
    if not 0 < fraction < 1:
        raise UserError("search fraction", f"wanted a number between 0 and 1, got {fraction}; 0.25 is usual")
    groups = [group_of(case, i) for i, case in enumerate(cases)]
    refuse_too_few(groups)
    chosen = pick_groups(groups, fraction, seed)
    search = [i for i, group in enumerate(groups) if group in chosen]
    train = [i for i, group in enumerate(groups) if group not in chosen]
    logger.info(
        "search split: %d of %d training cases (%d of %d patients) judge the architecture, %d train",
        len(search), len(cases), len(chosen), len(set(groups)), len(train),
    )  # fmt: skip
    return train, search


def pick_groups(groups: Sequence[str], fraction: float, seed: int) -> set[str]:
    """Draw whole groups until they hold about ``fraction`` of the items, at least one item; one group stays undrawn.

    Args:
        groups: the group of each item; two different ones at least.
        fraction: the wanted share of items.
        seed: of the draw.
    """
    sizes = {name: groups.count(name) for name in dict.fromkeys(groups)}
    target = max(1, round(fraction * len(groups)))
    order = np.random.default_rng(seed).permutation(len(sizes))
    drawn = [list(sizes)[i] for i in order]
    chosen: set[str] = set()
    for name in drawn:
        if sum(sizes[c] for c in chosen) + sizes[name] <= target and len(chosen) < len(sizes) - 1:
            chosen.add(name)
    return chosen or {min(drawn, key=sizes.__getitem__)}


def group_of(case: Mapping[str, Any], number: int = 0) -> str:
    """Return the patient of a case; without one its name, its image or its number."""
    for key in ("group", "case", "image"):
        if isinstance(case.get(key), str | int | Path):
            return str(case[key])
        if isinstance(case.get(key), list):
            return str(case[key][0])
    return str(number)


def _validation(cases: list[dict[str, Any]], seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    groups = [group_of(case, i) for i, case in enumerate(cases)]
    if len(cases) < _FEWEST_TO_VALIDATE or len(set(groups)) < 2:
        logger.info(
            "no validation cases: %d cases of %d patients are too few to part with one", len(cases), len(set(groups))
        )
        return cases, []
    chosen = pick_groups(groups, _VALIDATION, seed)
    val = [case for case, group in zip(cases, groups, strict=True) if group in chosen]
    train = [case for case, group in zip(cases, groups, strict=True) if group not in chosen]
    logger.info("split made with seed %d: %d cases train, %d validate", seed, len(train), len(val))
    return train, val


def _from_file(file: Path, cases: list[dict[str, Any]]) -> Splits:
    wanted = 'wanted {"train": [case, ...], "val": [...], "test": [...]}'
    content = read_json(file)
    if not isinstance(content, dict) or not all(isinstance(content.get(name, []), list) for name in _NAMES):
        raise UserError(file, f"{wanted}, got other JSON; write the names of the cases so")
    by_name = {case["case"]: case for case in cases}
    seen: dict[str, str] = {}
    for name in _NAMES:
        for case in map(str, content.get(name, [])):
            if case in seen:
                raise UserError(
                    file, f"wanted each case once, got {case!r} in {seen[case]} and {name}; remove one of them"
                )
            if case not in by_name:
                raise UserError(file, f"wanted cases of this data set, got {case!r} in {name}, which has no labelled "
                                      "image; add its files or remove the name")  # fmt: skip
            seen[case] = name
    left = len(cases) - len(seen)
    if left:
        logger.info("%d cases are in no split and are not used", left)
    splits = Splits(*([by_name[str(case)] for case in content.get(name, [])] for name in _NAMES))
    _refuse_torn(file, splits)
    return splits


def _refuse_torn(where: Path, splits: Splits) -> None:
    """Refuse a patient on two sides."""
    sides: dict[str, str] = {}
    for name in _NAMES:
        for case in getattr(splits, name):
            other = sides.setdefault(group_of(case), name)
            if other != name:
                raise UserError(where, f"wanted each patient in one split, got {group_of(case)!r} in {other}, {name}; "
                                       "move the cases of one patient together")  # fmt: skip
