"""A task refuses what is not one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genseg_monai.data.task import Task
from genseg_monai.errors import UserError


def _task(**changes: Any) -> Task:
    settings: dict[str, Any] = {
        "name": "disc",
        "dataset": "drawn",
        "subset": "",
        "modality": "picture",
        "axis": "",
        "label": "disc",
        "images": torch.rand(4, 1, 8, 8),
        "labels": torch.ones(4, 1, 8, 8),
        "groups": ("b", "a", "b", "c"),
    }
    return Task(**{**settings, **changes})


def test_subjects_and_path() -> None:
    task = _task()
    assert len(task) == 4
    assert task.subjects == ("b", "a", "c")
    assert task.path == ("drawn", "", "picture", "", "disc")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.rand(4, 8, 8)}, r"task disc: wanted images N 1 H W .* got \(4, 8, 8\)"),
        ({"images": torch.rand(0, 1, 8, 8)}, "with N of at least 1"),
        ({"labels": torch.ones(4, 1, 8, 9)}, r"wanted labels \(4, 1, 8, 8\) as the images, got \(4, 1, 8, 9\)"),
        ({"labels": torch.ones(4, 1, 8, 8, dtype=torch.uint8)}, "float32, got torch.float32 and torch.uint8"),
        ({"groups": ("a",)}, "one group for each of 4 entries, got 1"),
        ({"images": 255 * torch.ones(4, 1, 8, 8)}, r"wanted images in \[0, 1\], got values from 255 to 255"),
        ({"images": torch.full((4, 1, 8, 8), float("nan"))}, r"wanted images in \[0, 1\], got values from nan"),
        ({"labels": torch.full((4, 1, 8, 8), 2.0)}, "wanted labels of 0 and 1"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _task(**changes)
