"""The cases an evaluation scores: those of a split that trained nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genseg_monai.data.cases import find_cases, find_images
from genseg_monai.data.splits import read_splits
from genseg_monai.errors import UserError

__all__ = ["find_masks", "held_out", "scored_after_training"]

logger = logging.getLogger(__name__)

_SPLITS = ("train", "val", "test")


def held_out(
    root: str | Path, split: str | None = None, *, seed: int = 0, label_dir: str | None = None
) -> list[dict[str, Any]]:
    """Find the labelled cases to score.

    Args:
        root: a data set in any layout `find_cases` reads, or ``phantom://2d``.
        split: ``test``, ``val`` or ``train``; None takes ``test``, and ``val`` where there is no ``test``.
        seed: of the split made where the data set brings none; that of the training.
        label_dir: name of the folder of masks, where there are several.

    Returns:
        Cases with ``image``, ``label``, ``case`` and ``group``.

    Raises:
        UserError: the split is unknown or empty.
    """
    if split is not None and split not in _SPLITS:
        raise UserError("split", f"wanted {', '.join(_SPLITS)}, got {split!r}")
    cases = find_cases(root) if label_dir is None else find_cases(root, label_dir=label_dir)
    splits = read_splits(root, cases, seed)
    wanted = [split] if split else ["test", "val"]
    for name in wanted:
        found = [case for case in getattr(splits, name) if case.get("label") is not None]
        if found:
            logger.info("%d cases of the split %s", len(found), name)
            return found
    raise UserError(root, f"wanted labelled cases in the split {' or '.join(wanted)}, found none; write them into "
                          "splits.json")  # fmt: skip


def scored_after_training(
    root: str | Path,
    train: Sequence[Mapping[str, Any]],
    val: Sequence[Mapping[str, Any]],
    *,
    seed: int = 0,
    label_dir: str | None = None,
) -> list[Mapping[str, Any]]:
    """Find the cases to score when a training ends: the split ``test`` of its data set, else those that validated.

    Args:
        root: the data set.
        train: the training cases. If others than those of ``root`` were given, as MONAI Label does, ``root`` is not
            read, and ``val`` is all there is.
        val: the validation cases.
        seed: of the split made where the data set brings none.
        label_dir: name of the folder of masks, where there are several.
    """
    # what `find_cases` found has a name
    if all("case" in case for case in train):
        splits = read_splits(root, find_cases(root, label_dir), seed)
        known = {str(case["image"]) for case in splits.train}
        test: list[Mapping[str, Any]] = [case for case in splits.test if case.get("label") is not None]
        if test and {str(case["image"]) for case in train} <= known:
            return test
    return list(val)


def find_masks(path: str | Path, images: str | Path | None = None) -> list[dict[str, Any]]:
    """Find the masks a generator is to make images for.

    Args:
        path: a mask, a folder of masks, or ``phantom://2d`` (the masks of its cases).
        images: an image or a folder of images of the same names, for a generator that draws into them.

    Returns:
        Dictionaries with ``label`` and ``case``, and ``image`` if there are images.

    Raises:
        UserError: a mask has no image.
    """
    if str(path).startswith("phantom://"):
        masks = [{"label": case["label"], "case": case["case"]} for case in find_cases(path)]
    else:
        masks = [{"label": found["image"], "case": found["case"]} for found in find_images(path)]
    if images is None:
        return masks
    held = {found["case"]: found["image"] for found in find_images(images)}
    missing = [mask["case"] for mask in masks if mask["case"] not in held]
    if missing:
        raise UserError(images, f"wanted an image for every mask, {len(missing)} have none, the first is {missing[0]}")
    return [{**mask, "image": held[mask["case"]]} for mask in masks]
