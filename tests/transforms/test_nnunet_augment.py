"""nnU-Net's list: replayable, image and mask alike, in range."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot

from genseg_monai.transforms import NnUNetAugment


def pairs(dims: int, size: int = 24, count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros(count, *[size] * dims, dtype=torch.long)
    labels[:, 4:14, 8:20] = 1
    return labels[:, None].float() * 0.8 + 0.1, one_hot(labels, 2).movedim(-1, 1).float()


@pytest.mark.parametrize("dims", [2, 3])
def test_range_shape_and_effect(dims: int) -> None:
    images, masks = pairs(dims, count=12 if dims == 2 else 4)
    moved, moved_masks = NnUNetAugment()(images, masks, torch.Generator().manual_seed(1))
    assert moved.shape == images.shape
    assert moved_masks.shape == masks.shape
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert torch.allclose(moved_masks.sum(1), torch.ones(()), atol=1e-5)
    changed = [not torch.equal(a, b) for a, b in zip(images, moved, strict=True)]
    assert any(changed)
    # image and mask stay together: the object is bright wherever its mask is
    inside = (moved * moved_masks[:, 1:]).flatten(1).sum(1) / moved_masks[:, 1:].flatten(1).sum(1).clamp(min=1)
    outside = (moved * moved_masks[:, :1]).flatten(1).sum(1) / moved_masks[:, :1].flatten(1).sum(1)
    assert bool((inside > outside + 0.2).all())


def test_the_same_seed_replays() -> None:
    images, masks = pairs(2)
    augment = NnUNetAugment()
    first = augment(images, masks, torch.Generator().manual_seed(3))
    torch.rand(5)  # the state of the process plays no part
    again = augment(images, masks, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = augment(images, masks, torch.Generator().manual_seed(4))
    assert not torch.equal(first[0], other[0])


def test_mirror_can_be_left_out() -> None:
    images, masks = pairs(2, count=64)
    masks = torch.cat([1 - images, images], dim=1)
    moved = NnUNetAugment(mirror=0.0, rotate=0.0)(images, masks, torch.Generator().manual_seed(0))[1]
    centres = (moved[:, 1] * torch.arange(24)).sum((1, 2)) / moved[:, 1].sum((1, 2))
    mirrored = NnUNetAugment(mirror=1.0, rotate=0.0)(images, masks, torch.Generator().manual_seed(0))[1]
    turned = (mirrored[:, 1] * torch.arange(24)).sum((1, 2)) / mirrored[:, 1].sum((1, 2))
    assert float((centres - centres.mean()).abs().max()) < 1.5 < float((turned - turned.mean()).abs().max())


def test_error() -> None:
    with pytest.raises(ValueError, match=r"mirror: wanted a probability in \[0, 1\], got 2"):
        NnUNetAugment(mirror=2)
