"""Labelled planes a network segments others by, and which of them are like a given one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.transforms.colour_axis import colour_axis, project
from genseg_monai.transforms.one_channel import luminance

__all__ = ["SupportSet"]

_THUMBNAIL = 16  # pixels on a side: what is where, not what it looks like
_PLACE = 4.0  # what a whole volume between two planes counts; unlike thumbnails differ by about 2


@dataclass(frozen=True)
class SupportSet:
    """Labelled planes on the grid of the network.

    Args:
        images: N C H W in [0, 1], grey or colour.
        labels: N 1 H W, class indices, uint8; 0 is background.
        classes: names, the background first.
        positions: where each plane lies in its volume, in [0, 1]; 0.5 for pictures.
        cases: number of the case of each plane; all different if not given.

    Attributes:
        views: N K-1 H W: the grey picture in which the network looks for each class.

    Raises:
        ValueError: the shapes do not fit, or there is no plane.

    Example:
        >>> supports = SupportSet(torch.rand(6, 1, 32, 32), torch.ones(6, 1, 32, 32, dtype=torch.uint8), ("", "organ"))
        >>> int(supports.distances(supports.images[4:5]).argmin())
        4
    """

    images: Tensor
    labels: Tensor
    classes: Sequence[str]
    positions: Tensor = field(default_factory=lambda: torch.empty(0))
    cases: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    views: Tensor = field(init=False, repr=False)
    _thumbnails: Tensor = field(init=False, repr=False)
    _axes: tuple[Tensor, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        shape = tuple(self.images.shape)
        if len(shape) != 4 or shape[1] not in (1, 3) or tuple(self.labels.shape) != (shape[0], 1, *shape[2:]):
            raise ValueError(
                f"wanted images N 1 H W or N 3 H W and labels N 1 H W, got {shape} and {tuple(self.labels.shape)}"
            )
        if not len(self.images):
            raise ValueError("wanted one labelled plane or more, got none")
        if not len(self.positions):
            object.__setattr__(self, "positions", self.images.new_full((len(self.images),), 0.5))
        if not len(self.cases):
            object.__setattr__(self, "cases", torch.arange(len(self.images)))
        for name, given in (("position", self.positions), ("case", self.cases)):
            if len(given) != len(self.images):
                raise ValueError(f"wanted a {name} for each of {len(self.images)} planes, got {len(given)}")
        object.__setattr__(self, "_thumbnails", _thumbnails(self.images))
        kinds = range(1, len(self.classes))
        axes = [colour_axis(self.images, self.labels == k) for k in kinds] if shape[1] == 3 else []
        object.__setattr__(self, "_axes", tuple(axes))
        object.__setattr__(self, "views", self._seen(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def view(self, query: Tensor) -> Tensor:
        """Return the grey picture of a query, C H W, in which the network looks for each class, K-1 H W."""
        return self._seen(query[None])[0]

    def _seen(self, images: Tensor) -> Tensor:
        if not self._axes:
            return images.expand(-1, len(self.classes) - 1, -1, -1)
        return torch.cat([project(images, axis) for axis in self._axes], dim=1)

    def to(self, device: torch.device | str) -> SupportSet:
        """Return the same on a device."""
        moved = (part.to(device) for part in (self.images, self.labels, self.positions))
        images, labels, positions = moved
        return SupportSet(images, labels, self.classes, positions, self.cases)

    def distances(self, images: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return how unlike each plane is: mean squared difference of small, standardised pictures, and of the place.

        Args:
            images: B C H W.
            positions: B, as those of the supports; None for pictures.

        Returns:
            B N, 0 or more.
        """
        mine, theirs = _thumbnails(images), self._thumbnails
        apart = torch.cdist(mine, theirs).square() / mine.shape[1]
        if positions is not None:
            apart = apart + _PLACE * (positions.to(apart)[:, None] - self.positions[None]).square()
        return apart


def _thumbnails(images: Tensor) -> Tensor:
    """Return N P: each image with few pixels, mean zero and standard deviation one."""
    size = tuple(min(_THUMBNAIL, n) for n in images.shape[2:])
    small = rearrange(F.interpolate(luminance(images.float()), size, mode="area"), "N 1 H W -> N (H W)")
    return (small - small.mean(1, keepdim=True)) / small.std(1, keepdim=True, correction=0).clamp_min(1e-4)
