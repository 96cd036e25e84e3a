"""Labelled planes a network segments others by, and which of them are like a given one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

__all__ = ["SupportSet"]

_THUMBNAIL = 16  # pixels on a side: what is where, not what it looks like
_PLACE = 4.0  # what a whole volume between two planes counts; unlike thumbnails differ by about 2


@dataclass(frozen=True)
class SupportSet:
    """Labelled planes on the grid of the network.

    Args:
        images: N 1 H W in [0, 1].
        labels: N 1 H W, class indices, uint8; 0 is background.
        classes: names, the background first.
        positions: where each plane lies in its volume, in [0, 1]; 0.5 for pictures.

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

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        if self.images.ndim != 4 or self.images.shape != self.labels.shape or self.images.shape[1] != 1:
            raise ValueError(
                f"wanted images and labels N 1 H W, got {tuple(self.images.shape)} and {tuple(self.labels.shape)}"
            )
        if not len(self.images):
            raise ValueError("wanted one labelled plane or more, got none")
        if not len(self.positions):
            object.__setattr__(self, "positions", self.images.new_full((len(self.images),), 0.5))
        if len(self.positions) != len(self.images):
            raise ValueError(f"wanted a position for each of {len(self.images)} planes, got {len(self.positions)}")
        object.__setattr__(self, "_thumbnails", _thumbnails(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> SupportSet:
        """Return the same on a device."""
        return SupportSet(self.images.to(device), self.labels.to(device), self.classes, self.positions.to(device))

    def distances(self, images: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return how unlike each plane is: mean squared difference of small, standardised pictures, and of the place.

        Args:
            images: B 1 H W.
            positions: B, as those of the supports; None for pictures.

        Returns:
            B N, 0 or more.
        """
        mine, theirs = _thumbnails(images), self._thumbnails  # type: ignore[attr-defined]
        apart = torch.cdist(mine, theirs).square() / mine.shape[1]
        if positions is not None:
            apart = apart + _PLACE * (positions.to(apart)[:, None] - self.positions[None]).square()
        return apart


def _thumbnails(images: Tensor) -> Tensor:
    """Return N P: each image with few pixels, mean zero and standard deviation one."""
    size = tuple(min(_THUMBNAIL, n) for n in images.shape[2:])
    small = rearrange(F.interpolate(images.float(), size, mode="area"), "N 1 H W -> N (H W)")
    return (small - small.mean(1, keepdim=True)) / small.std(1, keepdim=True, correction=0).clamp_min(1e-4)
