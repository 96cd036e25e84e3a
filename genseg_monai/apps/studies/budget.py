"""From wall-clock time to the number of updates that every cell gets, once; and what is left of the time.

One update of an arm is timed in rehearsal, with everything that goes with it: GenSeg's share of generator steps,
the hypergradient when it is due, a WGAN's training. Afterwards every arm gets the same number of updates.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from genseg_monai.apps.studies.arms import REAL_ONLY, arm_overrides, steps_of
from genseg_monai.apps.studies.cells import Arm, Cell
from genseg_monai.apps.studies.settings import StudySettings
from genseg_monai.errors import UserError

__all__ = ["Costs", "forecast", "measure_costs", "seconds_an_update", "updates_within"]

_KEPT_FREE = 0.9  # of the budget: scoring, saving and what the rehearsal did not see
_REHEARSED = 200  # updates: long enough for every phase to have some
_FEWEST = 10
_GUESS = {
    Arm.INCONTEXT: 0.0,
    Arm.GENSEG: 6.0,
    Arm.PAPER: 6.0,
    Arm.SCENES: 6.0,
    Arm.STYLES: 6.0,
    Arm.NO_SEARCH: 4.0,
    Arm.SEPARATE: 3.0,
    Arm.WGAN: 4.0,
}

Costs = dict[str, float]
"""``ARM SEGMENTER`` -> seconds an update with all that belongs to it; ``start`` -> seconds a cell needs besides."""


def measure_costs(settings: StudySettings, device: str | None = None) -> Costs:
    """Rehearse one cell of each kind for a few iterations.

    Args:
        settings: of the study; its number of updates does not matter.
        device: cpu, cuda or cuda:N.
    """
    from genseg_monai.apps.studies.run_cell import study_cases
    from genseg_monai.data.nested import nested_cases

    costs: Costs = {}
    rehearsed = replace(settings, updates=_REHEARSED, epoch=min(settings.epoch, 20))
    kinds: dict[tuple[str, str], str] = {}
    everyone, _ = study_cases(settings)
    for cell in rehearsed.cells():
        # the arms without synthetic pairs cost the same, but for the augmentation of two of them
        kind = "real" if cell.arm in REAL_ONLY and cell.arm is not Arm.NNUNET_STYLE else str(cell.arm)
        name = f"{cell.arm} {cell.segmenter}"
        if cell.arm is Arm.INCONTEXT or name in costs:
            continue
        if (kind, cell.segmenter) in kinds:
            costs[name] = costs[kinds[kind, cell.segmenter]]
            continue
        cases = nested_cases(everyone, min(max(settings.sizes), len(everyone)), settings.seeds[0])
        like = replace(cell, arm=Arm.AUGMENT) if kind == "real" else cell
        begun = time.monotonic()
        costs[name], steps = _rehearse(rehearsed, replace(like, updates=_REHEARSED), cases, device)
        costs["start"] = max(costs.get("start", 0.0), time.monotonic() - begun - steps)
        kinds[kind, cell.segmenter] = name
    return costs


def _rehearse(
    settings: StudySettings, cell: Cell, cases: list[dict[str, Any]], device: str | None
) -> tuple[float, float]:
    """Return the seconds of one update of a cell, all its parts included, and those of the rehearsal itself."""
    from monai.bundle import ConfigWorkflow

    from genseg_monai.apps.train import config_files
    from genseg_monai.apps.workflow import checked_device, quiet
    from genseg_monai.engines import measure
    from genseg_monai.engines.wasserstein import train_pairs

    quiet()
    files = [str(path) for path in config_files(settings.preset)]
    config = settings.config()
    changes = arm_overrides(cell, config, epoch=settings.epoch, factor=1.0)
    changes |= {name: config[name.split("#")[0]] for name in settings.overrides if name.split("#")[0] not in changes}
    changes = {name.split("#")[0]: value for name, value in changes.items()} | {"split_file": None, "cases": cases}
    if device is not None:
        changes["device"] = checked_device(device)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w", encoding="utf-8") as nothing:
        changes |= {"dataset_dir": settings.data, "output_dir": folder, "final_scores": False}
        changes["splits"] = "$genseg_monai.data.splits.Splits(train=@cases, val=@cases[:1])"
        with contextlib.redirect_stderr(nothing):
            workflow = ConfigWorkflow(files, workflow_type="train", logging_file=False, run_id="training", **changes)
            workflow.initialize()
            trainer = workflow.parser.get_parsed_content("train#trainer")
        begun = time.monotonic()
        estimate = measure(trainer)
        seconds = estimate.total(trainer.schedule)
        steps = steps_of(cell.arm, cell.updates, config["shares"], settings.epoch)
        if steps.pairs:
            clock = time.monotonic()
            train_pairs(trainer.loader.cases, trainer.classes, 2)
            seconds += steps.pairs * (time.monotonic() - clock) / 2
    return seconds / cell.updates, time.monotonic() - begun


def updates_within(settings: StudySettings, costs: Mapping[str, float], budget: float, processes: int = 1) -> int:
    """Return how many updates every cell may make within a budget, a multiple of the epoch.

    Args:
        settings: of the study.
        costs: what `measure_costs` found.
        budget: seconds on the clock, for all cells together.
        processes: how many cells run at a time.

    Raises:
        UserError: the budget is too short for anything to be learnt.
    """
    cells = [cell for cell in settings.cells() if cell.updates]
    # cells of a third of the length count a third
    each = sum(cell.updates / settings.updates * costs[f"{cell.arm} {cell.segmenter}"] for cell in cells)
    left = _KEPT_FREE * budget * processes - len(cells) * costs.get("start", 0.0)
    updates = int(left / each) // settings.epoch * settings.epoch
    if updates < max(_FEWEST, settings.epoch):
        least = (max(_FEWEST, settings.epoch) * each + len(cells) * costs.get("start", 0.0)) / processes / _KEPT_FREE
        raise UserError(
            "--budget",
            f"wanted time for {len(cells)} runs, at least {least / 60:.1f} minutes, got {budget / 60:.1f}; give more, "
            "or fewer --arms, --seeds or --sizes",
        )
    return updates


def forecast(cells: Iterable[Cell], costs: Mapping[str, float], seconds_done: Mapping[str, float]) -> float | None:
    """Return the seconds that cells will take one after the other; None while nothing is known.

    Args:
        cells: still to be run.
        costs: what `measure_costs` found; may be empty.
        seconds_done: seconds an update of each ``ARM SEGMENTER`` that has been run.
    """
    known = {**costs, **seconds_done}
    plain = [known[name] / _GUESS.get(Arm(name.split()[0]), 1.0) for name in known if name != "start"]
    if not plain:
        return None
    unit = sum(plain) / len(plain)
    total = 0.0
    for cell in cells:
        guess = unit * _GUESS.get(cell.arm, 1.0)
        total += cell.updates * known.get(f"{cell.arm} {cell.segmenter}", guess) + costs.get("start", 0.0)
    return total


def seconds_an_update(records: Iterable[Mapping[str, Any]], cells: Iterable[Cell]) -> dict[str, float]:
    """Return the seconds an update of each ``ARM SEGMENTER``, from the records of finished cells."""
    by_id = {cell.id: cell for cell in cells}
    spent: dict[str, list[float]] = {}
    for record in records:
        cell = by_id.get(record["cell"])
        if cell is not None and cell.updates and "seconds" in record:
            spent.setdefault(f"{cell.arm} {cell.segmenter}", []).append(record["seconds"] / cell.updates)
    return {name: sum(values) / len(values) for name, values in spent.items()}
