"""Which phase an iteration belongs to, and its learning rate: pure functions of the iteration number.

One run is one sequence of phases. Nothing here has state, so that a resumed run cannot fall out of step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from genseg_monai.errors import UserError

__all__ = ["BASELINES", "Decay", "Phase", "Schedule", "Shares"]


class Phase(StrEnum):
    """The phases of one run, in their order."""

    WARM_UP = "warm_up"
    """Stage I alone: the searchable generator learns to draw images."""
    SEARCH = "search"
    """Stages I, II and III in turn."""
    FINE_TUNE = "fine_tune"
    """The derived generator learns on with the architecture found, on all training cases."""
    FINAL_FIT = "final_fit"
    """The segmenter learns from real and synthetic pairs of all training cases."""
    PLAIN = "plain"
    """Baseline: the same segmenter, the same number of updates and images, real pairs as they are."""
    AUGMENT = "augment"
    """Baseline: the same with strong augmentation of the real pairs."""


BASELINES = (Phase.PLAIN, Phase.AUGMENT)


class Decay(StrEnum):
    """How the segmenter's learning rate falls."""

    COSINE = "cosine"
    """Half a cosine, down to a hundredth."""
    POLY = "poly"
    """(1 - t)^0.9, down to nothing, as nnU-Net does."""


@dataclass(frozen=True)
class Shares:
    """How the iterations of GenSeg itself are divided, and how the segmenter's learning rate falls over them.

    Args:
        warm_up: relative weight of that phase.
        search: likewise.
        fine_tune: likewise.
        final_fit: likewise.
        hold: share of the final fit that keeps the full rate, in [0, 1): a run without a search then follows the curve
            of one that has it.
        decay: how the rate falls afterwards.

    Raises:
        UserError: a weight is below 0, neither search nor final fit has any, or ``hold`` or ``decay`` is unknown.

    Example:
        >>> Shares(warm_up=1, search=2, fine_tune=0, final_fit=1).search
        2
    """

    warm_up: float = 0.3
    search: float = 0.35
    fine_tune: float = 0.15
    final_fit: float = 0.35
    hold: float = 0.0
    decay: Decay | str = Decay.COSINE

    def __post_init__(self) -> None:
        weights = (self.warm_up, self.search, self.fine_tune, self.final_fit)
        if not 0 <= self.hold < 1:
            raise UserError("shares", f"wanted hold in [0, 1), got {self.hold}")
        if self.decay not in list(Decay):
            raise UserError("shares", f"wanted decay {' or '.join(Decay)}, got '{self.decay}'")
        object.__setattr__(self, "decay", Decay(self.decay))
        if min(weights) < 0 or self.search + self.final_fit <= 0:
            raise UserError("shares", f"wanted four weights >= 0 with some search or final_fit, got {weights}")


