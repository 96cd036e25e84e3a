"""Smooth fields from a few control points, by uniform cubic B-splines.

Rueckert et al., "Nonrigid registration using free-form deformations", IEEE TMI 1999. One small matrix product an axis:
the same in 2D and 3D, smooth twice over, differentiable in the control points.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["spline_basis", "spline_field"]


def spline_basis(voxels: int, points: int, like: Tensor) -> Tensor:
    """Return voxels x points: the weight of each control point at each voxel centre; each row sums to one.

    Args:
        voxels: number of voxels along the axis.
        points: number of control points, 4 or more; the outermost lie one interval outside the image.
        like: a tensor of the wanted type and device.

    Example:
        >>> bool(torch.allclose(spline_basis(7, 5, torch.zeros(1)).sum(1), torch.ones(7)))
        True
    """
    intervals = points - 3
    centres = (torch.arange(voxels, dtype=like.dtype, device=like.device) + 0.5) / voxels * intervals
    distance = (centres.unsqueeze(1) + 1 - torch.arange(points, dtype=like.dtype, device=like.device)).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far)


def spline_field(control: Tensor, size: tuple[int, ...]) -> Tensor:
    """Spread control points over an image.

    Args:
        control: B C P P [P].
        size: spatial size of the image.

    Returns:
        B C H W [D].

    Example:
        >>> spline_field(torch.ones(1, 2, 4, 4), (5, 6)).shape
        torch.Size([1, 2, 5, 6])
    """
    for axis, voxels in enumerate(size, start=2):
        basis = spline_basis(voxels, control.shape[axis], control)
        control = torch.movedim(torch.tensordot(basis, control, dims=([1], [axis])), 0, axis)
    return control
