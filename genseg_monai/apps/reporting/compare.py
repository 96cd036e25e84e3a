"""The arms of a comparison beside each other, and the verdict in one sentence, which says no when the answer is no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from genseg_monai.apps.reporting.sources import CaseResult, arm_title
from genseg_monai.metrics.statistics import Interval, PairedTest, bootstrap_mean, holm, paired_test

__all__ = ["Answer", "ArmResult", "Comparison", "Verdict", "compare", "judge"]

_SIGNIFICANT = 0.05
_FEW = 6  # patients: with fewer of them the test cannot come below 0.05


@dataclass(frozen=True)
class ArmResult:
    """One arm on the test cases.

    Attributes:
        arm: its name.
        intervals: metric -> mean with its 95 % bootstrap interval.
        test: Dice against the reference arm, None for the reference itself.
        p: of that test, corrected after Holm for all arms tested.
        by_seed: mean Dice of each training that was averaged; none where there is but one.
    """

    arm: str
    intervals: dict[str, Interval]
    test: PairedTest | None = None
    p: float | None = None
    by_seed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """All arms on the same test cases.

    Attributes:
        name: of the test cases.
        arms: in the order of the table.
        reference: the arm the others are tested against.
        cases: how many.
        groups: how many patients.
        size: training cases.
        unit: of distances.
    """

    name: str
    arms: tuple[ArmResult, ...]
    reference: str
    cases: int
    groups: int
    size: int
    unit: str

    def arm(self, name: str) -> ArmResult | None:
        """Return an arm by its name."""
        return next((one for one in self.arms if one.arm == name), None)

    def gains_by_seed(self, ours: str) -> list[float]:
        """Return the Dice of an arm less that of the reference, for each seed that both have."""
        mine, reference = self.arm(ours), self.arm(self.reference)
        if mine is None or reference is None:
            return []
        return [dice - reference.by_seed[seed] for seed, dice in mine.by_seed.items() if seed in reference.by_seed]


def compare(
    arms: Mapping[str, Sequence[CaseResult]], *, name: str, size: int, unit: str, reference: str = "augment"
) -> Comparison:
    """Compare arms that scored the same cases.

    Args:
        arms: scores by arm.
        name: of the test cases.
        size: training cases.
        unit: of distances.
        reference: the arm the others are tested against, where it is there.
    """
    first = next(iter(arms.values()))
    found = {}
    for arm, cases in arms.items():
        groups = [case.group for case in cases]
        shared = [metric for metric in cases[0].scores if all(metric in case.scores for case in cases)]
        intervals = {m: bootstrap_mean([case.scores[m] for case in cases], groups) for m in shared}
        found[arm] = ArmResult(arm, intervals, _tested(cases, arms.get(reference, ())) if arm != reference else None)
    corrected = holm({arm: one.test.p for arm, one in found.items() if one.test is not None})
    return Comparison(
        name,
        tuple(ArmResult(arm, one.intervals, one.test, corrected.get(arm)) for arm, one in found.items()),
        reference,
        len(first),
        len({case.group for case in first}),
        size,
        unit,
    )


def _tested(ours: Sequence[CaseResult], theirs: Sequence[CaseResult]) -> PairedTest | None:
    """Return the paired test of Dice over the cases both have."""
    other = {case.case: case for case in theirs}
    pairs = [(case, other[case.case]) for case in ours if case.case in other]
    if not pairs:
        return None
    ours_dice, theirs_dice = ([case.scores["dice"] for case in side] for side in zip(*pairs, strict=True))
    return paired_test(ours_dice, theirs_dice, [case.group for case, _ in pairs])


class Answer(StrEnum):
    """Whether GenSeg helped."""

    YES = "yes"
    NO = "no"
    OPEN = "open"
    """The numbers lean to a gain that chance could have made."""


@dataclass(frozen=True)
class Verdict:
    """The answer and the sentence that gives it.

    Example:
        >>> Verdict(Answer.NO, "No: nothing gained.").answer.value
        'no'
    """

    answer: Answer
    sentence: str


def judge(comparison: Comparison, ours: str = "genseg") -> Verdict:
    """Say whether GenSeg helped on these data, against the reference arm.

    Yes takes a gain whose interval leaves out 0, a corrected p below 0.05, and seeds that all gained: interval and p
    know how cases differ and not how trainings do. A difference at or below 0 is a no.

    Args:
        comparison: with GenSeg in it.
        ours: the arm that is judged.
    """
    mine = comparison.arm(ours)
    if mine is None or mine.test is None or mine.p is None:
        lacking = arm_title(ours if mine is None else comparison.reference)
        return Verdict(Answer.OPEN, f"No answer: {lacking} was not scored on these cases, so there is no comparison.")
    d, p, rival = mine.test.difference, mine.p, arm_title(comparison.reference).lower()
    gains, name = comparison.gains_by_seed(ours), _called(ours)
    seeds = max(1, len(gains))
    apart = f"; the seeds disagree: {', '.join(map(_signed, gains))}" if gains and min(gains) <= 0 < max(gains) else ""
    single = apart if seeds > 1 else "; one training proves little: repeat it with other seeds"
    few = "; so few cases prove little" if comparison.groups < _FEW else ""
    facts = (
        f"{_signed(d.mean)} Dice against {rival} on {comparison.cases} held-out cases (95 % interval {_signed(d.low)} "
        f"to {_signed(d.high)}, Holm-corrected p\N{NO-BREAK SPACE}{_p(p)}, {seeds} seed{'s' if seeds > 1 else ''})"
    )
    if d.low > 0 and p < _SIGNIFICANT and apart:
        return Verdict(Answer.OPEN, f"No gain shown: {facts}{apart}.")
    if d.low > 0 and p < _SIGNIFICANT:
        return Verdict(Answer.YES, f"Yes, {name} helped on these data: {facts}{single}.")
    if d.high < 0 and p < _SIGNIFICANT:
        return Verdict(Answer.NO, f"No, {name} did worse on these data: {facts}{single}.")
    if d.mean <= 0:
        return Verdict(Answer.NO, f"No, {name} gained nothing on these data: {facts}{few or single}.")
    return Verdict(Answer.OPEN, f"No gain shown: {facts}; chance could have made this difference{few}.")


def _called(arm: str) -> str:
    return (
        arm_title(arm)
        if arm == "genseg"
        else f"the arm \N{LEFT SINGLE QUOTATION MARK}{arm_title(arm)}\N{RIGHT SINGLE QUOTATION MARK}"
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _p(value: float) -> str:
    told = "< 0.001" if value < 0.001 else f"= {value:.3f}".replace("= 1.000", "= 1")
    return told.replace(" ", "\N{NO-BREAK SPACE}")
