"""Volumes as stacks of planes, and planes on the square grid of a network that takes pictures.

A picture is a stack of one plane. Volumes come with their axes in the order right, front, head (RAS), so that a plane
of one case shows what the same plane of another shows; the spacing keeps the aspect, and a common scale keeps an organ
the same size in pictures of different extent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.transforms.grid_fit import GridFit, fit_grid, resize, resize_label

__all__ = ["PlaneGrid", "Seen", "best_axis", "from_planes", "plane_spacing", "to_planes"]

_MOST_UPSCALE = 8.0  # a picture of 16 pixels is still enlarged to 128
_AS_FINE = 1.1  # planes whose pixels differ less in area are equally fine


@dataclass(frozen=True)
class PlaneGrid:
    """The square grid planes are brought to.

    Args:
        size: pixels on a side.
        scale: pixels a millimetre; None makes each plane as large as fits.

    Example:
        >>> grid = PlaneGrid(32)
        >>> planes = torch.rand(5, 1, 20, 40)
        >>> fit = grid.fit((20, 40))
        >>> grid.images(planes, fit).shape, grid.back(grid.images(planes, fit)[:, 0], fit).shape
        (torch.Size([5, 1, 32, 32]), torch.Size([5, 20, 40]))
    """

    size: int = 128
    scale: float | None = None

    def fit(self, shape: Sequence[int], spacing: Sequence[float] = (1.0, 1.0)) -> GridFit:
        """Say how planes lie in the grid.

        Args:
            shape: H W.
            spacing: mm (or any unit) between rows and between columns.
        """
        factor = self.scale if self.scale is not None else _MOST_UPSCALE / min(spacing)
        return fit_grid(shape, (self.size, self.size), [step * factor for step in spacing])

    def images(self, planes: Tensor, fit: GridFit) -> Tensor:
        """Bring images N C H W to the grid, N C size size; beside them comes their smallest value."""
        scaled = resize(rearrange(planes, "N C H W -> (N C) H W"), fit.inner, "bilinear")
        return rearrange(
            F.pad(scaled, _padding(fit), value=float(planes.amin())), "(N C) H W -> N C H W", N=len(planes)
        )

    def labels(self, planes: Tensor, fit: GridFit) -> Tensor:
        """Bring labels N H W to the grid, N size size; beside them comes background, 0."""
        return F.pad(resize_label(planes, fit.inner), _padding(fit))

    def back(self, planes: Tensor, fit: GridFit) -> Tensor:
        """Bring probabilities N size size back, N H W, linearly."""
        (top, left), (rows, columns) = fit.before, fit.inner
        return resize(planes[:, top : top + rows, left : left + columns], fit.native, "bilinear")


def to_planes(image: Tensor, axis: int | None) -> Tensor:
    """Cut an image into planes.

    Args:
        image: C X Y Z, or C H W.
        axis: of the volume, 0, 1 or 2; None for a picture.

    Returns:
        N C H W: one plane a step along `axis`, the later of the two axes left first (as pictures have their rows);
        1 C H W of a picture.

    Example:
        >>> to_planes(torch.zeros(1, 4, 5, 6), axis=2).shape
        torch.Size([6, 1, 5, 4])
    """
    if axis is None:
        return image[None]
    return image.movedim(axis + 1, 0).transpose(-1, -2)


def from_planes(planes: Tensor, axis: int | None) -> Tensor:
    """Put planes, N C H W, together again; the inverse of `to_planes`.

    Example:
        >>> image = torch.rand(1, 4, 5, 6)
        >>> torch.equal(from_planes(to_planes(image, 1), 1), image)
        True
    """
    if axis is None:
        return planes[0]
    return planes.transpose(-1, -2).movedim(0, axis + 1)


def plane_spacing(affine: Tensor | np.ndarray, axis: int | None) -> tuple[float, float]:
    """Return the mm between the rows and between the columns of planes.

    Args:
        affine: voxel to world, 4 x 4 or 3 x 3; a picture without a place in space has the unit matrix.
        axis: the planes are cut along it; None for a picture.

    Example:
        >>> plane_spacing(np.diag([1.0, 2.0, 5.0, 1.0]), axis=2)
        (2.0, 1.0)
    """
    lengths = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:-1, :-1], axis=0)
    if axis is None:
        return float(lengths[0]), float(lengths[1])
    columns, rows = (float(length) for i, length in enumerate(lengths) if i != axis)
    return rows, columns


@dataclass(frozen=True)
class Seen:
    """What decides along which axis volumes are cut.

    Attributes:
        spacing: mm along X, Y, Z.
        labelled: planes that show a label, along X, Y, Z.

    Example:
        >>> Seen.of(torch.ones(1, 4, 5, 6), np.eye(4)).labelled
        (4, 5, 6)
    """

    spacing: tuple[float, ...]
    labelled: tuple[int, ...]

    @classmethod
    def of(cls, label: Tensor, affine: Tensor | np.ndarray) -> Seen:
        """Look at a label, 1 X Y Z, 0 for background."""
        there = torch.as_tensor(label)[0] != 0
        axes = range(there.ndim)
        shown = tuple(int(there.movedim(axis, 0).flatten(1).any(1).sum()) for axis in axes)
        lengths = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
        return cls(tuple(float(length) for length in lengths), shown)


def best_axis(seen: Sequence[Seen]) -> int:
    """Return the axis whose planes show most: the finest pixels; of equally fine planes those with most labels.

    Args:
        seen: of each volume, in RAS.

    Example:
        >>> best_axis([Seen((1.0, 1.0, 5.0), (30, 30, 6))]), best_axis([Seen((1.0, 1.0, 1.0), (9, 30, 6))])
        (2, 1)
    """
    spacing = np.median([one.spacing for one in seen], axis=0)
    labelled = np.sum([one.labelled for one in seen], axis=0)
    area = spacing.prod() / spacing
    fine = [axis for axis in range(len(spacing)) if area[axis] <= _AS_FINE * area.min()]
    return max(reversed(fine), key=lambda axis: int(labelled[axis]))


def _padding(fit: GridFit) -> tuple[int, int, int, int]:
    """Return the padding as `torch.nn.functional.pad` takes it: the last axis first."""
    return fit.before[1], fit.after[1], fit.before[0], fit.after[0]
