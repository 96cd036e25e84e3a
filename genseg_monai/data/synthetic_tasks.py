"""Synthetic tasks, drawn on the fly: no patient's picture is needed to learn to segment from examples.

Butoi et al., "UniverSeg", ICCV 2023, section 4.2, after Hoffmann et al., "SynthMorph", IEEE TMI 2022: a smooth random
label map makes the anatomy of a task, a smooth deformation each of its subjects, a random brightness a label its looks.

How this differs: beside those maps there are shapes (blobs, pairs, tubes, one within another, several of a kind) that
either keep their place, as organs do, or lie anywhere, as lesions do; labels have textures and soft borders; pictures
have uneven light and round fields of view. All of it follows from random numbers alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genseg_monai.data._synthetic_looks import Looks, draw_looks, paint
from genseg_monai.data._synthetic_shapes import (
    Draw,
    Shapes,
    depths,
    draw_regions,
    draw_shapes,
    sample_regions,
    subject_grid,
)
from genseg_monai.errors import UserError

__all__ = ["SyntheticSettings", "SyntheticTask", "draw_subjects", "draw_task"]

_PILOTS = 6
"""Subjects looked at before a label is made the target."""


@dataclass(frozen=True)
class SyntheticSettings:
    """What synthetic tasks may look like.

    Args:
        regions: fewest and most labels of a map that fills the whole picture.
        ground: fewest and most regions behind shapes.
        shapes: fewest and most shapes.
        shaped: share of the tasks that have shapes.
        union: chance of a target of two labels.
        area: smallest and largest mean share of the picture that a target may cover.
        looseness: of the affine change between subjects, share of the loosest, at most; squared draws favour small.
        wobble: the same of the smooth displacement.

    Raises:
        UserError: naming the setting, what was wanted and what came.

    Example:
        >>> SyntheticSettings(shaped=0.0).regions
        (5, 19)
    """

    regions: tuple[int, int] = (5, 19)
    ground: tuple[int, int] = (1, 8)
    shapes: tuple[int, int] = (1, 6)
    shaped: float = 0.7
    union: float = 0.1
    area: tuple[float, float] = (0.004, 0.6)
    looseness: float = 0.7
    wobble: float = 0.6

    def __post_init__(self) -> None:
        for name in ("regions", "ground", "shapes"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise UserError(name, f"wanted (fewest, most) with 1 <= fewest <= most, got {(low, high)}")
        for name in ("shaped", "union", "looseness", "wobble"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(name, f"wanted a number in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.area[0] < self.area[1] <= 1:
            raise UserError("area", f"wanted (smallest, largest) shares in [0, 1], got {self.area}")


@dataclass(frozen=True)
class SyntheticTask:
    """What all subjects of one synthetic task share.

    Attributes:
        regions: 2H 2W, label of each place.
        shapes: that lie on them, none or several.
        looks: of the labels.
        target: labels that are to be found.
        looseness: of the affine change between subjects.
        wobble: of the smooth displacement between subjects.
    """

    regions: Tensor
    shapes: Shapes | None
    looks: Looks
    target: tuple[int, ...]
    looseness: float
    wobble: float

    @property
    def size(self) -> int:
        """Height and width of its pictures."""
        return len(self.regions) // 2


def draw_task(settings: SyntheticSettings, size: int, generator: torch.Generator) -> SyntheticTask:
    """Draw one task.

    Args:
        settings: what it may look like.
        size: height and width in pixels.
        generator: on the CPU; a task of one seed is always the same.
    """
    draw = Draw(generator)
    while True:
        shaped = draw.decide(settings.shaped)
        regions = draw.whole(*(settings.ground if shaped else settings.regions))
        shapes = draw_shapes(draw, draw.whole(*settings.shapes)) if shaped else None
        owner = torch.empty(0, dtype=torch.long) if shapes is None else shapes.owner
        task = SyntheticTask(
            regions=draw_regions(draw, regions, 2 * size),
            shapes=shapes,
            looks=draw_looks(draw, regions, owner, size),
            target=(),
            looseness=settings.looseness * draw.number(0, 1) ** 2,
            wobble=settings.wobble * draw.number(0.05, 1),
        )
        target = _choose_target(settings, task, regions, draw)
        if target:
            return SyntheticTask(task.regions, shapes, task.looks, target, task.looseness, task.wobble)


def _choose_target(settings: SyntheticSettings, task: SyntheticTask, regions: int, draw: Draw) -> tuple[int, ...]:
    """Return labels that are neither too small nor too large and that most subjects have; none if there are none."""
    seen, _ = _anatomy(task, _PILOTS, draw)
    labels = regions + (0 if task.shapes is None else len(task.shapes.owner))
    area = torch.stack([(seen == label).float().mean((1, 2)) for label in range(labels)], dim=1)
    fit = (area.mean(0) >= settings.area[0]) & (area.mean(0) <= settings.area[1]) & ((area > 0).float().mean(0) > 0.6)
    weight = fit.float()
    if task.shapes is not None:
        weight[:regions] *= 0.15  # what lies on the ground is the target more often than the ground
    if not bool(fit.any()):
        return ()
    first = int(torch.multinomial(weight, 1, generator=draw.generator))
    target = {first}
    if task.shapes is not None and first >= regions:
        # a cell has its nucleus in it: the target is the whole, or what is left of it
        inner = [regions + k for k, parent in enumerate(task.shapes.parent.tolist()) if parent == first - regions]
        if inner and draw.decide(0.6):
            target |= {int(task.shapes.owner[k - regions]) + regions for k in inner}
    if draw.decide(settings.union):
        target.add(int(torch.multinomial(weight, 1, generator=draw.generator)))
    return tuple(sorted(target))


def _anatomy(task: SyntheticTask, count: int, draw: Draw) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the labels ``N H W`` of ``count`` subjects; and regions ``N H W`` and depths ``N K H W``."""
    grid = subject_grid(draw, count, task.size, task.looseness, task.wobble)
    regions = sample_regions(task.regions, grid)
    if task.shapes is None:
        return regions, (regions, grid.new_zeros(count, 0, task.size, task.size))
    depth = depths(task.shapes, grid, draw)
    labels, ground = regions, len(task.looks.mean) - len(task.shapes.owner)
    for k, owner in enumerate(task.shapes.owner.tolist()):
        labels = torch.where(depth[:, k] > 0, ground + owner, labels)
    return labels, (regions, depth)


def draw_subjects(task: SyntheticTask, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw subjects of a task on the device of ``generator``.

    Args:
        task: what they share.
        count: N.
        generator: where every number comes from.

    Returns:
        Images ``N 1 H W`` in [0, 1] and labels ``N 1 H W``, 0 or 1, both float32.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> images, labels = draw_subjects(draw_task(SyntheticSettings(), 32, generator), 4, generator)
        >>> images.shape, labels.shape
        (torch.Size([4, 1, 32, 32]), torch.Size([4, 1, 32, 32]))
    """
    device = generator.device
    if task.regions.device != device:
        shapes = None if task.shapes is None else task.shapes.to(device)
        task = SyntheticTask(
            task.regions.to(device), shapes, task.looks.to(device), task.target, task.looseness, task.wobble
        )
    draw = Draw(generator)
    labels, (regions, depth) = _anatomy(task, count, draw)
    images = paint(task.looks, regions, depth, draw)
    wanted = torch.isin(labels, torch.tensor(task.target, device=device))
    return images, wanted.float().unsqueeze(1)
