"""How an image of any size lies in the working grid, and how it is scaled.

Both scalings are those of `torch.nn.functional.interpolate` with `align_corners=False`: images by a triangle filter as
wide as the step (antialiased: no lost lines in a photograph shrunk tenfold), labels by the nearest voxel, and by
what the same filter finds in a voxel where they shrink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

__all__ = ["GridFit", "GridMode", "fit_grid", "resize", "resize_label"]

_MOST_VALUES = 256  # an image of more values than that is no label: it costs a pass for each
_FILLED = 0.4  # share of a voxel that objects fill, from which on it is one


class GridMode(StrEnum):
    """How values between voxels are found; the names are MONAI's, `bilinear` is linear in 3D too."""

    BILINEAR = "bilinear"
    NEAREST = "nearest"


@dataclass(frozen=True)
class GridFit:
    """How an image lies in the working grid; one number for each spatial axis.

    Attributes:
        native: its size.
        inner: the size it is scaled to.
        before: voxels of padding before it.
        after: voxels of padding after it.

    Example:
        >>> GridFit(native=(100, 50), inner=(64, 32), before=(0, 16), after=(0, 16)).size
        (64, 64)
    """

    native: tuple[int, ...]
    inner: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """The working size."""
        return tuple(b + n + a for b, n, a in zip(self.before, self.inner, self.after, strict=True))

    def index_map(self) -> np.ndarray:
        """Return the map from a working voxel to the native voxel at its place, 4 x 4, float64."""
        whole = np.eye(4)
        for axis, (native, inner, before) in enumerate(zip(self.native, self.inner, self.before, strict=True)):
            step = native / inner
            whole[axis, axis] = step
            whole[axis, 3] = (0.5 - before) * step - 0.5  # centres: native + 1/2 = (working - before + 1/2) step
        return whole


def fit_grid(
    native: Sequence[int],
    size: Sequence[int],
    factors: Sequence[float] | None = None,
    max_upscale: float = 2.0,
) -> GridFit:
    """Say how an image lies in the working grid.

    Args:
        native: size of the image.
        size: working size.
        factors: scale of each axis that brings the image to the wanted spacing. Without them the image is made as
            large as fits, but not beyond `max_upscale`: there is nothing to see in a tenfold enlarged thumbnail. With
            them it is never enlarged beyond them, and shrunk with the aspect kept where it does not fit.
        max_upscale: the largest enlargement without `factors`.

    Example:
        >>> fit_grid((100, 50), (64, 64))
        GridFit(native=(100, 50), inner=(64, 32), before=(0, 16), after=(0, 16))
    """
    wished = tuple(factors) if factors is not None else (max_upscale,) * len(native)
    # one factor for all axes on top of the wish keeps the aspect
    shrink = min(1.0, *(s / (n * w) for n, s, w in zip(native, size, wished, strict=True)))
    inner = tuple(min(s, max(1, round(n * w * shrink))) for n, s, w in zip(native, size, wished, strict=True))
    before = tuple((s - i) // 2 for s, i in zip(size, inner, strict=True))
    after = tuple(s - i - b for s, i, b in zip(size, inner, before, strict=True))
    return GridFit(tuple(native), inner, before, after)


def resize(image: Tensor, size: Sequence[int], mode: GridMode | str) -> Tensor:
    """Scale an image to a size.

    Args:
        image: C H W [D].
        size: the wanted spatial size.
        mode: `bilinear` (antialiased when it shrinks) or `nearest`.

    Returns:
        C H W [D], float32 when `bilinear`, of the type it had when `nearest`.

    Example:
        >>> resize(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]), (1, 1), "bilinear")
        tensor([[[1.5000]]])
    """
    size = tuple(size)
    if tuple(image.shape[1:]) == size:
        return image if mode == GridMode.NEAREST else image.to(torch.float32)
    if mode == GridMode.NEAREST:
        # every whole number of a label is exact in float64
        return F.interpolate(image[None].to(torch.float64), size, mode="nearest-exact")[0].to(image.dtype)
    return _scaled(image, size)


def resize_label(label: Tensor, size: Sequence[int]) -> Tensor:
    """Scale a label: by the nearest voxel where no axis shrinks, by what fills a voxel where one does.

    A shrunk voxel is an object (the one that fills most of it) when objects fill 0.4 of it. The nearest voxel would lie
    half a voxel beside the middle at every even factor, and the label beside its image; and by a plain majority what is
    thin or small is lost. Brought back to its size, a label of wounds (256 to 128 voxels) had a mean Dice of 0.935,
    0.920 by the nearest voxel, 0.929 by majority; vessels (584 to 256) 0.845, 0.829 and 0.832.

    Args:
        label: 1 H W [D], 0 for background.
        size: the wanted spatial size.

    Returns:
        1 H W [D], of the type it had.

    Example:
        >>> resize_label(torch.tensor([[[0, 0, 0, 5, 5, 5]]]), (1, 2))
        tensor([[[0, 5]]])
    """
    size = tuple(size)
    nearest = resize(label, size, GridMode.NEAREST)
    values = label.unique()
    if all(s >= n for s, n in zip(size, label.shape[1:], strict=True)) or len(values) > _MOST_VALUES:
        return nearest
    best, most = nearest, torch.full(nearest.shape, 0.0, device=label.device)
    for value in values:
        if value == 0:
            continue
        share = _scaled((label == value).to(torch.float32), size)
        best, most = torch.where(share > most, value, best), torch.maximum(share, most)
    background = _scaled((label == 0).to(torch.float32), size)
    return torch.where(background > 1 - _FILLED, torch.zeros_like(best), best)


def _scaled(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Scale an image by the antialiased linear filter."""
    image = image.to(torch.float32)
    if len(size) == 2:
        return _antialiased(image[None], size)[0]
    # the filter is a product over the axes: two of them in one pass, the third in a second
    planes = _antialiased(image, size[1:])
    lines = rearrange(planes, "C X Y Z -> C 1 X (Y Z)")
    lines = _antialiased(lines, (size[0], size[1] * size[2]))
    return rearrange(lines, "C 1 X (Y Z) -> C X Y Z", Y=size[1])


def _antialiased(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Scale the last two axes of a tensor of four."""
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
