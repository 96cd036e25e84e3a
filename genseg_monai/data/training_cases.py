"""The labelled cases one may learn from: never those kept for a test."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from genseg_monai.data.cases import data_folder, find_cases
from genseg_monai.data.splits import read_splits
from genseg_monai.errors import UserError

__all__ = ["training_cases"]

logger = logging.getLogger(__name__)


def training_cases(root: str | Path, label_dir: str | None = None) -> list[dict[str, Any]]:
    """Find the labelled cases to learn from, or to segment by.

    Args:
        root: a data set in any layout `find_cases` reads, or ``phantom://2d``.
        label_dir: name of the folder of masks, where there are several.

    Returns:
        Those of the split ``train`` where the data set has ``splits.json``, else all but those that a datalist or
        ``labelsTs`` keeps for validation or test.

    Raises:
        UserError: there is no labelled case to learn from.

    Example:
        >>> len(training_cases("phantom://2d?cases=6&size=32"))
        4
    """
    cases, folder = find_cases(root, label_dir), data_folder(root)
    if not ((folder if folder.is_dir() else folder.parent) / "splits.json").is_file():
        train, missing = [case for case in cases if case.get("split") not in {"val", "test"}], "outside of the test set"
    else:
        train, missing = read_splits(root, cases).train, "in the split train of splits.json"
    if len(train) < len(cases):
        logger.info("%d of %d labelled cases are used: those of the training split", len(train), len(cases))
    if not train:
        raise UserError(root, f"wanted cases {missing} to learn from, found none; name some")
    return train
