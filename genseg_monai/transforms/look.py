"""The look of real images: what is left of them when all detail is blurred away, for a generator to draw anew.

One mask allows many images, and a generator that is asked for one of them draws their mean. Told the look of the
background of one image and of the objects of another, it has the detail left to draw, and N looks of N masks make N x N
images. A look is given as a scene whose hole is the whole image, see `genseg_monai.transforms.scene`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["blurred", "styled_scene"]

_PRIOR = 0.05  # weight, as a share of a cell, of the mean over the image


def blurred(images: Tensor, shown: Tensor, cells: int = 8) -> Tensor:
    """Return images blurred over what is shown of them, and spread from there over the rest.

    Args:
        images: B C H W [D].
        shown: B 1 H W [D] in [0, 1], the voxels that count.
        cells: values that are left along each axis.

    Returns:
        B C H W [D]; where little of a cell is shown it is near the mean over all that is shown.

    Example:
        >>> images, shown = torch.rand(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
        >>> shown[..., :4] = 1
        >>> images[..., :4] = 0.5
        >>> blurred(images, shown, cells=2).unique().tolist()
        [0.5]
    """
    flat = images.ndim == 4
    pool, mode = (F.adaptive_avg_pool2d, "bilinear") if flat else (F.adaptive_avg_pool3d, "trilinear")
    axes = tuple(range(2, images.ndim))
    mean = (images * shown).sum(axes, keepdim=True) / shown.sum(axes, keepdim=True).clamp(min=1e-6)
    coarse = (pool(images * shown, cells) + _PRIOR * mean) / (pool(shown, cells) + _PRIOR)
    return F.interpolate(coarse, size=images.shape[2:], mode=mode, align_corners=False)


def styled_scene(
    masks: Tensor, scenes: tuple[Tensor, Tensor], objects: tuple[Tensor, Tensor], cells: int = 8
) -> Tensor:
    """Return what a generator of styles is given.

    Args:
        masks: B K H W [D], what is to be drawn, background first.
        scenes: images B C H W [D] and their masks B K H W [D], whose background is to be seen.
        objects: likewise, whose objects are, where they are.
        cells: of the blur.

    Returns:
        B K+C+1 H W [D]: masks, look, and the hole, 1 everywhere.

    Example:
        >>> masks, images = torch.eye(2)[torch.randint(2, (3, 16, 16))].movedim(-1, 1), torch.rand(3, 1, 16, 16)
        >>> styled_scene(masks, (images, masks), (images, masks)).shape
        torch.Size([3, 4, 16, 16])
    """
    look = masks[:, :1] * blurred(scenes[0], scenes[1][:, :1], cells)
    for k in range(1, masks.shape[1]):
        look = look + masks[:, k : k + 1] * blurred(objects[0], objects[1][:, k : k + 1], cells)
    return torch.cat([masks, look, torch.ones_like(masks[:, :1])], dim=1)
