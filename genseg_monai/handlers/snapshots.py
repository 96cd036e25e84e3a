"""The segmenter at a few steps before the end of its final fit: an ensemble that costs no training of its own.

After Huang et al., "Snapshot ensembles: train 1, get M for free", ICLR 2017 (arXiv 1704.00109), without their restarts
of the learning rate: the snapshots lie close together, and several seeds tell more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from genseg_monai.engines.schedule import Phase
from genseg_monai.engines.state import save_file

__all__ = ["Snapshots"]

_FROM = 0.6  # of the final fit: before it the learning rate is too high


class Snapshots:
    """Write ``models/snapshots/step_N.pt`` during the final fit: of the running mean of the weights, if one is kept.

    Args:
        output_dir: the run's folder.
        count: how many; the final weights are one more. 0 for none.
    """

    def __init__(self, output_dir: str | Path, count: int = 2) -> None:
        self.folder, self.count = Path(output_dir) / "models" / "snapshots", count

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.STARTED, self._clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)

    def steps(self, length: int) -> list[int]:
        """Return after how many steps of a final fit of `length` steps a snapshot is taken.

        Example:
            >>> Snapshots("out", count=2).steps(100)
            [60, 80]
        """
        parts = [_FROM + (1 - _FROM) * i / self.count for i in range(self.count)]
        return sorted({round(length * part) for part in parts} - {0, length})

    def _clear(self, engine: Any) -> None:
        if engine.state.iteration == 0:
            for path in self.folder.glob("step_*.pt"):
                path.unlink()

    def _keep(self, engine: Any) -> None:
        if engine.phase is not Phase.FINAL_FIT:
            return
        _, step = engine.schedule.locate(engine.state.iteration - 1)
        if step + 1 in self.steps(engine.schedule.steps[Phase.FINAL_FIT]):
            save_file(engine.players.kept(), self.folder / f"step_{step + 1:06d}.pt")
