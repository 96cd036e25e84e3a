"""Redraw an object inside a real image: the scene with a hole that a generator fills, and how both are put together.

From a mask alone a generator can at best imitate its training images. Given the real image of one case with a hole, and
in the hole the object of another, it makes the two one image, and N objects in N images make N x N pairs. A scene
holds, as channels, what is to be drawn (masks B K), the image that is to be completed (B C) and the hole (B 1).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.transforms.batch_augment import warp_images
from genseg_monai.transforms.mask_warp import apply_warp, identity_warp

__all__ = ["composed", "hole_of", "make_scene", "moved_onto", "scene_masks"]

_SEEN = 0.01  # of a class, at a voxel: bilinear warping leaves traces


def hole_of(masks: Tensor, margin: int = 2) -> Tensor:
    """Return where a mask shows anything but background, widened.

    Args:
        masks: B K H W [D], one-hot or soft, background first.
        margin: voxels to widen by.

    Returns:
        B 1 H W [D], 0 or 1; no gradient passes.

    Example:
        >>> masks = torch.eye(2)[torch.tensor([[[0, 0, 1, 0, 0, 0]]])].movedim(-1, 1)
        >>> hole_of(masks, margin=1).int().tolist()
        [[[[0, 1, 1, 1, 0, 0]]]]
    """
    pool = F.max_pool2d if masks.ndim == 4 else F.max_pool3d
    wide = pool(masks[:, 1:].detach().amax(1, keepdim=True), 2 * margin + 1, stride=1, padding=margin)
    return (wide > _SEEN).to(masks.dtype)


def make_scene(masks: Tensor, images: Tensor, hole: Tensor, objects: Tensor | None = None) -> Tensor:
    """Return what a generator of scenes is given.

    Args:
        masks: B K H W [D], what is to be drawn.
        images: B C H W [D] in [0, 1].
        hole: B 1 H W [D], 1 where the generator draws.
        objects: B C H W [D] in [0, 1], what the object looked like where it comes from; only what the masks show of it
            is given. None leaves that to the generator.

    Returns:
        B K+C+1 H W [D].
    """
    hint = torch.zeros_like(images) if objects is None else objects * (1 - masks[:, :1])
    return torch.cat([masks, images * (1 - hole) + hint * hole, hole], dim=1)


def scene_masks(scenes: Tensor, channels: int) -> Tensor:
    """Return the masks B K H W [D] of scenes with ``channels`` image channels."""
    return scenes[:, : scenes.shape[1] - channels - 1]


def composed(drawn: Tensor, scenes: Tensor) -> Tensor:
    """Return the real images with what was drawn in their holes.

    Args:
        drawn: B C H W [D].
        scenes: B K+C+1 H W [D].

    Returns:
        B C H W [D].

    Example:
        >>> masks, images, hole = torch.ones(1, 2, 1, 2) / 2, torch.ones(1, 1, 1, 2), torch.tensor([[[[0.0, 1.0]]]])
        >>> composed(torch.zeros(1, 1, 1, 2), make_scene(masks, images, hole))
        tensor([[[[1., 0.]]]])
    """
    channels = drawn.shape[1]
    hole = scenes[:, -1:]
    return scenes[:, -1 - channels : -1] * (1 - hole) + drawn * hole


def moved_onto(images: Tensor, masks: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Move images and their masks so that the centre of what these show is that of what other masks show.

    An object belongs somewhere: a wound on the foot and not beside it. Where one of the two shows nothing, the result
    shows nothing.

    Args:
        images: B C H W [D].
        masks: B K H W [D], one-hot or soft, background first.
        others: B K H W [D].

    Returns:
        B C H W [D], the edge repeated, and B K H W [D]; what leaves the image is lost.

    Example:
        >>> one, other = (torch.eye(2)[torch.tensor([[row]])].movedim(-1, 1) for row in ([1, 0, 0, 0], [0, 0, 1, 1]))
        >>> moved_onto(one[:, 1:], one, other)[1][0, 1]
        tensor([[0.0000, 0.0000, 0.5000, 0.5000]])
    """
    (start, there), (goal, wanted) = _centre(masks), _centre(others)
    seen = (there & wanted).to(masks.dtype)
    warp = identity_warp(len(masks), masks.ndim - 2, masks.device)
    warp = replace(warp, translate=(goal - start) * seen.unsqueeze(1))
    moved = apply_warp(masks, warp)
    seen = seen.reshape(-1, *[1] * (masks.ndim - 1))
    objects = moved[:, 1:] * seen
    return warp_images(images, warp), torch.cat([1 - objects.sum(1, keepdim=True), objects], dim=1)


def _centre(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centre of the foreground B S, as a share of the size, and whether there is any, B."""
    shown = masks[:, 1:].sum(1)
    total = shown.flatten(1).sum(1)
    centres = []
    for axis in range(shown.ndim - 1):
        sums = shown.sum([other + 1 for other in range(shown.ndim - 1) if other != axis])
        places = (torch.arange(sums.shape[1], device=masks.device, dtype=masks.dtype) + 0.5) / sums.shape[1]
        centres.append((sums * places).sum(1) / total.clamp(min=1e-6))
    return torch.stack(centres, dim=1), total >= 1
