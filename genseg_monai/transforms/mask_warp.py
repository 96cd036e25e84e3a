"""Random affine (and elastic) warps of one-hot masks: drawn once, replayed at will, differentiable in their parameters.

The ranges are those of GenSeg (Zhang et al., 2025, arXiv 2408.17421): flip, crop or pad each side, scale, translate,
rotate, shear. There they act on one 8-bit mask at a time on the CPU; here on soft one-hot masks, a batch at a time on
the device, so that a gradient can pass to the masks, to the drawn parameters and to the ranges themselves.

`draw_warp` only draws numbers and returns a `Warp`; `apply_warp` only applies one. The same `Warp` moves a mask and the
image that belongs to it, and gives the same result each time. Draws live in voxel units relative to the size: an
angle stays an angle on an image that is not square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.transforms._affine import pairs, rotation, shear
from genseg_monai.transforms._spline import spline_field
from genseg_monai.transforms._transfer import send

__all__ = ["Range", "Warp", "WarpRanges", "apply_warp", "draw_warp", "identity_warp", "sampling_grid"]

Range = tuple[float | Tensor, float | Tensor]


@dataclass(frozen=True)
class WarpRanges:
    """How far a warp may go. A bound may be a tensor: then the gradient of what the warp made reaches it.

    Args:
        flip: probability of a mirror image, in [0, 1].
        pad: share of the size added at each side (below zero: cropped), the result scaled back to the size.
        scale: factor along each axis; above 1 enlarges.
        translate: shift along each axis, as a share of the size.
        rotate: angle in degrees, about the centre; in 3D one for each pair of axes.
        shear: angle in degrees, one for each pair of axes.
        elastic: standard deviation of a smooth displacement, as a share of the size; 0 switches it off.
        elastic_points: control points of that displacement along each axis.
        flip_axis: spatial axis to mirror; None takes the left-right axis: the last of a picture (rows, columns), the
            first of a volume (X, Y, Z).

    Example:
        >>> WarpRanges(rotate=(-30, 30)).rotate
        (-30, 30)
    """

    flip: float = 0.5
    pad: Range = (0.0, 0.1)
    scale: Range = (0.8, 1.2)
    translate: Range = (-0.1, 0.1)
    rotate: Range = (-15.0, 15.0)
    shear: Range = (-8.0, 8.0)
    elastic: float | Tensor = 0.0
    elastic_points: int = 5
    flip_axis: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be drawn from; tensors are whoever's learns them."""
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip: wanted a probability in [0, 1], got {self.flip}")
        lowest = {"pad": -0.5, "scale": 0.0, "shear": -90.0}
        highest = {"shear": 90.0}
        for name in ("pad", "scale", "translate", "rotate", "shear"):
            bounds = getattr(self, name)
            if len(bounds) != 2:
                raise ValueError(f"{name}: wanted (lower, upper), got {bounds}")
            lower, upper = bounds
            if isinstance(lower, Tensor) or isinstance(upper, Tensor):
                continue
            if not lowest.get(name, -math.inf) < lower <= upper < highest.get(name, math.inf):
                limits = f"within ({lowest.get(name, -math.inf)}, {highest.get(name, math.inf)})"
                raise ValueError(f"{name}: wanted lower <= upper {limits}, got {bounds}")
        if not isinstance(self.elastic, Tensor) and self.elastic < 0:
            raise ValueError(f"elastic: wanted a share of the size, 0 or more, got {self.elastic}")
        if self.elastic_points < 4:
            raise ValueError(f"elastic_points: wanted 4 or more, got {self.elastic_points}")


