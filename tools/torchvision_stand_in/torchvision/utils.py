"""`make_grid` and `save_image`, with the arguments that MONAI Label gives them."""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor

__all__ = ["make_grid", "save_image"]


def make_grid(
    tensor: Tensor, nrow: int = 8, padding: int = 2, normalize: bool = False, pad_value: float = 0.0
) -> Tensor:
    """Lay out images side by side.

    Args:
        tensor: `B C H W`, `C H W` or `H W`; one channel is repeated to three.
        nrow: images in a row.
        padding: pixels around each image.
        normalize: bring the values to [0, 1].
        pad_value: of the pixels around the images.

    Returns:
        `3 H' W'`; a single image is returned without padding.
    """
    images = tensor.float()
    while images.ndim < 4:
        images = images[None]
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    if normalize:
        low, high = images.min(), images.max()
        images = (images - low) / (high - low).clamp(min=1e-5)
    count, channels, height, width = images.shape
    if count == 1:
        return images[0]
    columns = min(nrow, count)
    rows = math.ceil(count / columns)
    high, wide = height + padding, width + padding
    grid = torch.full((channels, rows * high + padding, columns * wide + padding), float(pad_value))
    for i, image in enumerate(images):
        top, left = (i // columns) * high + padding, (i % columns) * wide + padding
        grid[:, top : top + height, left : left + width] = image
    return grid


def save_image(tensor: Tensor, fp: str) -> None:
    """Write an image of values in [0, 1], laid out by `make_grid`, as a file of the kind its name tells."""
    pixels = make_grid(tensor).mul(255).add(0.5).clamp(0, 255).byte()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(fp)
