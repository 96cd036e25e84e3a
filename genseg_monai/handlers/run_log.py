"""Everything this package logs during a run, also in ``logs/train.log``."""

from __future__ import annotations

import logging
from pathlib import Path

from ignite.engine import Engine, Events

__all__ = ["RunLog"]

_LOGGER = logging.getLogger("genseg_monai")


class RunLog:
    """Append the package's log lines to a file while the run lasts. Put it first among the handlers.

    Args:
        output_dir: the run's folder.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir) / "logs" / "train.log"

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _open(self, engine: Engine) -> None:
        _close_all()  # a run that failed in this process has left its own open
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handler = _RunFile(self.path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handler.level_before = _LOGGER.level
        if _LOGGER.getEffectiveLevel() > logging.INFO:
            _LOGGER.setLevel(logging.INFO)
        _LOGGER.addHandler(handler)

    def _close(self, engine: Engine) -> None:
        _close_all()


class _RunFile(logging.FileHandler):
    """The file of the run in progress."""

    level_before = logging.NOTSET


def _close_all() -> None:
    for handler in [handler for handler in _LOGGER.handlers if isinstance(handler, _RunFile)]:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(handler.level_before)
        handler.close()
