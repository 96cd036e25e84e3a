"""Statistics of a comparison: intervals, paired tests, and how many cases a method saves. Pure functions on numbers.

A patient, not an image, is what a study samples: wherever ``groups`` can be given, cases of one group move together.
Sources: the percentile bootstrap (Efron and Tibshirani, 1993), the signed-rank test (Wilcoxon, 1945; by scipy), the
step-down correction for several tests (Holm, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
from scipy import stats

__all__ = [
    "CasesNeeded",
    "Interval",
    "PairedTest",
    "Reached",
    "bootstrap_mean",
    "cases_needed",
    "group_means",
    "holm",
    "paired_test",
]

RESAMPLES = 2000
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Example:
        >>> Interval(mean=0.75, low=0.5, high=1.0).low
        0.5
    """

    mean: float
    low: float
    high: float


def bootstrap_mean(
    values: Sequence[float],
    groups: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the mean of ``values`` and its percentile bootstrap interval; groups are drawn with replacement.

    Args:
        values: one number a case.
        groups: whose case it is, one name a value; every case its own if None.
        level: of confidence, above 0 and below 1.
        resamples: number of draws.
        seed: of the draws; equal groups and seeds give equal draws, whatever the values.

    Raises:
        ValueError: there are no values, or not as many groups.

    Example:
        >>> bootstrap_mean([0.5, 1.0])
        Interval(mean=0.75, low=0.5, high=1.0)
    """
    numbers = np.asarray(values, dtype=np.float64)
    names = [str(i) for i in range(len(numbers))] if groups is None else list(groups)
    if len(numbers) == 0 or len(names) != len(numbers):
        raise ValueError(f"wanted one or more values with a group each, got {len(numbers)} values, {len(names)} groups")
    if not 0 < level < 1:
        raise ValueError(f"level: wanted a number between 0 and 1, got {level}")
    order = sorted(set(names))
    index = {name: i for i, name in enumerate(order)}
    place = [index[name] for name in names]
    counts = np.bincount(place, minlength=len(order))
    sums = np.bincount(place, weights=numbers, minlength=len(order))
    draws = np.random.default_rng(seed).integers(len(order), size=(resamples, len(order)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(numbers.mean()), float(low), float(high))


def group_means(values: Sequence[float], groups: Sequence[str]) -> dict[str, float]:
    """Return the mean of each group, the names in order: what may be tested as independent numbers.

    Example:
        >>> group_means([0.0, 1.0, 0.25], ["a", "a", "b"])
        {'a': 0.5, 'b': 0.25}
    """
    held: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        held.setdefault(group, []).append(value)
    return {name: float(np.mean(held[name])) for name in sorted(held)}


@dataclass(frozen=True)
class PairedTest:
    """Two methods on the same cases.

    Attributes:
        difference: mean of ours minus theirs, with its 95 % bootstrap interval.
        p: of the two-sided Wilcoxon signed-rank test; 1 where no pair differs.
        wins: pairs in which ours is larger.
        losses: pairs in which theirs is.
        ties: equal pairs; the test leaves them out.

    Example:
        >>> PairedTest(Interval(0.1, 0.0, 0.2), p=0.06, wins=7, losses=2, ties=0).wins
        7
    """

    difference: Interval
    p: float
    wins: int
    losses: int
    ties: int


def paired_test(
    ours: Sequence[float], theirs: Sequence[float], groups: Sequence[str] | None = None, *, seed: int = 0
) -> PairedTest:
    """Compare two methods case by case.

    The interval draws groups; the test and the counts take one difference a group, the mean over its cases.

    Args:
        ours: one number a case.
        theirs: of the same cases, in the same order.
        groups: whose case it is; every case its own if None.
        seed: of the bootstrap.

    Raises:
        ValueError: the numbers do not pair.

    Example:
        >>> test = paired_test([0.9, 0.8, 0.7, 0.6, 0.5], [0.8, 0.6, 0.4, 0.2, 0.0])
        >>> round(test.difference.mean, 3), test.p, test.wins
        (0.3, 0.0625, 5)
    """
    if len(ours) != len(theirs):
        raise ValueError(f"wanted two numbers a case, got {len(ours)} and {len(theirs)}")
    apart = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    names = [str(i) for i in range(len(apart))] if groups is None else list(groups)
    difference = bootstrap_mean(apart.tolist(), names, seed=seed)
    each = np.asarray(list(group_means(apart.tolist(), names).values()))
    each = np.where(np.abs(each) < 1e-12, 0.0, each)  # what rounding leaves of two equal numbers is no difference
    differing = each[each != 0]
    # few or tied pairs: scipy chooses the exact distribution where it can
    p = float(stats.wilcoxon(differing).pvalue) if len(differing) else 1.0
    return PairedTest(difference, p, int((each > 0).sum()), int((each < 0).sum()), int((each == 0).sum()))


def holm(p_values: Mapping[_Key, float]) -> dict[_Key, float]:
    """Return Holm's adjusted p-values of a family of tests, which hold the family-wise error rate.

    Sorted rising, the i-th of m becomes max_{j <= i} min(1, (m - j + 1) p_(j)).

    Raises:
        ValueError: a number is outside [0, 1].

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    if any(not 0 <= p <= 1 for p in p_values.values()):
        raise ValueError(f"wanted p-values in [0, 1], got {dict(p_values)}")
    adjusted: dict[_Key, float] = {}
    highest = 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = highest
    return {key: adjusted[key] for key in p_values}


class Reached(StrEnum):
    """How a target was met on a curve of score against training cases."""

    INSIDE = "inside"
    """Between two sizes that were run."""
    SMALLEST = "smallest"
    """Already with the fewest cases that were run: the true number may be lower."""
    NEVER = "never"
    """Not with the most cases that were run."""


@dataclass(frozen=True)
class CasesNeeded:
    """How many training cases a method needs for a target score.

    Attributes:
        cases: interpolated; an upper bound if ``reached`` is ``smallest``, None if ``never``.
        reached: how the target was met.

    Example:
        >>> CasesNeeded(12.5, Reached.INSIDE).reached.value
        'inside'
    """

    cases: float | None
    reached: Reached


def cases_needed(sizes: Sequence[int], scores: Sequence[float], target: float) -> CasesNeeded:
    """Return the fewest training cases with which a method scores ``target``, on the line through its points.

    Between two sizes the score is taken as linear in the logarithm of the number of cases. The first crossing counts.

    Args:
        sizes: numbers of training cases, rising, all different.
        scores: the score at each.
        target: the score to reach.

    Raises:
        ValueError: the sizes do not rise, or do not pair with the scores.

    Example:
        >>> found = cases_needed([10, 20, 40], [0.5, 0.6, 0.8], target=0.7)
        >>> round(found.cases, 2), found.reached.value
        (28.28, 'inside')
        >>> cases_needed([10, 20], [0.5, 0.6], target=0.4).reached.value
        'smallest'
    """
    if len(sizes) != len(scores) or not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        raise ValueError(f"wanted rising sizes with a score each, got {list(sizes)} and {len(scores)} scores")
    if scores[0] >= target:
        return CasesNeeded(float(sizes[0]), Reached.SMALLEST)
    for (few, low), (many, high) in zip(
        zip(sizes, scores, strict=True), zip(sizes[1:], scores[1:], strict=True), strict=False
    ):
        if high >= target:
            share = (target - low) / (high - low)
            return CasesNeeded(float(math.exp(math.log(few) + share * math.log(many / few))), Reached.INSIDE)
    return CasesNeeded(None, Reached.NEVER)
