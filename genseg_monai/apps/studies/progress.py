"""How far a study is: cells done of how many, and the time left."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genseg_monai.apps.studies.budget import forecast, seconds_an_update
from genseg_monai.apps.studies.cells import Arm, Cell, Purpose
from genseg_monai.apps.studies.ledger import Ledger, State

__all__ = ["StudyProgress"]

logger = logging.getLogger(__name__)


class StudyProgress:
    """Tell what is done whenever a cell has ended.

    Args:
        folder: of the study.
        cells: all of them.
        costs: what `measure_costs` found; may be empty.
        processes: how many cells run at a time.

    Example:
        >>> import tempfile
        >>> from genseg_monai.apps.studies.cells import Arm
        >>> cell = Cell(Arm.PLAIN, seed=0, size=8, segmenter="unet_small", updates=100, factor=1.0)
        >>> costs = {"plain unet_small": 0.5, "start": 10.0}
        >>> print(StudyProgress(Path(tempfile.mkdtemp()), [cell], costs, processes=1).table())
        plain_n8_s0_unet_small  score  100 updates  to do
        1 of 1 cells to do, about 60 s left
    """

    def __init__(self, folder: Path, cells: Sequence[Cell], costs: Mapping[str, float], processes: int) -> None:
        self.ledger, self.cells, self.costs, self.processes = Ledger(folder), cells, costs, processes

    def __call__(self, cell: Cell, record: dict[str, Any]) -> None:
        """Log one line about a cell that has ended, and the study."""
        latest = self.ledger.latest()
        states = [latest.get(one.id, {}).get("state") for one in self.cells]
        done, failed = states.count(State.DONE), states.count(State.FAILED)
        left = [one for one, state in zip(self.cells, states, strict=True) if state not in (State.DONE, State.FAILED)]
        dice = ", ".join(f"{name} {value:.3f}" for name, value in record.get("dice", {}).items())
        told = f"Dice {dice}" if dice else f"failed: {record.get('reason')}"
        what = "chooses a learning rate: " if cell.purpose is Purpose.RATE else ""
        more = f", {failed} failed" if failed else ""
        logger.info(
            "%d of %d cells done%s, %s; %s%s, %s", done, len(states), more, self._left(left), what, cell.id, told
        )

    def _left(self, left: list[Cell]) -> str:
        done = seconds_an_update(
            [record for record in self.ledger.latest().values() if record["state"] == State.DONE], self.cells
        )
        seconds = forecast(left, self.costs, done)
        more = ", the passes of UniverSeg not counted" if any(cell.arm is Arm.INCONTEXT for cell in left) else ""
        return "time left unknown" if seconds is None else f"about {_time(seconds / self.processes)} left{more}"

    def table(self) -> str:
        """Return the cells and what they will take."""
        latest = self.ledger.latest()
        lines = [
            f"{cell.id}  {cell.purpose}  {cell.updates} updates  {latest.get(cell.id, {}).get('state', 'to do')}"
            for cell in self.cells
        ]
        left = [cell for cell in self.cells if latest.get(cell.id, {}).get("state") != State.DONE]
        return "\n".join([*lines, f"{len(left)} of {len(self.cells)} cells to do, {self._left(left)}"])


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
