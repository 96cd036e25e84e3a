"""Which case to annotate next: the one on which two segmenters differ most.

One learns from a training, the other from the examples it is shown; where they agree a label would teach little. The
idea is that of a query by committee (Seung, Opper and Sompolinsky, COLT 1992).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from monai.metrics import compute_dice
from torch import Tensor

from genseg_monai._atomic import whole_file
from genseg_monai.inferers.in_context_segmenter import Segmented

__all__ = ["RankedCase", "compare", "disagreement", "rank", "write_ranking"]

Segment = Callable[[Mapping[str, Any]], Segmented]


@dataclass(frozen=True)
class RankedCase:
    """A case and how much a label of it would tell.

    Attributes:
        case: its name.
        disagreement: 1 less the mean Dice between the two masks, in [0, 1].
        uncertainty: the mean of the two, in [0, 1]; it orders cases of equal disagreement.
        rank: 1 for the case to annotate first.
    """

    case: str
    disagreement: float
    uncertainty: float
    rank: int = 0


def disagreement(one: Tensor, other: Tensor, classes: int) -> float:
    """Return 1 less the mean Dice between two masks over the classes but background.

    Args:
        one: 1 H W [D], class indices.
        other: 1 H W [D], class indices.
        classes: number of classes K. One that neither mask has counts as agreed.

    Returns:
        In [0, 1].

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[0, 1, 1, 0]]])
        >>> disagreement(mask, mask, 2), disagreement(mask, 1 - mask, 2)
        (0.0, 1.0)
    """
    total = 0.0
    for index in range(1, classes):
        mine, theirs = one == index, other == index
        if not (mine.any() or theirs.any()):
            total += 1.0
        elif mine.any() and theirs.any():
            total += float(compute_dice(mine[None], theirs[None]).item())
    return 1 - total / (classes - 1)


def compare(case: Mapping[str, Any], one: Segment, other: Segment, classes: int) -> RankedCase:
    """Return how much two segmenters differ on a case, its rank left open.

    Args:
        case: with `case` and whatever the segmenters read, such as `image`.
        one: a case -> what was found, such as `InContextSegmenter.segment`.
        other: another, such as `TrainedSegmenter.segment`, with classes in the same order.
        classes: number of classes K.
    """
    mine, theirs = one(case), other(case)
    apart = disagreement(mine.mask.as_tensor(), theirs.mask.as_tensor(), classes)
    return RankedCase(str(case["case"]), round(apart, 6), (mine.uncertainty + theirs.uncertainty) / 2)


def rank(compared: Iterable[RankedCase]) -> list[RankedCase]:
    """Put the case to annotate first at the head, and number the cases.

    Example:
        >>> [case.case for case in rank([RankedCase("a", 0.1, 0.2), RankedCase("b", 0.4, 0.1)])]
        ['b', 'a']
    """
    found = sorted(compared, key=lambda case: (-case.disagreement, -case.uncertainty, case.case))
    return [replace(case, rank=i) for i, case in enumerate(found, 1)]


def write_ranking(path: str | os.PathLike[str], ranked: Sequence[RankedCase]) -> None:
    """Write one CSV line a case: case, disagreement, uncertainty, rank; the file is whole or not there."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(RankedCase)], lineterminator="\n")
        table.writeheader()
        for case in ranked:
            numbers = {name: f"{getattr(case, name):.6f}" for name in ("disagreement", "uncertainty")}
            table.writerow(asdict(case) | numbers)
