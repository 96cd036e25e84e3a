"""Time and memory of a run, from a few iterations of each phase taken in rehearsal; afterwards all is as it was."""

from __future__ import annotations

import copy
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, NamedTuple

import torch
from monai.utils.enums import CommonKeys as Keys

from genseg_monai.engines.schedule import Phase, Schedule
from genseg_monai.engines.settings import LoopSettings
from genseg_monai.engines.stages import Observer
from genseg_monai.engines.state import load_state, take_state
from genseg_monai.engines.trainer import GenSegTrainer
from genseg_monai.errors import UserError

__all__ = ["Estimate", "epochs_within", "measure", "parse_budget"]

_OVERHEAD = 1.1
"""Share of validation and saving on top of the steps themselves."""
_NEVER_DUE = -1
"""Number of an iteration that no step of stage III follows."""
_ENDS = 2.5
"""CPU seconds that packages, pictures and final scores take in a short run (benchmarks/forecast.py, 32 and 64 px)."""


@dataclass(frozen=True)
class Estimate:
    """What a run will cost.

    Attributes:
        seconds: of one iteration, by phase, stage III left out.
        peak_bytes: of the process (CPU) or of the device's allocations (CUDA).
        outer: seconds of a step of stage III.
        real: seconds of an iteration of the final fit that does without synthetic pairs.
        settings: of the loop: which iterations of the search have such a step.
        ends: seconds besides all iterations.
        busy: wall-clock seconds for each second of CPU time: 1 for one thread on a machine with nothing else to do,
            less with more threads, more on a busy one.
    """

    seconds: Mapping[Phase, float]
    peak_bytes: int
    outer: float = 0.0
    real: float = 0.0
    settings: LoopSettings = field(default_factory=lambda: LoopSettings(outer_every=0))
    ends: float = 0.0
    busy: float = 1.0

    def total(self, schedule: Schedule, *, cpu: bool = False) -> float:
        """Return the seconds of a whole run: wall-clock on a machine as busy as now, or of CPU time."""
        plain = sum(self.seconds[phase] * steps for phase, steps in schedule.steps.items() if steps)
        if late := _late(self.settings, schedule):
            plain += (self.real - self.seconds[Phase.FINAL_FIT]) * late
        due = sum(self.settings.outer_due(step) for step in range(schedule.steps.get(Phase.SEARCH, 0)))
        return (_OVERHEAD * (plain + self.outer * due) + self.ends) / (self.busy if cpu else 1.0)


def _late(settings: LoopSettings, schedule: Schedule) -> int:
    """Return how many iterations of the final fit do without the synthetic pairs that the others have."""
    steps = range(schedule.steps.get(Phase.FINAL_FIT, 0))
    shares = (schedule.fitted(Phase.FINAL_FIT, step) for step in steps)
    return sum(settings.synthetic and not settings.synthetic_after(share) for share in shares)


class Cost(NamedTuple):
    """Seconds of one iteration."""

    wall: float
    cpu: float


def measure(trainer: GenSegTrainer, repeats: int = 3, *, any_length: bool = False) -> Estimate:
    """Rehearse each phase of ``trainer`` and put everything back to the bit.

    Args:
        trainer: not started yet.
        repeats: timed iterations a phase, after one that is not timed; the one that took least counts.
        any_length: whether the run may still be made longer: stage III is then rehearsed even if the search, as it is
            planned, ends before its first step, which costs memory that such a run does not need.
    """
    with tempfile.TemporaryFile() as kept:
        # the state goes to a file: a copy in memory would count as memory of the run
        torch.save(take_state(trainer), kept)
        return _rehearse(trainer, repeats, kept, any_length)


def _rehearse(trainer: GenSegTrainer, repeats: int, kept: IO[bytes], any_length: bool) -> Estimate:
    first = trainer.settings.outer_after
    outer_due = trainer.settings.outer_due(first) and (any_length or first < trainer.schedule.steps[Phase.SEARCH])
    players = copy.copy(trainer.players)
    trainer.rehearsing, trainer.players.trained = True, {}
    device = trainer.state.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    costs: dict[Phase, Cost] = {}
    outer = real = Cost(0.0, 0.0)
    try:
        for phase in (phase for phase, steps in trainer.schedule.steps.items() if steps):
            trainer.enter(phase)
            costs[phase] = _timed(trainer, phase, _NEVER_DUE, repeats)
            if phase is Phase.SEARCH and outer_due:
                due = _timed(trainer, phase, first, repeats)
                outer = Cost(*(max(0.0, a - b) for a, b in zip(due, costs[phase], strict=True)))
            if phase is Phase.FINAL_FIT and _late(trainer.settings, trainer.schedule):
                real = _timed(trainer, phase, trainer.schedule.steps[phase] - 1, repeats)
    finally:
        peak = _peak(device)
        trainer.rehearsing, trainer.players = False, players
        kept.seek(0)
        load_state(trainer, torch.load(kept, weights_only=True))
    everything = [*costs.values(), outer, real]
    busy = sum(cost.wall for cost in everything) / max(1e-9, sum(cost.cpu for cost in everything))
    # the CPU time of each, which other work on the machine does not blur; on a GPU it says nothing
    scale, clock = (1.0, 0) if device.type == "cuda" else (busy, 1)
    return Estimate(
        {phase: scale * cost[clock] for phase, cost in costs.items()},
        peak,
        scale * outer[clock],
        scale * real[clock],
        trainer.settings,
        scale * _ENDS,
        busy,
    )


def _timed(trainer: GenSegTrainer, phase: Phase, step: int, repeats: int) -> Cost:
    observe: Observer = lambda event, **values: None  # noqa: E731
    found: list[Cost] = []
    trainer.size_batch(phase, step)
    for _ in range(repeats + 1):
        wall, cpu = _clock(trainer.state.device), time.process_time()
        batch = trainer.loader.draw()
        trainer.take(phase, step, batch[Keys.IMAGE], trainer.to_masks(batch[Keys.LABEL]), observe)
        found.append(Cost(_clock(trainer.state.device) - wall, time.process_time() - cpu))
    return Cost(min(cost.wall for cost in found[1:]), min(cost.cpu for cost in found[1:]))


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
    return max(least, int((budget - estimate.ends) / ((estimate.total(many) - estimate.ends) / 1000)))


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
