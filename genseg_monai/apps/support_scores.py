"""Dice of masks against the labels of a data set, for `incontext --score`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from monai.transforms import Compose

from genseg_monai.data.cases import data_folder, find_cases
from genseg_monai.data.held_out import held_out
from genseg_monai.data.plan import Plan
from genseg_monai.data.read import LabelReader
from genseg_monai.errors import UserError
from genseg_monai.inferers.support_cases import LoadFilesd, apply
from genseg_monai.metrics.cases import CaseScore, score_case, summarise
from genseg_monai.transforms.normalise import MapLabeld

__all__ = ["cases_to_score", "dice_table", "score_masks"]


def cases_to_score(root: str, supports: Sequence[Mapping[str, Any]], label_dir: str | None) -> list[dict[str, Any]]:
    """Find the labelled cases of a data set that are no supports: those of its test split, where it has one.

    Raises:
        UserError: there are none.
    """
    folder = data_folder(root)
    split = ((folder if folder.is_dir() else folder.parent) / "splits.json").is_file()
    cases = held_out(root, label_dir=label_dir) if split else find_cases(root, label_dir)
    used = {str(case["image"]) for case in supports}
    left = [case for case in cases if str(case["image"]) not in used]
    if not left:
        raise UserError(root, "wanted labelled cases beside the supports to score, found none; leave out --score")
    return left


def score_masks(
    cases: Iterable[Mapping[str, Any]], plan: Plan, mask_of: Callable[[Mapping[str, Any]], Any]
) -> list[CaseScore]:
    """Score each case.

    Args:
        cases: with `label`.
        plan: says what the label values mean.
        mask_of: a case -> its mask, 1 H W [D], class indices.

    Raises:
        UserError: a label cannot be read, or has another size than its image.
    """
    read = Compose([LoadFilesd("label", LabelReader()), MapLabeld("label", plan.label_values)])
    rows = []
    for case in cases:
        truth, mask = apply(read, {"label": case["label"]})["label"], mask_of(case)
        if tuple(truth.shape) != tuple(mask.shape):
            raise UserError(case["label"], f"wanted a label of the size of its image, {tuple(mask.shape[1:])}, got "
                                           f"{tuple(truth.shape[1:])}; draw it on the image itself")  # fmt: skip
        rows += score_case(mask, truth.as_tensor(), plan.classes, case=case["case"], group=str(case["group"]))
    return rows


def dice_table(columns: Mapping[str, Sequence[CaseScore]]) -> str:
    """Lay out the Dice of each class, one column a way of segmenting.

    Example:
        >>> print(dice_table({"10 supports": [CaseScore("a", "a", "lesion", 0.5, 0.3, 1.0)]}))
        Dice of 1 case, mean [95 % interval]
        class   10 supports
        lesion  0.500 [0.500, 0.500]
        mean    0.500 [0.500, 0.500]
    """
    told = {name: summarise(rows) for name, rows in columns.items()}
    first = next(iter(told.values()))
    lines = [["class", *told]]
    for name in [*first["classes"], None]:
        scores = [(one["classes"][name] if name is not None else one["mean"])["dice"] for one in told.values()]
        lines.append([name or "mean", *(f"{s['mean']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for s in scores)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    count = first["cases"]
    return "\n".join([f"Dice of {count} case{'s' if count != 1 else ''}, mean [95 % interval]", *table])
