"""Dice of in-context segmentation, and two floors that any network has to pass.

Whoever has a support set has two answers without a network: what most of its masks agree on, and the mask of the
support whose image is most like the query.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mean_mask", "most_similar_mask", "soft_dice"]


def soft_dice(predicted: Tensor, labels: Tensor) -> Tensor:
    """Return the Dice coefficient of each item.

    Args:
        predicted: B 1 H W, 0 or 1, or shares.
        labels: B 1 H W, 0 or 1.

    Returns:
        B, in [0, 1]; 1 where both are empty.

    Example:
        >>> labels = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
        >>> soft_dice(torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]]), labels).item()
        0.6666666865348816
    """
    both, sizes = (predicted * labels).flatten(1).sum(1), (predicted + labels).flatten(1).sum(1)
    # 2 |A B| / (|A| + |B|)
    return torch.where(sizes > 0, 2 * both / sizes.clamp(min=1e-12), 1.0)


def mean_mask(support_labels: Tensor) -> Tensor:
    """Return what at least half of the support masks agree on, ``B 1 H W`` of ``B S 1 H W``.

    Example:
        >>> mean_mask(torch.tensor([1.0, 1.0, 0.0]).reshape(1, 3, 1, 1, 1)).item()
        1.0
    """
    return (support_labels.mean(1) >= 0.5).to(support_labels.dtype)


def most_similar_mask(query: Tensor, support_images: Tensor, support_labels: Tensor) -> Tensor:
    """Return the mask of the support image nearest to the query in mean square, ``B 1 H W``.

    Args:
        query: B 1 H W.
        support_images: B S 1 H W.
        support_labels: B S 1 H W.

    Example:
        >>> images = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1, 1)
        >>> most_similar_mask(torch.full((1, 1, 1, 1), 0.9), images, images).item()
        1.0
    """
    away = (support_images - query.unsqueeze(1)).square().flatten(2).mean(2)
    return support_labels[torch.arange(len(query), device=query.device), away.argmin(1)]