@dataclass(frozen=True)
class Warp:
    """The drawn numbers of one batch; S = 2 or 3 spatial axes, R = 1 or 3 pairs of axes.

    Attributes:
        flip: B S, 1 or -1.
        pad: B S 2, share added before and after, along each axis.
        scale: B S.
        translate: B S, share of the size.
        rotate: B R, radians.
        shear: B R, radians.
        elastic: B S P P [P], displacement of the control points as a share of the size, or None.

    Example:
        >>> identity_warp(4, 2).scale.shape
        torch.Size([4, 2])
    """

    flip: Tensor
    pad: Tensor
    scale: Tensor
    translate: Tensor
    rotate: Tensor
    shear: Tensor
    elastic: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scale)

    def to(self, *args: torch.device | str | torch.dtype, **settings: torch.device | torch.dtype) -> Warp:
        """Move the numbers to a device, or turn them into another type, as `Tensor.to` does."""
        drawn = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self, **{name: value.to(*args, **settings) for name, value in drawn.items() if value is not None}
        )

    def size_of(self, batch: Tensor) -> tuple[int, ...]:
        """Return the spatial size of a batch.

        Raises:
            ValueError: it does not have the items and spatial axes of this warp.
        """
        spatial = self.scale.shape[1]
        if batch.ndim != spatial + 2:
            raise ValueError(f"wanted a batch with {spatial} spatial axes, as the warp has, got {tuple(batch.shape)}")
        if len(batch) != len(self):
            raise ValueError(f"wanted {len(self)} items, one for each drawn warp, got {len(batch)}")
        return tuple(batch.shape[2:])

    def matrix(self, size: tuple[int, ...]) -> Tensor:
        """Return the map from an output voxel to the input voxel it shows, both counted from the centre.

        Forward, a point is flipped, padded, scaled, sheared, rotated, shifted; the sampler needs the inverse.

        Args:
            size: number of voxels along each spatial axis.

        Returns:
            B S+1 S+1, in homogeneous coordinates.
        """
        voxels = self.scale.new_tensor(size)
        extent = 1 + self.pad.sum(-1)  # the padded image, as a share of the image
        offset = (self.pad[..., 1] - self.pad[..., 0]) / 2 * voxels  # its centre moves when the sides differ
        turn = rotation(self.rotate, len(size)) @ shear(self.shear, len(size))
        linear = turn @ torch.diag_embed(self.flip * self.scale / extent)  # B S S: A
        # forward: y = A (x - offset) + shift, where offset is the centre of the padded image
        inverse = torch.linalg.inv(linear)
        shift = offset - (inverse @ (self.translate * voxels).unsqueeze(-1)).squeeze(-1)
        last = torch.cat([torch.zeros_like(shift), torch.ones_like(shift[:, :1])], dim=1)
        return torch.cat([torch.cat([inverse, shift.unsqueeze(-1)], dim=2), last.unsqueeze(1)], dim=1)


def identity_warp(batch: int, spatial_dims: int, device: torch.device | str | None = None) -> Warp:
    """Return the warp that changes nothing.

    Example:
        >>> masks = torch.eye(3).reshape(1, 3, 1, 3)
        >>> torch.equal(apply_warp(masks, identity_warp(1, 2)), masks)
        True
    """
    planes = pairs(spatial_dims)
    axes = torch.zeros(batch, spatial_dims, device=device)
    turns = torch.zeros(batch, planes, device=device)
    pad = torch.zeros(batch, spatial_dims, 2, device=device)
    return Warp(flip=axes + 1, pad=pad, scale=axes + 1, translate=axes, rotate=turns, shear=turns)


