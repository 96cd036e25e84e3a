"""The geometry of a synthetic task: regions that fill the picture, shapes that lie on them, and how subjects differ."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.transforms._spline import spline_field
from genseg_monai.transforms.mask_warp import WarpRanges, draw_warp, sampling_grid

__all__ = ["Draw", "Shapes", "depths", "draw_regions", "draw_shapes", "sample_regions", "subject_grid"]

HARMONICS = 4
"""Of the outline of a shape: its radius varies with the angle as two to five lobes."""

_LOBE_NUMBERS = torch.arange(2, 2 + HARMONICS)

_WARP = WarpRanges(
    flip=0.0, pad=(0.0, 0.0), scale=(0.65, 1.5), translate=(-0.25, 0.25), rotate=(-45, 45), shear=(-15, 15), elastic=0.1
)
"""The loosest change from subject to subject; a task takes a share of it."""


@dataclass(frozen=True)
class Draw:
    """Numbers from one random generator, on its device."""

    generator: torch.Generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return uniform numbers in [low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.generator.device)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device)

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return numbers in [low, high) whose logarithm is uniform."""
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Return True with this probability."""
        return self.uniform(0, 1, *shape) < probability

    def whole(self, low: int, high: int) -> int:
        """Return one whole number, both bounds among them."""
        return int(torch.randint(low, high + 1, (1,), generator=self.generator, device=self.generator.device))

    def number(self, low: float, high: float) -> float:
        """Return one uniform number."""
        return float(self.uniform(low, high, 1))

    def decide(self, probability: float) -> bool:
        """Return one chance."""
        return bool(self.chance(probability, 1))


@dataclass(frozen=True)
class Shapes:
    """K shapes of a task, painted in this order; lengths are in halves of the picture's size.

    Attributes:
        owner: K, the label that each one bears; several may bear one.
        parent: K, the shape in whose frame it lies, -1 for the picture.
        centre: K 2, x and y.
        radius: K.
        aspect: K, breadth over length, at most 1.
        angle: K, radians.
        squareness: K, 0 an ellipse, 1 nearly a rectangle.
        bend: K, curvature of the long axis.
        lobes: K 2 HARMONICS, amplitudes of cosine and sine.
        twin: K, whether a mirror image stands on the other side.
        free: K, whether it lies anywhere, at any angle.
        spread: K 4, how far subjects differ: centre, radius (logarithm), angle (radians), outline.
        presence: K, share of the subjects that have it.
    """

    owner: Tensor
    parent: Tensor
    centre: Tensor
    radius: Tensor
    aspect: Tensor
    angle: Tensor
    squareness: Tensor
    bend: Tensor
    lobes: Tensor
    twin: Tensor
    free: Tensor
    spread: Tensor
    presence: Tensor

    def to(self, device: torch.device | str) -> Shapes:
        """Move the numbers to a device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def draw_regions(draw: Draw, labels: int, size: int) -> Tensor:
    """Return a smooth random label map ``H W``: which of ``labels`` random fields is largest."""
    field = spline_field(draw.normal(1, labels, *(draw.whole(4, 9),) * 2), (size, size))[0]
    fine = spline_field(draw.normal(1, labels, *(draw.whole(8, 20),) * 2), (size, size))[0]
    return (field + draw.number(0, 0.4) * fine).argmax(0)


def draw_shapes(draw: Draw, count: int) -> Shapes:
    """Draw ``count`` shapes: blobs, organs in pairs, tubes, lesions anywhere, one within another."""
    free = draw.chance(0.35, count)
    lean = draw.chance(0.25, count)
    radius = torch.where(lean, draw.log_uniform(0.25, 0.9, count), draw.log_uniform(0.08, 0.7, count))
    owner, parent = torch.arange(count), torch.full((count,), -1)
    for k in range(1, count):
        if free[k - 1] and draw.decide(0.3):  # one more of the kind before
            owner[k], free[k], lean[k], radius[k] = owner[k - 1], True, lean[k - 1], radius[k - 1]
        elif draw.decide(0.3):  # within the one before, as a nucleus in its cell
            parent[k], free[k] = k - 1, False
            radius[k] = radius[k - 1] * draw.number(0.3, 0.75)
    reach = torch.where(parent >= 0, 0.4, 0.7)[:, None]
    tight = torch.where(free, 1.0, draw.uniform(0, 1, count) ** 2)
    return Shapes(
        owner=owner,
        parent=parent,
        centre=reach * draw.uniform(-1, 1, count, 2),
        radius=radius,
        aspect=torch.where(lean, draw.uniform(0.08, 0.35, count), draw.uniform(0.4, 1, count)),
        angle=draw.uniform(0, math.pi, count),
        squareness=draw.uniform(0, 1, count) ** 2,
        bend=torch.where(lean, 0.8 * draw.normal(count), 0.1 * draw.normal(count)),
        lobes=0.2 * draw.uniform(0, 1, count, 1, 1) * draw.normal(count, 2, HARMONICS) / _LOBE_NUMBERS,
        twin=draw.chance(0.2, count) & ~free & (parent < 0),
        free=free,
        spread=torch.stack(
            [
                0.02 + 0.2 * tight,
                0.04 + 0.36 * draw.uniform(0, 1, count) * tight.sqrt(),
                0.05 + 0.5 * draw.uniform(0, 1, count) * tight,
                0.02 + 0.14 * draw.uniform(0, 1, count),
            ],
            dim=1,
        ),
        presence=torch.where(draw.chance(0.75, count), 1.0, draw.uniform(0.5, 1, count)),
    )


