"""Checkpoints that continue to the bit, a clear way out on SIGTERM and Ctrl-C, and a stop when the loss explodes."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor

from genseg_monai._outcome import RunFailed
from genseg_monai.engines.communication import Communication
from genseg_monai.engines.state import load_file, load_state, save_file, take_state
from genseg_monai.errors import UserError
from genseg_monai.handlers.output import entries, read

__all__ = ["Checkpointer", "Resume", "StopOnDivergence", "TrainingDiverged", "latest_checkpoint"]

logger = logging.getLogger(__name__)

_NAME = re.compile(r"iteration_(\d+)\.pt")


class TrainingDiverged(RunFailed):
    """A loss is not a finite number any more."""


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of ``folder``, the oldest first."""
    found = {int(match[1]): path for path in folder.glob("iteration_*.pt") if (match := _NAME.fullmatch(path.name))}
    return [found[iteration] for iteration in sorted(found)]


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of ``folder`` by its iteration, ``None`` where there is none."""
    found = checkpoints(folder)
    return found[-1] if found else None


class Resume:
    """Continue from the newest checkpoint that can be read. Put it first among the handlers.

    Args:
        folder: of the checkpoints.
        wanted: continue if there is one; if not wanted, a folder that holds one is refused, so that nothing is lost.
        renew: if not wanted, drop the old checkpoints instead and start again.
        load: puts an engine where a state was taken; by default that of a `GenSegTrainer`.
    """

    def __init__(
        self, folder: str | Path, *, wanted: bool = False, renew: bool = False, load: Callable[..., None] = load_state
    ) -> None:
        self.folder, self.wanted, self.renew, self.load = Path(folder), wanted, renew, load

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Load the state before the first iteration."""
        communication = _communication(engine)
        if communication.writes:
            for left_by_a_killed_run in self.folder.glob(".*.iteration_*.pt"):
                left_by_a_killed_run.unlink()
        found = checkpoints(self.folder)
        communication.agree(str(self.folder), "its checkpoints", [path.name for path in found])
        if self.wanted:
            self._continue(engine, found)
        elif self.renew:
            for path in found if communication.writes else ():
                path.unlink()
        elif found:
            advice = "resume it, or give another output folder"
            raise UserError(str(self.folder), f"wanted an empty folder, found the checkpoints of another run: {advice}")

    def _continue(self, engine: Engine, found: list[Path]) -> None:
        for path in reversed(found):
            try:
                state = load_file(path)
            except UserError as problem:
                logger.warning("%s", problem)
                continue
            self.load(engine, state)
            logger.info("resumed from %s", path.name)
            return
        if found:
            raise UserError(
                str(self.folder), "none of its checkpoints can be read: remove it, to start from the beginning"
            )


class Checkpointer:
    """Save the whole state every few epochs, and once more when the run is asked to stop.

    Put it last among the handlers, so that it sees what the others did.

    Args:
        folder: of the files ``iteration_N.pt``.
        epochs: between two of them.
        keep: how many of the newest stay.
        take: the whole state of an engine; by default that of a `GenSegTrainer`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        epochs: int = 1,
        keep: int = 2,
        take: Callable[..., dict[str, Any]] = take_state,
    ) -> None:
        self.folder, self.epochs, self.keep, self.take = Path(folder), epochs, keep, take
        self._asked: int | None = None
        self._previous: dict[int, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.STARTED, self._listen)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._leave_if_asked)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.epochs), self.save)
        engine.add_event_handler(Events.COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self._give_signals_back)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._pass_on)

    def save(self, engine: Any) -> None:
        """Write the present state, then drop all but the newest files.

        Raises:
            TrainingDiverged: a weight is not a finite number; nothing is written.
        """
        state = self.take(engine)
        for name in ("network", "generator", "discriminator", "baseline"):
            if not all(bool(value.isfinite().all()) for value in (state.get(name) or {}).values()):
                raise _diverged(f"weights of the {name}", "not finite", engine.state.iteration, self.folder)
        if not _communication(engine).writes:
            return
        save_file(state, self.folder / f"iteration_{engine.state.iteration}.pt")
        for path in checkpoints(self.folder)[: -self.keep]:
            path.unlink()

    def _listen(self, engine: Engine) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = number

    def _leave_if_asked(self, engine: Any) -> None:
        # together, whichever process was asked
        if not _communication(engine).any(self._asked is not None):
            return
        self.save(engine)
        self._give_signals_back(engine)
        number = self._asked or signal.SIGTERM
        name = signal.Signals(number).name
        logger.warning("stopped by %s; saved iteration %d in %s", name, engine.state.iteration, self.folder)
        raise SystemExit(128 + number)

    def _give_signals_back(self, engine: Engine) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _pass_on(self, engine: Engine, problem: BaseException) -> None:
        self._give_signals_back(engine)
        raise problem


class StopOnDivergence:
    """Stop the run at the first loss that is not a number or beyond a bound, before anything is saved.

    Args:
        folder: of the checkpoints, to name the last good one.
        bound: a loss above it counts as exploded.
        every: iterations between two looks, each at all losses since the last one, for each of which a GPU is waited
            for; the end of an epoch is always one.
    """

    def __init__(self, folder: str | Path, bound: float = 1e6, every: int = 1) -> None:
        self.folder, self.bound, self.every = Path(folder), bound, every
        self._noted: dict[tuple[int, str], float | Tensor] = {}

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`; put it first among the handlers."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _note(self, engine: Engine) -> None:
        for name, value in entries(engine.state.output).items():
            if "loss" in name or "norm" in name:
                self._noted[engine.state.iteration, name] = value

    def __call__(self, engine: Engine) -> None:
        """Look at every scalar of the outputs since the last look."""
        noted, self._noted = self._noted, {}
        for (iteration, name), number in read(noted).items():
            if not abs(number) <= self.bound:
                raise _diverged(name, str(number), iteration, self.folder)


def _communication(engine: Any) -> Communication:
    """Return what a trainer says of its processes; one that says nothing has one."""
    return getattr(engine, "communication", None) or Communication()


def _diverged(what: str, value: str, iteration: int, folder: Path) -> TrainingDiverged:
    good = latest_checkpoint(folder)
    advice = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
    return TrainingDiverged(what, f"{value} at iteration {iteration}; {advice}; try a lower learning rate")
