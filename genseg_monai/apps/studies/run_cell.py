"""Run one cell: a bundle run in the cell's own folder, then its scores on every data set at native size."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genseg_monai._atomic import whole_file
from genseg_monai.apps.studies.arms import arm_overrides, base_rate
from genseg_monai.apps.studies.cells import Arm, Cell, Purpose
from genseg_monai.apps.studies.settings import StudySettings, data_name
from genseg_monai.metrics.statistics import group_means

__all__ = ["Cases", "case_dice", "cell_folder", "run_cell", "study_cases"]

Cases = dict[str, list[dict[str, Any]]]
"""Name of a scored data set, ``val`` among them -> its cases."""


def cell_folder(study: Path, cell: Cell) -> Path:
    """Return the folder of a cell, itself a bundle when the cell has run."""
    return study / "cells" / cell.id


def study_cases(settings: StudySettings) -> tuple[list[dict[str, Any]], Cases]:
    """Return all training cases, and the cases to score: ``val``, the test of the data set, then the other data sets.

    Raises:
        UserError: a data set cannot be read, or a size is larger than the training set.
    """
    from genseg_monai.data import find_cases, read_splits
    from genseg_monai.data.nested import study_splits

    label_dir = settings.config().get("label_dir")
    found = find_cases(settings.data, label_dir)
    splits = study_splits(settings.data, found, needs_test=not settings.test)
    scored: Cases = {"val": splits.val}
    if splits.test:
        scored[_free_name(settings.data, scored)] = splits.test
    for other in settings.test:
        cases = find_cases(other)
        scored[_free_name(other, scored)] = read_splits(other, cases).test or cases
    return splits.train, scored


def _free_name(root: str, taken: Cases) -> str:
    """Return the name of a data set, numbered where another one has it."""
    name = data_name(root)
    return next(one for i in range(len(taken) + 1) if (one := f"{name}_{i + 1}" if i else name) not in taken)


def run_cell(
    study: Path, settings: StudySettings, cell: Cell, factor: float, device: str | None = None
) -> dict[str, Any]:
    """Train a cell, or go on with it, and score it.

    Args:
        study: folder of the study.
        settings: of the study.
        cell: what to run.
        factor: on the arm's learning rate.
        device: cpu, cuda or cuda:N.

    Returns:
        What the ledger keeps: learning rate, seconds, mean Dice by data set.

    Raises:
        Exception: whatever ended the run.
    """
    from genseg_monai.data.nested import nested_cases

    folder, begun = cell_folder(study, cell), time.monotonic()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    everyone, scored = study_cases(settings)
    train = nested_cases(everyone, cell.size, cell.seed)
    if cell.purpose is Purpose.RATE:
        scored = {"val": scored["val"]}
    with _quietly(folder / "logs" / "cell.log"):
        if cell.arm is Arm.INCONTEXT:
            from genseg_monai.apps.studies.in_context import score_in_context

            facts: dict[str, Any] = {}
            score_in_context(folder, settings, cell, train, scored, device)
        else:
            config = settings.config()
            _write_cell(folder, settings, cell, factor, config, train, scored["val"])
            facts = {"learning_rate": factor * base_rate(cell.arm, config), "factor": factor}
            _train(folder, settings, cell, device)
            for name, cases in scored.items():
                _score(folder, name, cases, device)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # hundreds of megabytes that nothing needs any more
    dice = {name: case_dice(folder / "scores" / f"{name}.csv") for name in scored}
    facts |= {"val_cases": dice["val"]} if cell.purpose is Purpose.RATE else {}
    means = {name: round(sum(values) / len(values), 4) for name, values in dice.items()}
    return facts | {"seconds": round(time.monotonic() - begun, 1), "dice": means}


def case_dice(path: Path) -> list[float]:
    """Return the Dice of every case of a table of scores, in the order of the table, each the mean over its classes."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    means = group_means([float(row["dice"]) for row in rows], [row["case"] for row in rows])
    return [round(value, 4) for value in means.values()]


def _write_cell(
    folder: Path,
    settings: StudySettings,
    cell: Cell,
    factor: float,
    config: dict[str, Any],
    train: Sequence[dict[str, Any]],
    val: Sequence[dict[str, Any]],
) -> None:
    """Write ``splits.json`` and ``cell.json``."""
    overrides = arm_overrides(cell, config, epoch=settings.epoch, factor=factor)
    names = {name: [case["case"] for case in cases] for name, cases in (("train", train), ("val", val))}
    content = {"splits": {**names, "test": []}, "cell": {"cell": asdict(cell), "overrides": overrides}}
    for name, value in content.items():
        with whole_file(folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _train(folder: Path, settings: StudySettings, cell: Cell, device: str | None) -> None:
    """Start the training of a cell, or go on with it; nothing to do where it has ended."""
    from genseg_monai.apps.train import train

    record = folder / "run.json"
    begun = record.is_file() and (folder / "configs" / "train.yaml").is_file()
    if begun and json.loads(record.read_text(encoding="utf-8"))["finished"]:
        return
    if begun:
        train(resume=str(folder), data=settings.data, device=device)
        return
    own = json.loads((folder / "cell.json").read_text(encoding="utf-8"))["overrides"]
    common = {name: value for name, value in settings.overrides.items() if name.split("#")[0] not in own}
    train(
        data=settings.data,
        out=str(folder),
        preset=settings.preset,
        seed=str(cell.seed),
        device=device,
        **common | {name: str(value) for name, value in own.items()},
    )


def _score(folder: Path, name: str, cases: list[dict[str, Any]], device: str | None) -> None:
    from genseg_monai.apps.workflow import open_workflow

    if (folder / "scores" / f"{name}_summary.json").is_file():
        return
    overrides: dict[str, Any] = {"scores#name": name}
    workflow = open_workflow(
        folder, "evaluate", cases=cases, output_dir=str(folder / "scores"), device=device, **overrides
    )
    workflow.run()


@contextlib.contextmanager
def _quietly(path: Path) -> Iterator[None]:
    """Send what a run writes to its own log; the screen keeps warnings and the study's progress."""
    root = logging.getLogger()
    levels = [(handler, handler.level) for handler in root.handlers]
    with path.open("a", encoding="utf-8") as stream:
        own = logging.StreamHandler(stream)
        own.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger("genseg_monai").addHandler(own)
        for handler, _ in levels:
            handler.setLevel(max(handler.level, logging.ERROR))
        try:
            with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
                yield
        finally:
            sys.stderr.flush()
            logging.getLogger("genseg_monai").removeHandler(own)
            for handler, level in levels:
                handler.setLevel(level)
