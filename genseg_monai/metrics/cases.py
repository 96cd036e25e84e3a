"""Scores of one predicted mask at its native size, and their summary over cases.

Dice, Jaccard, the 95th percentile of the Hausdorff distance and surface Dice, computed by MONAI. The distance is the
larger of the two directed percentiles (Taha and Hanbury, BMC Medical Imaging 2015); surface Dice is the share of both
surfaces that lies within `SURFACE_TOLERANCE` of the other one (Nikolov et al., J Med Internet Res 2021). A class that
neither mask has counts as found (Dice 1, distance 0); one that only one of them has counts as missed (Dice 0, distance
the diagonal of the image), and how often either happened is part of the summary.
"""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou, compute_surface_dice
from torch import Tensor

from genseg_monai._atomic import whole_file
from genseg_monai.metrics.statistics import bootstrap_mean

__all__ = ["SCORES", "SURFACE_TOLERANCE", "CaseScore", "Empty", "score_case", "summarise", "write_scores"]

SCORES = ("dice", "jaccard", "hd95", "surface_dice")
"""The scores of a row, by their names."""
SURFACE_TOLERANCE = 2.0
"""How far apart two surfaces may lie and still count as the same: mm, or pixels where the spacing is unknown."""


class Empty(StrEnum):
    """Which of two masks lack a class."""

    NEITHER = "neither"
    BOTH = "both"
    PREDICTION = "prediction"
    TRUTH = "truth"


@dataclass(frozen=True)
class CaseScore:
    """The scores of one class in one case.

    Attributes:
        case: name of the case.
        group: whose case it is; cases of one patient are resampled together.
        class_name: the class.
        dice: in [0, 1].
        jaccard: in [0, 1].
        hd95: in `unit`.
        unit: `mm`, or `pixel` where the spacing is unknown.
        empty: which of the two masks lack the class.
        surface_dice: in [0, 1], at `SURFACE_TOLERANCE`; NaN where it was not measured.

    Example:
        >>> CaseScore("a", "a", "tumour", dice=0.8, jaccard=0.667, hd95=2.0).unit
        'mm'
    """

    case: str
    group: str
    class_name: str
    dice: float
    jaccard: float
    hd95: float
    unit: str = "mm"
    empty: Empty = Empty.NEITHER
    surface_dice: float = math.nan


def score_case(
    prediction: Tensor | np.ndarray,
    truth: Tensor | np.ndarray,
    classes: Sequence[str],
    spacing: Sequence[float] | None = None,
    *,
    case: str = "",
    group: str = "",
) -> list[CaseScore]:
    """Score one predicted mask, class by class.

    Args:
        prediction: 1 H W [D], class indices.
        truth: 1 H W [D], class indices.
        classes: names of the classes; the first is background and is not scored.
        spacing: mm between voxels along each axis; None gives distances in pixels.
        case: name of the case, for the table.
        group: whose case it is; the case itself when empty.

    Returns:
        One row for each class but background.

    Raises:
        ValueError: the shapes, the spacing or the class indices do not fit.

    Example:
        >>> truth = torch.zeros(1, 8, 8)
        >>> truth[:, 2:6, 2:6] = 1
        >>> [row] = score_case(truth.roll(1, dims=2), truth, ("background", "lesion"))
        >>> row.dice, round(row.jaccard, 6), row.hd95, row.surface_dice, row.unit
        (0.75, 0.6, 1.0, 1.0, 'pixel')
    """
    ours, theirs = torch.as_tensor(prediction), torch.as_tensor(truth)
    if ours.shape != theirs.shape or ours.ndim not in (3, 4) or len(ours) != 1:
        raise ValueError(f"wanted two masks 1 H W [D] of one shape, got {tuple(ours.shape)} and {tuple(theirs.shape)}")
    size = tuple(ours.shape[1:])
    if spacing is not None and len(spacing) != len(size):
        raise ValueError(f"spacing: wanted {len(size)} numbers, got {tuple(spacing)}")
    for name, mask in (("prediction", ours), ("truth", theirs)):
        unknown = sorted(set(torch.unique(mask).tolist()) - set(range(len(classes))))
        if unknown:
            raise ValueError(f"{name}: wanted class indices 0 to {len(classes) - 1}, got also {unknown[:8]}")
    steps = tuple(float(step) for step in spacing) if spacing is not None else (1.0,) * len(size)
    diagonal = math.hypot(*(n * step for n, step in zip(size, steps, strict=True)))
    rows = []
    for index, name in enumerate(classes[1:], start=1):
        empty, scores = _score_class((ours == index)[None], (theirs == index)[None], steps, diagonal)
        dice, jaccard, hd95, surface = scores
        unit = "mm" if spacing is not None else "pixel"
        rows.append(CaseScore(case, group or case, name, dice, jaccard, hd95, unit, empty, surface))
    return rows


