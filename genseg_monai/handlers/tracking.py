"""Where the curves and pictures of a run can be followed: TensorBoard, and MLflow where it is wanted."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from PIL import Image

from genseg_monai.engines.events import StageEvents
from genseg_monai.errors import UserError
from genseg_monai.handlers.lazy_writer import LazyWriter
from genseg_monai.handlers.mlflow_writer import MlflowWriter

__all__ = ["Track", "Tracking", "Writers", "make_writer"]


class Tracking(StrEnum):
    """Where a run can be followed."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    """MLflow beside TensorBoard. The pictures, which show cases, go to its server too."""


def make_writer(tracking: Tracking | str, output_dir: str | Path) -> Writers:
    """Return what the curves and pictures of a run are written with.

    Args:
        tracking: where the run can be followed.
        output_dir: the run's folder.

    Raises:
        UserError: for another word, or MLflow is not installed.

    Example:
        >>> [type(one).__name__ for one in make_writer("tensorboard", "out").writers]
        ['LazyWriter']
    """
    if tracking not in list(Tracking):
        raise UserError("tracking", f"wanted {' or '.join(Tracking)}, got {tracking!r}")
    board = LazyWriter(Path(output_dir) / "logs")
    return Writers([board, MlflowWriter(output_dir)] if tracking == Tracking.MLFLOW else [board])


class Writers:
    """Several writers as one, with what MONAI's TensorBoard handlers need of theirs.

    Args:
        writers: each with ``add_scalar``, ``add_image``, ``flush`` and ``close``.

    Example:
        >>> Writers([]).flush()
    """

    def __init__(self, writers: Sequence[Any]) -> None:
        self.writers = list(writers)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write one value of one curve."""
        for one in self.writers:
            one.add_scalar(tag, value, step)

    def add_image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Write a picture, H W 3 of uint8."""
        for one in self.writers:
            one.add_image(tag, pixels, step)

    def flush(self) -> None:
        """Bring what was written to its place."""
        for one in self.writers:
            one.flush()

    def close(self) -> None:
        """Write what is left."""
        for one in self.writers:
            one.close()

    def of(self, kind: type) -> list[Any]:
        """Return the writers of a kind."""
        return [one for one in self.writers if isinstance(one, kind)]


class Track:
    """Hand on what other handlers have written: alpha, panels, plots, scores, calibration; then close the writers.

    Put it after them. The losses and the validation score come from MONAI's ``TensorBoardStatsHandler``.

    Args:
        writer: of `make_writer`.
        output_dir: the run's folder.
    """

    def __init__(self, writer: Writers, output_dir: str | Path) -> None:
        self.writer, self.root = writer, Path(output_dir)

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(StageEvents.OUTER_STEP_COMPLETED, self._alpha)
        engine.add_event_handler(StageEvents.PHASE_COMPLETED, self._panel)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _alpha(self, engine: Any) -> None:
        names, shares = engine.generator.candidate_names(), engine.generator.arch_weights()
        for cell, candidates in names.items():
            for name, share in zip(candidates, shares[cell].tolist(), strict=True):
                self.writer.add_scalar(f"alpha/{cell}/{name}", share, engine.state.iteration)

    def _panel(self, engine: Any) -> None:
        self._picture(f"panel_{engine.phase}", engine.state.iteration)

    def _finish(self, engine: Any) -> None:
        step = engine.state.iteration
        for name in ("curves", "alpha"):
            self._picture(name, step)
        comparison = self.root / "scores" / "comparison.csv"
        if comparison.is_file():
            with comparison.open(newline="", encoding="utf-8") as stream:
                for row in csv.DictReader(stream):
                    for score in ("dice", "jaccard", "hd95"):
                        self.writer.add_scalar(f"score/{row['arm']}/{row['class']}/{score}", float(row[score]), step)
        temperature = self.root / "models" / "calibration" / "temperature.json"
        if temperature.is_file():
            told = json.loads(temperature.read_text(encoding="utf-8"))
            self.writer.add_scalar("calibration/temperature", told["temperature"], step)
            for when in ("before", "after"):
                self.writer.add_scalar(f"calibration/ece_{when}", told[when]["ece"], step)
        for one in self.writer.of(MlflowWriter):
            one.add_facts({"phases": dict(engine.schedule.steps), **vars(engine.settings)})
            for path in (self.root / "run.json", comparison, temperature, self.root / "configs" / "train.yaml"):
                if path.is_file():
                    one.add_file(path, path.parent.name if path.parent != self.root else "run")
        self.writer.close()

    def _picture(self, name: str, step: int) -> None:
        path = self.root / "pictures" / f"{name}.png"
        if path.is_file():
            with Image.open(path) as picture:
                self.writer.add_image(f"pictures/{name}", np.asarray(picture.convert("RGB")), step)
