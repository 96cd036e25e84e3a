"""One process at work on a study: take a cell that nobody has, run it, write down what came out, until none is left."""

from __future__ import annotations

import math
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from genseg_monai._outcome import one_line
from genseg_monai.apps.studies.cells import Cell
from genseg_monai.apps.studies.ledger import Ledger, State
from genseg_monai.apps.studies.run_cell import cell_folder, run_cell
from genseg_monai.apps.studies.settings import StudySettings
from genseg_monai.errors import UserError

__all__ = ["chosen_factor", "work"]

_MOST_DEATHS = 5
_WAIT = 2.0  # seconds between two looks at what other processes do

Told = Callable[[Cell, dict[str, Any]], None]


def work(
    study: Path,
    settings: StudySettings,
    device: str | None = None,
    tell: Told | None = None,
    *,
    given_up: Iterable[str] = (),
) -> list[str]:
    """Run every cell that is not done; a cell that fails is written down and does not stop the others.

    Any number of processes may work on one study, on one machine or on several that share its folder.

    Args:
        study: folder of the study.
        settings: of the study.
        device: cpu, cuda or cuda:N.
        tell: called with a cell and its last record when it has ended.
        given_up: ids of cells that are not tried.

    Returns:
        Ids of the cells that failed here.
    """
    ledger, failed, tried = Ledger(study), list[str](), set(given_up)
    cells = settings.cells()
    while True:
        left = [cell for cell in cells if cell.id not in tried and not ledger.is_done(cell.id)]
        ready = [cell for cell in left if _pilots_ended(ledger, settings, cell, tried)]
        if not left:
            return failed
        for cell in ready:
            with ledger.claim(cell.id) as mine:
                if not mine or ledger.is_done(cell.id):
                    continue
                tried.add(cell.id)
                _run(ledger, study, settings, cell, device)
            record = ledger.latest()[cell.id]
            if record["state"] == State.FAILED:
                failed.append(cell.id)
            if tell is not None:
                tell(cell, record)
            break
        else:
            if len(ready) == len(left):  # what is left is in other hands
                return failed
            time.sleep(_WAIT)


def chosen_factor(ledger: Ledger, settings: StudySettings, cell: Cell) -> float:
    """Return the factor on the learning rate that the validation cases choose, the same for all cells of an arm.

    The one nearest to 1 that is no worse than the best by more than the standard error of their difference over the
    cases: a few validation cases and a short run tell good rates from bad ones, not good ones from each other (the rule
    of one standard error; Breiman et al., Classification and Regression Trees, 1984).

    Raises:
        UserError: every rate failed.
    """
    if cell.factor is not None:
        return cell.factor
    latest = ledger.latest()
    for sibling in settings.cells():  # a pilot that is tried again later changes nothing for the cells to come
        alike = (sibling.arm, sibling.segmenter, sibling.purpose) == (cell.arm, cell.segmenter, cell.purpose)
        if alike and latest.get(sibling.id, {}).get("state") == State.DONE:
            return float(latest[sibling.id]["factor"])
    reached = {
        pilot.factor: np.asarray(latest[pilot.id]["val_cases"])
        for pilot in settings.pilots(cell)
        if latest.get(pilot.id, {}).get("state") == State.DONE and pilot.factor is not None
    }
    if not reached:
        raise UserError(cell.id, "no learning rate could be chosen, all of them failed; see their logs/cell.log")
    best = max(reached.values(), key=lambda dice: float(dice.mean()))

    def as_good(dice: np.ndarray) -> bool:
        lead = best - dice
        return bool(lead.mean() <= lead.std(ddof=1) / math.sqrt(len(lead)) if len(lead) > 1 else lead.mean() <= 0)

    return min((factor for factor, dice in reached.items() if as_good(dice)), key=lambda factor: abs(math.log(factor)))


def _pilots_ended(ledger: Ledger, settings: StudySettings, cell: Cell, tried: set[str]) -> bool:
    latest = ledger.latest()
    return all(
        pilot.id in tried or latest.get(pilot.id, {}).get("state") in (State.DONE, State.FAILED)
        for pilot in settings.pilots(cell)
    )


def _run(ledger: Ledger, study: Path, settings: StudySettings, cell: Cell, device: str | None) -> None:
    """Run a cell that this process holds, and write down how it ended."""
    facts = {"device": device or "", "host": socket.gethostname(), "process": os.getpid()}
    if ledger.deaths(cell.id) >= _MOST_DEATHS:
        reason = f"its process vanished {_MOST_DEATHS} times in a row (out of memory?); see logs/cell.log"
        ledger.append(cell.id, State.FAILED, reason=reason, **facts)
        return
    ledger.append(cell.id, State.STARTED, **facts)
    begun = time.monotonic()
    try:
        factor = chosen_factor(ledger, settings, cell) if cell.updates else 1.0
        found = run_cell(study, settings, cell, factor, device)
    except (KeyboardInterrupt, SystemExit):
        ledger.append(cell.id, State.STOPPED, seconds=round(time.monotonic() - begun, 1), **facts)
        raise
    except Exception as error:
        log = cell_folder(study, cell) / "logs" / "cell.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as stream:
            traceback.print_exc(file=stream)
        seconds = round(time.monotonic() - begun, 1)
        ledger.append(cell.id, State.FAILED, reason=one_line(error), seconds=seconds, **facts)
    else:
        ledger.append(cell.id, State.DONE, **found, **facts)
