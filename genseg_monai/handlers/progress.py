"""A progress bar with the time left, and a log line an epoch where there is no terminal."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from genseg_monai.handlers.output import scalars

__all__ = ["Progress"]

logger = logging.getLogger(__name__)


class Progress:
    """Show phase, loss and time left.

    On a terminal a bar on stderr; elsewhere one log line every few epochs.

    Args:
        epochs: between two log lines where there is no terminal; by default about twenty lines a run.
    """

    def __init__(self, epochs: int | None = None) -> None:
        self.epochs = epochs
        self._bar: Any = None
        self._start = (0, 0.0)

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _open(self, engine: Engine) -> None:
        if self._start[1] == 0.0:
            self._start = (engine.state.iteration, time.monotonic())
            self._bar = tqdm(
                total=_total(engine),
                initial=engine.state.iteration,
                unit="it",
                disable=not sys.stderr.isatty(),
                dynamic_ncols=True,
            )

    def _advance(self, engine: Engine) -> None:
        self._bar.update(1)
        if not self._bar.disable:
            self._bar.set_description(str(engine.phase))  # type: ignore[attr-defined]
            self._bar.set_postfix_str(f"loss {scalars(engine.state.output)['loss']:.3f}", refresh=False)

    def _report(self, engine: Engine) -> None:
        every = self.epochs or max(1, (engine.state.max_epochs or 1) // 20)
        if self._bar.disable and engine.state.epoch % every == 0:
            done, total = engine.state.iteration, _total(engine)
            rate = (time.monotonic() - self._start[1]) / max(done - self._start[0], 1)
            phase = engine.phase  # type: ignore[attr-defined]
            left = _minutes(rate * (total - done))
            loss = scalars(engine.state.output)["loss"]
            logger.info("%s: iteration %d of %d, loss %.3f, about %s left", phase, done, total, loss, left)

    def _close(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.close()


def _total(engine: Engine) -> int:
    return (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