def draw_warp(ranges: WarpRanges, batch: int, spatial_dims: int, generator: torch.Generator) -> Warp:
    """Draw one warp for each item of a batch.

    The number of draws depends on nothing but the arguments, so that two generators in step stay in step.

    Args:
        ranges: how far it may go.
        batch: number of items.
        spatial_dims: 2 or 3.
        generator: where every number comes from; the warp lies on its device.

    Example:
        >>> warp = draw_warp(WarpRanges(), 4, 2, torch.Generator().manual_seed(0))
        >>> bool((warp.scale >= 0.8).all() and (warp.scale <= 1.2).all())
        True
    """
    device = generator.device

    def uniform(bounds: Range, *shape: int) -> Tensor:
        lower, upper = (torch.as_tensor(bound, device=device, dtype=torch.get_default_dtype()) for bound in bounds)
        return lower + (upper - lower) * torch.rand(batch, *shape, generator=generator, device=device)

    planes = pairs(spatial_dims)
    axis = ranges.flip_axis if ranges.flip_axis is not None else (spatial_dims - 1 if spatial_dims == 2 else 0)
    if not -spatial_dims <= axis < spatial_dims:
        raise ValueError(f"flip_axis: wanted an axis of {spatial_dims} spatial axes, got {axis}")
    flip = torch.ones(batch, spatial_dims, device=device)
    flip[:, axis] = torch.where(torch.rand(batch, generator=generator, device=device) < ranges.flip, -1.0, 1.0)
    warp = Warp(
        flip=flip,
        pad=uniform(ranges.pad, spatial_dims, 2),
        scale=uniform(ranges.scale, spatial_dims),
        translate=uniform(ranges.translate, spatial_dims),
        rotate=uniform(ranges.rotate, planes) * (math.pi / 180),
        shear=uniform(ranges.shear, planes) * (math.pi / 180),
    )
    if not isinstance(ranges.elastic, Tensor) and ranges.elastic == 0:
        return warp
    points = (ranges.elastic_points,) * spatial_dims
    noise = torch.randn(batch, spatial_dims, *points, generator=generator, device=device)
    return replace(warp, elastic=torch.as_tensor(ranges.elastic, device=device) * noise)


def sampling_grid(warp: Warp, size: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """Return where each output voxel looks in the input, as `torch.nn.functional.grid_sample` wants it.

    Args:
        warp: the drawn numbers.
        size: spatial size of the batch.
        device: where the grid is to lie; by default where the warp does. The small matrices stay there: inverting one
            on a GPU waits for all that is queued.

    Returns:
        B H W [D] S in [-1, 1] (corners of the image), last axis in the order of `grid_sample`: the last axis first.
    """
    spatial = len(size)
    half = warp.scale.new_tensor(size) / 2
    # from voxels about the centre to [-1, 1] on both sides: diag(1 / half) M diag(half)
    matrix = warp.matrix(size)
    linear = matrix[:, :spatial, :spatial] * half / half.unsqueeze(-1)
    shift = matrix[:, :spatial, spatial:] / half.unsqueeze(-1)
    theta = send(torch.cat([linear.flip(1, 2), shift.flip(1)], dim=2), device or linear.device)
    grid = F.affine_grid(theta, [len(warp), 1, *size], align_corners=False)
    if warp.elastic is None:
        return grid
    field = spline_field(send(warp.elastic, theta.device), size) * 2  # a share of the size is twice that on [-1, 1]
    return grid + rearrange(field.flip(1), "B S ... -> B ... S")


def apply_warp(masks: Tensor, warp: Warp, mode: str = "bilinear") -> Tensor:
    """Warp one-hot masks; what comes from outside the image becomes background.

    Args:
        masks: B K H W [D], one-hot or soft, class 0 is background, summing to one over K.
        warp: the drawn numbers, one set for each item.
        mode: `bilinear` (linear, also in 3D) gives soft masks, `nearest` hard ones and no gradient.

    Returns:
        B K H W [D], in [0, 1], summing to one over K.

    Raises:
        ValueError: the number of items or of spatial axes does not fit.

    Example:
        >>> masks = torch.nn.functional.one_hot(torch.arange(4).reshape(1, 2, 2) % 3, 3).permute(0, 3, 1, 2).float()
        >>> warp = draw_warp(WarpRanges(), 1, 2, torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(apply_warp(masks, warp).sum(1), torch.ones(1, 2, 2)))
        True
    """
    size = warp.size_of(masks)
    grid = sampling_grid(warp.to(masks.dtype), size, masks.device)
    objects = F.grid_sample(masks[:, 1:], grid, mode=mode, padding_mode="zeros", align_corners=False)
    return torch.cat([1 - objects.sum(1, keepdim=True), objects], dim=1)
