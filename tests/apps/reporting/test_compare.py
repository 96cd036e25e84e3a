"""The verdict of a report: yes, no, or not shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import wilcoxon

from genseg_monai.apps.reporting.compare import Answer, Verdict, compare, judge
from genseg_monai.apps.reporting.sources import CaseResult


def scored(dice: list[float] | np.ndarray) -> list[CaseResult]:
    return [CaseResult(f"c{i}", f"p{i}", {"dice": float(d), "hd95": 10.0 * (1 - float(d))}) for i, d in enumerate(dice)]


BASE = np.linspace(0.5, 0.9, 20)


def verdict(
    gain: np.ndarray | float,
    base: np.ndarray = BASE,
    by_seed: tuple[float, ...] = (0.1, 0.2, 0.3),
    **others: np.ndarray,
) -> Verdict:
    arms = {"genseg": scored(base + gain), "augment": scored(base)} | {k: scored(v) for k, v in others.items()}
    found = compare(arms, name="test", size=40, unit="pixel")
    trained = {
        "genseg": {str(i): gained for i, gained in enumerate(by_seed)},
        "augment": {str(i): 0.0 for i in range(3)},
    }
    return judge(replace(found, arms=tuple(replace(one, by_seed=trained.get(one.arm, {})) for one in found.arms)))


def test_a_gain_that_holds_is_a_yes() -> None:
    found = verdict(np.linspace(0.01, 0.05, 20))
    assert found.answer is Answer.YES
    assert found.sentence.startswith(
        "Yes, GenSeg helped on these data: +0.030 Dice against augmentation on 20 held-out cases"
    )
    assert found.sentence.count(".") == found.sentence.count("0.") + 1  # one sentence
    assert "3 seeds" in found.sentence
    assert "one training proves little" in verdict(np.linspace(0.01, 0.05, 20), by_seed=(0.1,)).sentence


def test_seeds_that_disagree_are_no_yes() -> None:
    found = verdict(np.linspace(0.01, 0.05, 20), by_seed=(0.1, -0.031))
    assert found.answer is Answer.OPEN
    assert found.sentence.endswith("2 seeds); the seeds disagree: +0.100, \N{MINUS SIGN}0.031.")


def test_seeds_that_disagree_are_told_of_a_loss_too() -> None:
    found = verdict(np.linspace(-0.05, -0.01, 20), by_seed=(-0.1, 0.02))
    assert found.answer is Answer.NO
    assert found.sentence.endswith("2 seeds); the seeds disagree: \N{MINUS SIGN}0.100, +0.020.")


def test_only_seeds_that_both_arms_have_count() -> None:
    """A fourth training of GenSeg alone is not compared with anything."""
    assert "3 seeds" in verdict(np.linspace(0.01, 0.05, 20), by_seed=(0.1, 0.1, 0.1, -0.5)).sentence


def test_no_gain_is_a_no() -> None:
    assert verdict(np.tile([0.02, -0.02], 10)).answer is Answer.NO
    found = verdict(np.linspace(-0.05, -0.01, 20))
    assert found.answer is Answer.NO
    assert found.sentence.startswith("No, GenSeg did worse")
    assert verdict(0.0).sentence.startswith("No, GenSeg gained nothing")


def test_a_gain_that_chance_could_have_made_is_not_shown() -> None:
    found = verdict(np.tile([0.05, -0.03], 10))
    assert found.answer is Answer.OPEN
    assert found.sentence.startswith("No gain shown")
    few = verdict(np.array([0.01, 0.02, 0.03, 0.02]), BASE[:4])
    assert few.answer is Answer.OPEN
    assert "so few cases prove little" in few.sentence


def test_the_correction_is_for_all_arms() -> None:
    """A p that alone would do no longer does among many arms."""
    gain = np.array([0.03] * 6 + [-0.001])
    alone = wilcoxon(gain).pvalue
    assert 0.02 < alone < 0.05
    others = {f"arm{i}": BASE[:7] + np.tile([0.01, -0.01], 4)[:7] for i in range(4)}
    assert verdict(gain, BASE[:7]).answer is Answer.YES
    assert verdict(gain, BASE[:7], **others).answer is Answer.OPEN


def test_nothing_to_compare_with() -> None:
    only = compare({"genseg": scored(BASE)}, name="test", size=40, unit="mm")
    assert judge(only).sentence == ("No answer: Augmentation was not scored on these cases, so there is no comparison.")
    assert only.arm("genseg").intervals["dice"].mean == pytest.approx(0.7)
    assert judge(compare({"augment": scored(BASE)}, name="t", size=4, unit="mm")).answer is Answer.OPEN


def test_cases_are_paired_by_name_not_by_place() -> None:
    arms = {"genseg": scored(BASE)[::-1], "augment": scored(BASE)}
    test = compare(arms, name="test", size=40, unit="pixel").arm("genseg").test
    assert (test.difference.mean, test.ties) == (0.0, 20)
