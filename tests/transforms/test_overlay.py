"""Objects over objects."""

from __future__ import annotations

import pytest
import torch

from genseg_monai.transforms.overlay import laid_over


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6)])
def test_soft_masks_still_sum_to_one_and_images_blend_by_the_upper_one(shape: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    upper, lower = (torch.rand(2, 3, *shape, generator=random).softmax(1) for _ in range(2))
    images, both = laid_over(torch.ones(2, 1, *shape), upper, torch.zeros(2, 1, *shape), lower)
    torch.testing.assert_close(both.sum(1), torch.ones(2, *shape))
    torch.testing.assert_close(images, 1 - upper[:, :1])


def test_nothing_above_leaves_what_is_below() -> None:
    nothing = torch.eye(2)[torch.zeros(1, 4, 4, dtype=torch.long)].movedim(-1, 1)
    below, masks = torch.rand(1, 1, 4, 4), torch.rand(1, 2, 4, 4).softmax(1)
    images, both = laid_over(torch.rand(1, 1, 4, 4), nothing, below, masks)
    assert torch.equal(images, below)
    assert torch.equal(both, masks)
