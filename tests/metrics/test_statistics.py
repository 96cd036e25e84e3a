"""Statistics against scipy and against references written another way."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from genseg_monai.metrics.statistics import (
    CasesNeeded,
    Reached,
    bootstrap_mean,
    cases_needed,
    group_means,
    holm,
    paired_test,
)


def beta(seed: int, count: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).beta(8, 2, size=count)


def test_bootstrap_against_scipy() -> None:
    values = beta(0)
    found = bootstrap_mean(values.tolist(), resamples=20_000)
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(reference.low, abs=0.002)
    assert found.high == pytest.approx(reference.high, abs=0.002)
    narrow = bootstrap_mean(values.tolist(), level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_bootstrap_draws_whole_groups() -> None:
    """Groups of two sizes, every possible draw counted: the interval's ends are quantiles of that distribution."""
    values, groups = [0.0, 0.1, 0.2, 1.0, 0.4], ["a", "a", "a", "b", "c"]
    held = {"a": (0.3, 3), "b": (1.0, 1), "c": (0.4, 1)}
    every = [sum(held[g][0] for g in d) / sum(held[g][1] for g in d) for d in itertools.product("abc", repeat=3)]
    found = bootstrap_mean(values, groups, level=0.5, resamples=50_000)
    assert found.mean == pytest.approx(0.34)
    for end, level in ((found.low, 0.25), (found.high, 0.75)):
        assert np.mean([value < end - 1e-9 for value in every]) <= level <= np.mean([v <= end + 1e-9 for v in every])


def test_bootstrap_is_seeded() -> None:
    values = beta(1).tolist()
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def exact_signed_rank(differences: np.ndarray) -> float:
    """Return the two-sided p-value by trying every sign."""
    ranks = stats.rankdata(np.abs(differences))
    seen = ranks[differences > 0].sum()
    sums = np.array(
        [np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=len(ranks))]  # each subset once
    )
    return float(min(1.0, 2 * min((sums <= seen + 1e-9).mean(), (sums >= seen - 1e-9).mean())))


@pytest.mark.parametrize("seed", range(4))
def test_paired_test_against_every_sign(seed: int) -> None:
    ours, theirs = beta(seed, 9) + 0.05, beta(seed + 50, 9)
    found = paired_test(ours.tolist(), theirs.tolist())
    assert found.p == pytest.approx(exact_signed_rank(ours - theirs), abs=1e-9)
    assert (found.wins, found.losses, found.ties) == ((ours > theirs).sum(), (ours < theirs).sum(), 0)
    assert found.difference.mean == pytest.approx((ours - theirs).mean())
    swapped = paired_test(theirs.tolist(), ours.tolist())
    assert swapped.p == pytest.approx(found.p)
    assert (swapped.wins, swapped.losses) == (found.losses, found.wins)


def test_paired_test_of_equal_methods() -> None:
    scores = beta(0).tolist()
    found = paired_test(scores, scores)
    assert (found.p, found.wins, found.losses, found.ties) == (1.0, 0, 0, 40)
    assert (found.difference.low, found.difference.high) == (0.0, 0.0)


def test_paired_test_counts_a_patient_once() -> None:
    ours, theirs = beta(0, 8), beta(9, 8)
    groups = [f"p{i}" for i in range(8)]
    once = paired_test(ours.tolist(), theirs.tolist(), groups)
    often = paired_test(np.repeat(ours, 5).tolist(), np.repeat(theirs, 5).tolist(), np.repeat(groups, 5).tolist())
    assert often.p == pytest.approx(once.p)
    assert (often.wins, often.losses) == (once.wins, once.losses)
    assert often.difference.low == pytest.approx(once.difference.low)


def test_holm_by_the_definition() -> None:
    """A hypothesis is rejected at level a exactly if its adjusted p-value is at most a."""
    p_values = {"a": 0.001, "b": 0.011, "c": 0.02, "d": 0.04, "e": 0.6}
    adjusted = holm(p_values)
    for level in np.linspace(0.001, 0.999, 400):
        rejected: set[str] = set()
        for rank, name in enumerate(sorted(p_values, key=p_values.get)):  # type: ignore[arg-type]
            if p_values[name] > level / (len(p_values) - rank):
                break
            rejected.add(name)
        assert rejected == {name for name, p in adjusted.items() if p <= level}
    assert list(adjusted) == list(p_values)
    assert holm({}) == {}
    assert holm({"one": 0.04}) == {"one": 0.04}


def test_cases_needed() -> None:
    sizes, scores = [10, 20, 40], [0.5, 0.6, 0.8]
    for target in (0.55, 0.6, 0.7, 0.8):
        found = cases_needed(sizes, scores, target)
        assert found.reached is Reached.INSIDE
        assert np.interp(math.log(found.cases or 0), np.log(sizes), scores) == pytest.approx(target)
    assert cases_needed(sizes, scores, 0.5) == CasesNeeded(10.0, Reached.SMALLEST)
    assert cases_needed(sizes, scores, 0.81) == CasesNeeded(None, Reached.NEVER)
    assert cases_needed(sizes, [0.5, 0.7, 0.6], 0.65).reached is Reached.INSIDE  # the first crossing
    assert cases_needed([40], [0.5], 0.6) == CasesNeeded(None, Reached.NEVER)


def test_errors() -> None:
    with pytest.raises(ValueError, match="wanted one or more values with a group each, got 0 values"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="got 2 values, 1 groups"):
        bootstrap_mean([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="level: wanted a number between 0 and 1, got 95"):
        bootstrap_mean([1.0], level=95)
    with pytest.raises(ValueError, match="wanted two numbers a case, got 1 and 2"):
        paired_test([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"wanted p-values in \[0, 1\], got"):
        holm({"a": 1.2})
    with pytest.raises(ValueError, match="wanted rising sizes with a score each"):
        cases_needed([20, 10], [0.1, 0.2], 0.2)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        group_means([1.0], [])
