"""What the report says of synthetic images beyond single ones."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from genseg_monai.apps.reporting.look import how_far_apart


def test_smeared_images_are_farther_from_real_ones_than_real_ones():
    random = torch.Generator().manual_seed(0)
    training, held = (torch.rand(8, 1, 16, 16, generator=random) for _ in range(2))
    smeared = F.avg_pool2d(training, 3, stride=1, padding=1)
    found = how_far_apart({"training images": training, "moved": smeared}, held)
    assert list(found) == ["training images", "moved"]
    assert found["moved"].value > 5 * found["training images"].error


def test_too_few_or_too_small_images_are_left_out():
    few, enough, small = torch.rand(4, 1, 16, 16), torch.rand(5, 1, 16, 16), torch.rand(5, 1, 4, 4)
    assert how_far_apart({"moved": few}, enough) == {}
    assert how_far_apart({"moved": enough}, few) == {}
    assert how_far_apart({"moved": small}, small) == {}
