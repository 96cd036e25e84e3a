"""Everything this package logs during a run, also in ``logs/train.log``."""

from __future__ import annotations

import logging
from pathlib import Path

from ignite.engine import Engine, Events

__all__ = ["RunLog"]


class RunLog:
    """Append the package's log lines to a file while the run lasts. Put it first among the handlers.

    Args:
        output_dir: the run's folder.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir) / "logs" / "train.log"
        self._handler: logging.Handler | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _open(self, engine: Engine) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self.path, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger("genseg_monai").addHandler(self._handler)

    def _close(self, engine: Engine) -> None:
        if self._handler is not None:
            logging.getLogger("genseg_monai").removeHandler(self._handler)
            self._handler.close()
