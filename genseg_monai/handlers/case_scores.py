"""Score every case of an evaluation at its native size and write what came out."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys

from genseg_monai._atomic import whole_file
from genseg_monai.errors import UserError
from genseg_monai.metrics.cases import CaseScore, score_case, summarise, write_scores

__all__ = ["CaseScores", "native_spacing", "score_table"]

logger = logging.getLogger(__name__)

_SCORES = ("dice", "jaccard", "hd95")
_VOLUMES = (".nii", ".nii.gz")  # what knows its spacing; a picture is measured in pixels


class CaseScores:
    """Handler: per case and class Dice, Jaccard, 95 % Hausdorff distance and surface Dice, as CSV, summary and table.

    After each iteration it takes the decollated output of the engine: ``pred`` and ``label``, each ``1 H W [D]`` class
    indices on the native grid of the case. When the evaluation ends it writes ``NAME.csv`` and ``NAME_summary.json``,
    logs the table and puts the means over all classes into ``engine.state.metrics``.

    Args:
        output_dir: where the files go.
        classes: names of the classes, the background first.
        name: of the files.

    Attributes:
        rows: a score for each case and foreground class.

    Example:
        >>> CaseScores("scores", ("background", "lesion"), name="test").rows
        []
    """

    def __init__(self, output_dir: str | Path, classes: Sequence[str], name: str = "test") -> None:
        self.output_dir, self.classes, self.name = Path(output_dir), tuple(classes), name
        self.rows: list[CaseScore] = []

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    @property
    def files(self) -> tuple[Path, Path]:
        """The CSV of all cases and the JSON summary."""
        return self.output_dir / f"{self.name}.csv", self.output_dir / f"{self.name}_summary.json"

    def table(self) -> str:
        """Return the summary as a table to read."""
        return score_table(summarise(self.rows)) if self.rows else "no case was scored"

    def _start(self, engine: Engine) -> None:
        self.rows = []

    def _add(self, engine: Engine) -> None:
        state: Any = engine.state  # decollated by now: a list of cases each
        for case, output in zip(state.batch, state.output, strict=True):
            prediction, truth = output[Keys.PRED], output[Keys.LABEL]
            source = str(getattr(truth, "meta", {}).get("filename_or_obj", ""))
            if prediction.shape != truth.shape:
                raise UserError(
                    source or case.get("case", "label"),
                    f"wanted a mask of the image's size {_size(prediction)}, got {_size(truth)}; "
                    "draw the mask on the image itself",
                )
            name = str(case.get("case") or len(self.rows))
            spacing = native_spacing(truth, source)
            group = str(case.get("group") or name)
            self.rows += score_case(prediction, truth, self.classes, spacing, case=name, group=group)

    def _finish(self, engine: Engine) -> None:
        if not self.rows:
            logger.warning("no case was scored")
            return
        rows, summary = self.files
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_scores(rows, self.rows)
        told = summarise(self.rows)
        with whole_file(summary) as temporary:
            Path(temporary).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        engine.state.metrics.update({f"mean_{score}": value["mean"] for score, value in told["mean"].items()})
        logger.info("%s", score_table(told))


def score_table(summary: dict[str, Any]) -> str:
    """Lay out a summary for reading.

    Args:
        summary: of `genseg_monai.metrics.cases.summarise`.

    Returns:
        One row a class: the means with their 95 % intervals, and how often a mask was empty.

    Example:
        >>> rows = [CaseScore(c, c, "lesion", dice=d, jaccard=d, hd95=1.0) for c, d in (("a", 0.5), ("b", 1.0))]
        >>> print(score_table(summarise(rows)))
        2 cases of 2 groups: mean [95 % interval]
        class   Dice                  Jaccard               HD95 (mm)             empty: both / prediction / truth
        lesion  0.750 [0.500, 1.000]  0.750 [0.500, 1.000]  1.000 [1.000, 1.000]  0 / 0 / 0
        mean    0.750 [0.500, 1.000]  0.750 [0.500, 1.000]  1.000 [1.000, 1.000]
    """

    def cells(name: str, scores: dict[str, Any]) -> list[str]:
        told = [f"{v['mean']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for v in (scores[s] for s in _SCORES)]
        empty = scores.get("empty")
        return [name, *told, " / ".join(str(empty[k]) for k in ("both", "prediction", "truth")) if empty else ""]

    head = ["class", "Dice", "Jaccard", f"HD95 ({summary['unit']})", "empty: both / prediction / truth"]
    rows = [head, *(cells(name, scores) for name, scores in summary["classes"].items()), cells("mean", summary["mean"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"{summary['cases']} cases of {summary['groups']} groups: mean [95 % interval]", *lines])


def _size(mask: torch.Tensor) -> str:
    return " x ".join(str(n) for n in mask.shape[1:])


def native_spacing(mask: torch.Tensor, source: str) -> tuple[float, ...] | None:
    """Return the size of a voxel in mm, None for a picture, which does not know it.

    Args:
        mask: 1 H W [D], as MONAI has read it.
        source: the file it was read from.
    """
    affine = getattr(mask, "affine", None)
    if affine is None or not source.lower().endswith(_VOLUMES):
        return None
    dims = mask.ndim - 1
    return tuple(float(x) for x in np.linalg.norm(np.asarray(affine.cpu())[:3, :dims], axis=0))