@dataclass(frozen=True)
class Schedule:
    """The number of iterations of each phase.

    Attributes:
        steps: by phase.
        hold: iterations of the final fit that keep the segmenter's full learning rate.
        decay: how that rate falls afterwards.

    Example:
        >>> schedule = Schedule.from_total(100, Shares(1, 1, 1, 1), baselines=["plain"])
        >>> [f"{phase}: {n}" for phase, n in schedule.steps.items()]
        ['warm_up: 17', 'search: 16', 'fine_tune: 17', 'final_fit: 17', 'plain: 33']
        >>> schedule.locate(17)
        (<Phase.SEARCH: 'search'>, 0)
    """

    steps: Mapping[Phase, int]
    hold: int = 0
    decay: Decay = Decay.COSINE

    @classmethod
    def from_total(cls, total: int, shares: Shares, baselines: Sequence[str] = ()) -> Schedule:
        """Divide ``total`` iterations by ``shares``; every baseline gets as many updates as GenSeg's segmenter.

        Raises:
            UserError: for an unknown baseline, or fewer iterations than phases that want one.
        """
        wanted = []
        for name in baselines:
            if name not in list(BASELINES):
                raise UserError("baselines", f"wanted any of {', '.join(BASELINES)}, got '{name}'")
            wanted.append(Phase(name))
        own = {
            Phase.WARM_UP: shares.warm_up,
            Phase.SEARCH: shares.search,
            Phase.FINE_TUNE: shares.fine_tune,
            Phase.FINAL_FIT: shares.final_fit,
        }
        weights = own | dict.fromkeys(wanted, shares.search + shares.final_fit)
        active = [phase for phase, weight in weights.items() if weight > 0]
        if total < len(active):
            raise UserError(
                "max_epochs", f"wanted at least {len(active)} iterations in all, got {total}: give more epochs"
            )
        ends = [
            round(total * sum(list(weights.values())[: i + 1]) / sum(weights.values())) for i in range(len(weights))
        ]
        steps = dict(zip(weights, (end - start for start, end in zip([0, *ends], ends, strict=False)), strict=True))
        for phase in active:  # a share so small that it rounds to nothing still gets one iteration
            if steps[phase] == 0:
                steps[max(steps, key=lambda name: steps[name])] -= 1
                steps[phase] = 1
        spare = max((Phase.WARM_UP, Phase.FINE_TUNE), key=lambda name: steps[name])
        for phase in wanted:  # what was rounded goes to the generator, so that the comparison stays equal
            extra = steps[phase] - steps[Phase.SEARCH] - steps[Phase.FINAL_FIT]
            if steps[spare] > max(0, -extra):
                steps[phase], steps[spare] = steps[phase] - extra, steps[spare] + extra
        return cls(steps, round(shares.hold * steps[Phase.FINAL_FIT]), Decay(shares.decay))

    @property
    def total(self) -> int:
        """All iterations of the run."""
        return sum(self.steps.values())

    @property
    def segmenter_updates(self) -> int:
        """Updates of GenSeg's segmenter: loop and final fit together."""
        return self.steps[Phase.SEARCH] + self.steps[Phase.FINAL_FIT]

    def fitted(self, phase: Phase, step: int) -> float:
        """Return the share of its updates that GenSeg's segmenter has made after this one of search or final fit."""
        before = self.steps[Phase.SEARCH] if phase is Phase.FINAL_FIT else 0
        return (before + step + 1) / self.segmenter_updates

    def shortened(self, search: int) -> Schedule:
        """Return the schedule whose search ends after ``search`` iterations; the baselines lose as many updates."""
        lost = self.steps[Phase.SEARCH] - search
        shorter = {
            phase: steps - lost if phase is Phase.SEARCH or phase in BASELINES else steps
            for phase, steps in self.steps.items()
        }
        return replace(self, steps=shorter)

    def locate(self, iteration: int) -> tuple[Phase, int]:
        """Return the phase of a 0-based iteration and its number within that phase."""
        for phase, count in self.steps.items():
            if iteration < count:
                return phase, iteration
            iteration -= count
        raise IndexError(f"the run has {self.total} iterations")

    def segmenter_rate(self, phase: Phase, step: int, floor: float = 0.01) -> float:
        """Return the factor on the segmenter's learning rate: constant in the loop, falling in the final fit.

        A baseline follows the same curve over its own updates.
        """
        if phase is Phase.SEARCH:
            return 1.0
        looped = self.hold if phase is Phase.FINAL_FIT else self.steps[Phase.SEARCH] + self.hold
        length = self.steps[phase] - looped
        return (_poly if self.decay is Decay.POLY else _cosine)(step - looped, length, floor)

    def generator_rate(self, phase: Phase, step: int, floor: float = 0.01) -> float:
        """Return the factor on the generator's learning rate: constant, then a cosine while it is fine-tuned."""
        return _cosine(step, self.steps[phase], floor) if phase is Phase.FINE_TUNE else 1.0


def _cosine(step: int, length: int, floor: float) -> float:
    if step < 0 or length <= 0:
        return 1.0
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(step / length, 1.0)))


def _poly(step: int, length: int, floor: float) -> float:
    return 1.0 if step < 0 or length <= 0 else (1 - min(step / length, 1.0)) ** 0.9
