"""The small matrices of which a warp is made, in 2D and 3D, differentiable in their angles."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pairs", "rotation", "shear"]


def pairs(spatial_dims: int) -> int:
    """Return the number of planes an image can turn in."""
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims: wanted 2 or 3, got {spatial_dims}")
    return 1 if spatial_dims == 2 else 3


def _planes(spatial: int) -> list[tuple[int, int]]:
    return [(0, 1)] if spatial == 2 else [(0, 1), (0, 2), (1, 2)]


def rotation(angles: Tensor, spatial: int) -> Tensor:
    """Return B S S: the turns in each plane, one after the other, from its first axis to its second."""
    whole = torch.eye(spatial, dtype=angles.dtype, device=angles.device).expand(len(angles), -1, -1)
    for (i, j), angle in zip(_planes(spatial), angles.unbind(1), strict=True):
        on_i, on_j = _unit(angles, spatial, i, i) + _unit(angles, spatial, j, j), _unit(angles, spatial, j, i)
        rest = torch.eye(spatial, dtype=angles.dtype, device=angles.device) - on_i
        cos, sin = angle.cos().reshape(-1, 1, 1), angle.sin().reshape(-1, 1, 1)
        whole = (rest + cos * on_i + sin * (on_j - on_j.T)) @ whole
    return whole


def shear(angles: Tensor, spatial: int) -> Tensor:
    """Return B S S: along the second axis of each plane, by the tangent of the angle times the first."""
    whole = torch.eye(spatial, dtype=angles.dtype, device=angles.device).expand(len(angles), -1, -1)
    for (i, j), angle in zip(_planes(spatial), angles.unbind(1), strict=True):
        whole = whole + angle.tan().reshape(-1, 1, 1) * _unit(angles, spatial, j, i)
    return whole


def _unit(like: Tensor, spatial: int, row: int, column: int) -> Tensor:
    """Return the S x S matrix with a single one."""
    unit = torch.zeros(spatial, spatial, dtype=like.dtype, device=like.device)
    unit[row, column] = 1
    return unit