def subject_grid(draw: Draw, count: int, size: int, looseness: float, wobble: float) -> Tensor:
    """Return where each pixel of each subject looks in the task's frame, ``N H W 2`` (x, y) on [-1, 1].

    Args:
        draw: of the subjects.
        count: N.
        size: H and W.
        looseness: share of the loosest affine change, in [0, 1].
        wobble: the same of the smooth displacement.
    """
    warp = draw_warp(_WARP, count, 2, draw.generator)
    elastic = None if warp.elastic is None else warp.elastic * wobble
    warp = replace(
        warp,
        scale=warp.scale**looseness,
        translate=warp.translate * looseness,
        rotate=warp.rotate * looseness,
        shear=warp.shear * looseness,
        elastic=elastic,
    )
    return sampling_grid(warp, (size, size))


def sample_regions(regions: Tensor, grid: Tensor) -> Tensor:
    """Return the label map ``H W`` seen through each subject's grid, ``N H W`` whole numbers."""
    stack = regions.to(grid.dtype).expand(len(grid), 1, -1, -1)
    seen = F.grid_sample(stack, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return seen[:, 0].long()


def depths(shapes: Shapes, grid: Tensor, draw: Draw) -> Tensor:
    """Return how deep each pixel lies in each shape of each subject, ``N K H W``: above 0 inside.

    Args:
        shapes: of the task.
        grid: N H W 2, of the subjects.
        draw: of the subjects.
    """
    count, number = len(grid), len(shapes.radius)
    shift, grow, turn, ripple = shapes.spread.unbind(1)
    centre = shapes.centre + shift[:, None] * draw.normal(count, number, 2)
    centre = torch.where(shapes.free[:, None], draw.uniform(-0.75, 0.75, count, number, 2), centre)
    radius = shapes.radius * (grow * draw.normal(count, number).clamp(-2, 2)).exp()
    angle = shapes.angle + turn * draw.normal(count, number)
    angle = torch.where(shapes.free, draw.uniform(0, math.pi, count, number), angle)
    waves = draw.normal(count, number, 2, HARMONICS) / _LOBE_NUMBERS.to(grid.device)
    lobes = shapes.lobes + ripple[:, None, None] * waves
    missing = draw.uniform(0, 1, count, number) >= shapes.presence
    for k, parent in enumerate(shapes.parent.tolist()):
        if parent >= 0:
            centre[:, k] = centre[:, parent] + radius[:, parent, None] * shapes.aspect[parent] * centre[:, k]
            missing[:, k] |= missing[:, parent]

    def each(value: Tensor) -> Tensor:
        return value.expand(count, number)[..., None, None]

    x, y = grid[:, None, ..., 0], grid[:, None, ..., 1]
    x = torch.where(each(shapes.twin), x.abs() * each(centre[..., 0]).sign(), x) - each(centre[..., 0])
    y = y - each(centre[..., 1])
    cos, sin = each(angle.cos() / radius), each(angle.sin() / radius)
    along, across = x * cos + y * sin, y * cos - x * sin  # in radii
    across = (across - each(shapes.bend) * (along * along - 0.3)) / each(shapes.aspect)
    square, other = along * along, across * across
    distance = (square + other).sqrt().clamp(min=1e-4)
    box = (square * square + other * other).sqrt().sqrt()
    # e^(i n theta) by repeated products of e^(i theta) = (along + i across) / distance
    c1, s1 = along / distance, across / distance
    c, s, outline = c1, s1, torch.ones_like(distance)
    for n in range(HARMONICS):
        c, s = c * c1 - s * s1, s * c1 + c * s1
        outline = outline + each(lobes[:, :, 0, n]) * c + each(lobes[:, :, 1, n]) * s
    blend = distance + each(shapes.squareness) * (box - distance)
    depth = (1 - blend / outline.clamp(min=0.3)) * each(radius * shapes.aspect)
    return torch.where(each(missing), -1.0, depth)
