"""Lay the objects of one image over another: the pixels and the masks of both."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["laid_over"]


def laid_over(images: Tensor, masks: Tensor, under: Tensor, masks_under: Tensor) -> tuple[Tensor, Tensor]:
    """Lay objects over images that have objects of their own; these stay where they are not covered.

    Args:
        images: B C H W [D], of the upper objects.
        masks: B K H W [D], one-hot or soft, background first.
        under: B C H W [D].
        masks_under: B K H W [D].

    Returns:
        B C H W [D] and B K H W [D], which sums to one over K.

    Example:
        >>> upper, lower = (torch.eye(2)[torch.tensor([[row]])].movedim(-1, 1) for row in ([1, 1, 0], [0, 1, 1]))
        >>> images, masks = laid_over(torch.ones(1, 1, 1, 3), upper, torch.zeros(1, 1, 1, 3), lower)
        >>> images.tolist(), masks[0, 1].tolist()
        ([[[[1.0, 1.0, 0.0]]]], [[1.0, 1.0, 1.0]])
    """
    free = masks[:, :1]
    # m_k + m_0 m'_k over the objects k, m_0 m'_0 for the background
    both = torch.cat([free * masks_under[:, :1], masks[:, 1:] + free * masks_under[:, 1:]], dim=1)
    return images * (1 - free) + under * free, both
