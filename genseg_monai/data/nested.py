"""Splits of a study: the same test and validation cases for everybody, and training sets that grow by adding cases.

The cases of one patient stay together, in the test as in the training sets.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genseg_monai.data.splits import Splits, group_of, pick_groups, read_splits
from genseg_monai.errors import UserError

__all__ = ["nested_cases", "study_splits"]

logger = logging.getLogger(__name__)

_TEST = 0.25


def study_splits(root: str | Path, cases: Sequence[Mapping[str, Any]], *, needs_test: bool = True) -> Splits:
    """Return the splits of the data set; where it names no test cases, one training case in four becomes one.

    Args:
        root: the data set, as for `find_cases`.
        cases: what `find_cases` found.
        needs_test: part with training cases for the test if there is none.

    Raises:
        UserError: there are no validation cases, or too few patients to part with one.
    """
    splits = read_splits(root, cases, seed=0)
    if not splits.val:
        raise UserError(root, "wanted validation cases to choose learning rates by, found none; write splits.json")
    if splits.test or not needs_test:
        return splits
    groups = [group_of(case, i) for i, case in enumerate(splits.train)]
    if len(set(groups)) < 3:
        raise UserError(root, f"wanted test cases, found none, and {len(set(groups))} patients are too few to part "
                              "with one; label more, or give --test")  # fmt: skip
    chosen = pick_groups(groups, _TEST, seed=0)
    test = [case for case, group in zip(splits.train, groups, strict=True) if group in chosen]
    train = [case for case, group in zip(splits.train, groups, strict=True) if group not in chosen]
    logger.warning("the data set names no test cases: %d of its training cases become the test", len(test))
    return replace(splits, train=train, test=test)


def nested_cases(cases: Sequence[dict[str, Any]], size: int, seed: int) -> list[dict[str, Any]]:
    """Return ``size`` training cases; those of a smaller size are among them, for the same seed.

    Patients are drawn in an order that the seed decides, and each brings all its cases, the last one as many as are
    wanted.

    Args:
        cases: all training cases.
        size: how many.
        seed: of the order.

    Raises:
        UserError: there are fewer.

    Example:
        >>> cases = [{"case": str(i), "group": str(i // 2)} for i in range(8)]
        >>> few, more = nested_cases(cases, 2, seed=0), nested_cases(cases, 5, seed=0)
        >>> len(few), len(more), all(case in more for case in few)
        (2, 5, True)
    """
    if not 1 <= size <= len(cases):
        raise UserError("--sizes", f"wanted 1 to {len(cases)} training cases, got {size}")
    groups = [group_of(case, i) for i, case in enumerate(cases)]
    names = list(dict.fromkeys(groups))
    rank = {names[i]: place for place, i in enumerate(np.random.default_rng(seed).permutation(len(names)))}
    order = sorted(range(len(cases)), key=lambda i: rank[groups[i]])  # stable: a patient's cases keep their order
    return [cases[i] for i in sorted(order[:size])]
