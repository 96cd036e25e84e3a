"""Time and memory of a run, from a few iterations of each phase taken in rehearsal; afterwards all is as it was."""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from monai.utils.enums import CommonKeys as Keys

from genseg_monai.engines.schedule import Phase, Schedule
from genseg_monai.engines.stages import Observer
from genseg_monai.engines.state import load_state, take_state
from genseg_monai.engines.trainer import GenSegTrainer
from genseg_monai.errors import UserError

__all__ = ["Estimate", "epochs_within", "measure", "parse_budget"]

_OVERHEAD = 1.1
"""Share of validation, saving and drawing on top of the steps themselves."""


@dataclass(frozen=True)
class Estimate:
    """What a run will cost.

    Attributes:
        seconds: of one iteration, by phase.
        peak_bytes: of the process (CPU) or of the device's allocations (CUDA).
    """

    seconds: Mapping[Phase, float]
    peak_bytes: int

    def total(self, schedule: Schedule) -> float:
        """Return the seconds of a whole run."""
        return _OVERHEAD * sum(self.seconds[phase] * steps for phase, steps in schedule.steps.items() if steps)


def measure(trainer: GenSegTrainer, repeats: int = 2) -> Estimate:
    """Rehearse each phase of ``trainer`` and put everything back to the bit.

    Args:
        trainer: not started yet.
        repeats: timed iterations a phase, after one that is not timed.
    """
    state, players = copy.deepcopy(take_state(trainer)), copy.copy(trainer.players)
    trainer.rehearsing, trainer.players.trained = True, {}
    device = trainer.state.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds: dict[Phase, float] = {}
    try:
        for phase in (phase for phase, steps in trainer.schedule.steps.items() if steps):
            trainer.enter(phase)
            plain = trainer.settings.outer_after + 1
            seconds[phase] = _timed(trainer, phase, plain, repeats)
            every = trainer.settings.outer_every
            if phase is Phase.SEARCH and every > 0:
                due = _timed(trainer, phase, trainer.settings.outer_after, repeats)
                seconds[phase] += (due - seconds[phase]) / every if every > 1 else 0.0
    finally:
        trainer.rehearsing, trainer.players = False, players
        load_state(trainer, state)
    return Estimate(seconds, _peak(device))


def _timed(trainer: GenSegTrainer, phase: Phase, step: int, repeats: int) -> float:
    observe: Observer = lambda event, **values: None  # noqa: E731
    start = 0.0
    for repeat in range(repeats + 1):
        if repeat == 1:
            start = _clock(trainer.state.device)
        batch = trainer.loader.draw()
        trainer.take(phase, step, batch[Keys.IMAGE], trainer.to_masks(batch[Keys.LABEL]), observe)
    return (_clock(trainer.state.device) - start) / repeats


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def epochs_within(estimate: Estimate, trainer: GenSegTrainer, budget: float) -> int:
    """Return how many epochs of ``trainer`` take at most ``budget`` seconds, at least as many as its phases need."""
    length = trainer.state.epoch_length
    least = -(-sum(steps > 0 for steps in trainer.schedule.steps.values()) // length)
    many = Schedule.from_total(1000 * length, trainer.settings.shares, trainer.settings.baselines)
    return max(least, int(budget / (estimate.total(many) / 1000)))


def parse_budget(text: str | float) -> float:
    """Return seconds of ``90s``, ``30m``, ``1.5h`` or a bare number of seconds.

    Raises:
        UserError: for anything else.

    Example:
        >>> parse_budget("1.5h")
        5400.0
    """
    text = str(text).strip().lower()
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        seconds = float(text if unit is None else text[:-1]) * (unit or 1.0)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise UserError("--budget", f"wanted a time such as 90s, 30m or 1.5h, got '{text}'")
    return seconds
