"""Colour as one channel: the luminance."""

from __future__ import annotations

import torch

__all__ = ["LUMINANCE", "luminance"]

LUMINANCE = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey: ITU-R BT.601, as Pillow turns colour into grey."""


def luminance(images: torch.Tensor) -> torch.Tensor:
    """Return grey, ... 1 H W, of colours, ... 3 H W; grey is as it is.

    Example:
        >>> luminance(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 1, 4, 4])
    """
    if images.shape[-3] == 1:
        return images
    # Y = 0.299 R + 0.587 G + 0.114 B
    red, green, blue = (share * images[..., i : i + 1, :, :] for i, share in enumerate(LUMINANCE))
    return red + green + blue