def write_scores(path: str | os.PathLike[str], rows: Sequence[CaseScore]) -> None:
    """Write one CSV line a row; the file is whole or not there.

    Args:
        path: the file.
        rows: what `score_case` gave, of all cases.
    """
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(CaseScore)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(row) | {score: f"{getattr(row, score):.6f}" for score in SCORES} for row in rows)


def summarise(rows: Sequence[CaseScore], *, seed: int = 0) -> dict[str, Any]:
    """Return the mean of each score with its 95 % bootstrap interval, by class and over the classes.

    Patients (groups) are resampled, not images: two images of one patient are no two patients.

    Args:
        rows: what `score_case` gave, of all cases.
        seed: of the resampling.

    Returns:
        A dictionary ready for JSON: `cases`, `groups` (how many), `unit` (of the distance), `classes` (by name: `dice`,
        `jaccard`, `hd95`, `surface_dice`, each with `mean`, `low`, `high`; `empty`: how often `both`, `prediction`,
        `truth` lacked it) and `mean` (the same scores of the mean over the classes of each case).

    Raises:
        ValueError: no rows, or distances in different units.

    Example:
        >>> rows = [CaseScore(c, c, "lesion", dice=d, jaccard=d, hd95=1.0) for c, d in (("a", 0.5), ("b", 1.0))]
        >>> summarise(rows)["classes"]["lesion"]["dice"]
        {'mean': 0.75, 'low': 0.5, 'high': 1.0}
    """
    if not rows:
        raise ValueError("wanted the scores of one case or more, got none")
    units = sorted({row.unit for row in rows})
    if len(units) > 1:
        raise ValueError(f"wanted distances in one unit, got {' and '.join(units)}")
    cases = sorted({(row.group, row.case) for row in rows})
    by_class: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row.class_name for row in rows):
        mine = [row for row in rows if row.class_name == name]
        by_class[name] = _intervals(mine, seed) | {
            "empty": {str(kind): sum(row.empty is kind for row in mine) for kind in Empty if kind is not Empty.NEITHER}
        }
    return {
        "cases": len(cases),
        "groups": len({group for group, _ in cases}),
        "unit": units[0],
        "classes": by_class,
        "mean": _intervals(
            [_over_classes([row for row in rows if (row.group, row.case) == one]) for one in cases], seed
        ),
    }


def _score_class(
    ours: Tensor, theirs: Tensor, steps: tuple[float, ...], diagonal: float
) -> tuple[Empty, tuple[float, float, float, float]]:
    """Score one class, 1 1 H W [D] bool: which masks are empty, then Dice, Jaccard, HD95, surface Dice."""
    if not ours.any() and not theirs.any():
        return Empty.BOTH, (1.0, 1.0, 0.0, 1.0)
    if not ours.any():
        return Empty.PREDICTION, (0.0, 0.0, diagonal, 0.0)
    if not theirs.any():
        return Empty.TRUTH, (0.0, 0.0, diagonal, 0.0)
    with warnings.catch_warnings():
        # MONAI passes an argument to itself that it has deprecated
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*")
        distance = compute_hausdorff_distance(ours, theirs, include_background=True, percentile=95, spacing=steps)
        surface = compute_surface_dice(ours, theirs, [SURFACE_TOLERANCE], include_background=True, spacing=steps)
    dice, jaccard = compute_dice(ours, theirs).item(), compute_iou(ours, theirs).item()
    return Empty.NEITHER, (dice, jaccard, distance.item(), surface.item())


def _over_classes(rows: list[CaseScore]) -> CaseScore:
    """Return the mean over the classes of one case."""
    means: dict[str, Any] = {score: float(np.mean([getattr(row, score) for row in rows])) for score in SCORES}
    return CaseScore(rows[0].case, rows[0].group, "mean", unit=rows[0].unit, **means)


def _intervals(rows: list[CaseScore], seed: int) -> dict[str, dict[str, float]]:
    """Return mean and bootstrap interval of each score that was measured; groups are drawn with replacement."""
    groups = [row.group for row in rows]
    values = {score: [getattr(row, score) for row in rows] for score in SCORES}
    return {
        score: asdict(bootstrap_mean(numbers, groups, seed=seed))
        for score, numbers in values.items()
        if not any(math.isnan(number) for number in numbers)
    }
