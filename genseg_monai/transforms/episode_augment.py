"""Augmentation of in-context tasks: each entry on its own, and the task as a whole.

Butoi et al., "UniverSeg", ICCV 2023, section 3.3. *In-task* augmentation changes every entry by itself, so that the
support differs from the query. *Task* augmentation makes one change to the query and all of its supports: another task
comes of it (mirrored, inverted, the outline of a structure instead of the structure).

Two of the paper's list are off unless they are asked for: the shipped weights were trained without them. Labels turned
inside out (`flip_labels`) make a task of the background; sharper images (`sharpness`) are the counterpart of blur.

Everything is drawn from one generator, a whole task at a time, on the device where it lies; the number of draws depends
on the shapes and the settings alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.transforms.batch_augment import warp_images
from genseg_monai.transforms.intensity import IntensityRanges, apply_intensity, draw_intensity
from genseg_monai.transforms.mask_warp import Warp, WarpRanges, draw_warp, identity_warp

__all__ = ["EntryAugment", "TaskAugment", "mask_edges", "sharpen"]

Pair = tuple[Tensor, Tensor]

_AFFINE = ("flip", "pad", "scale", "translate", "rotate", "shear")


@dataclass(frozen=True)
class EntryAugment:
    """In-task augmentation: every entry gets changes of its own.

    Args:
        affine: chance of an affine change of an entry, in [0, 1].
        elastic: chance of an elastic one.
        warp: how far they go.
        intensity: how far brightness, contrast, gamma, blur and noise go, and the chance of each.
        sharpness: chance of a sharper image; the shipped weights were trained without.

    Example:
        >>> images, labels = torch.rand(5, 1, 16, 16), torch.ones(5, 1, 16, 16)
        >>> images, labels = EntryAugment()(images, labels, torch.Generator().manual_seed(0))
        >>> images.shape, labels.unique().tolist()
        (torch.Size([5, 1, 16, 16]), [0.0, 1.0])
    """

    affine: float = 0.25
    elastic: float = 0.25
    warp: WarpRanges = field(
        default_factory=lambda: WarpRanges(
            flip=0.0, pad=(0.0, 0.0), scale=(0.9, 1.1), translate=(-0.1, 0.1), rotate=(-25, 25), shear=(0, 0),
            elastic=0.02,
        )
    )  # fmt: skip
    intensity: IntensityRanges = field(default_factory=lambda: IntensityRanges(probability=0.2, noise=(0.0, 0.06)))
    sharpness: float = 0.0

    def __post_init__(self) -> None:
        _check_chances(self, "affine", "elastic", "sharpness")

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Pair:
        """Return the changed entries.

        Args:
            images: N 1 H W in [0, 1].
            labels: N 1 H W, 0 or 1.
            generator: where every number comes from.

        Returns:
            N 1 H W in [0, 1], and N 1 H W of 0 and 1.

        Raises:
            ValueError: the shapes differ.
        """
        _check_pair(images, labels)
        count = len(images)
        warp = draw_warp(self.warp, count, 2, generator)
        hit = _chances(count, generator, self.affine, self.elastic)
        images, labels = _move(images, labels, _only(warp, *hit), hit[0] | hit[1])
        tone = draw_intensity(self.intensity, count, generator)
        if self.sharpness:  # what is off draws nothing, so that trainings of before can be repeated
            [sharper] = _chances(count, generator, self.sharpness)
            images = torch.where(sharper.to(images.device).reshape(-1, 1, 1, 1), sharpen(images), images)
        return apply_intensity(images, tone), labels


@dataclass(frozen=True)
class TaskAugment:
    """Task augmentation: one change for the query and all supports.

    Args:
        horizontal: chance of a mirror image, left to right, in [0, 1].
        vertical: chance of one upside down.
        edges: chance of outlines in the place of masks.
        invert: chance of an inverted brightness.
        affine: chance of one affine change of all entries.
        elastic: chance of one elastic change of all entries.
        warp: how far they go.
        intensity: how far brightness, contrast, gamma, blur and noise go, and the chance of each.
        flip_labels: chance of masks turned inside out; the shipped weights were trained without.
        sharpness: chance of sharper images, all alike; the shipped weights were trained without.

    Example:
        >>> images, labels = torch.rand(5, 1, 16, 16), torch.ones(5, 1, 16, 16)
        >>> inverted, _ = TaskAugment(invert=1.0, affine=0, elastic=0, horizontal=0, vertical=0, edges=0,
        ...     intensity=IntensityRanges(probability=0))(images, labels, torch.Generator().manual_seed(0))
        >>> torch.allclose(inverted, 1 - images)
        True
    """

    horizontal: float = 0.5
    vertical: float = 0.5
    edges: float = 0.05
    invert: float = 0.5
    affine: float = 0.25
    elastic: float = 0.25
    warp: WarpRanges = field(
        default_factory=lambda: WarpRanges(
            flip=0.0, pad=(0.0, 0.0), scale=(0.8, 1.2), translate=(-0.15, 0.15), rotate=(-180, 180), shear=(-8, 8),
            elastic=0.03,
        )
    )  # fmt: skip
    intensity: IntensityRanges = field(default_factory=lambda: IntensityRanges(probability=0.2, noise=(0.0, 0.06)))
    flip_labels: float = 0.0
    sharpness: float = 0.0

    def __post_init__(self) -> None:
        named = "horizontal", "vertical", "edges", "invert", "affine", "elastic", "flip_labels", "sharpness"
        _check_chances(self, *named)

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Pair:
        """Return the changed task; arguments, result and errors as in `EntryAugment`."""
        _check_pair(images, labels)
        count = len(images)
        warp = draw_warp(self.warp, 1, 2, generator)
        tone = draw_intensity(self.intensity, 1, generator)
        grain = torch.randint(2**62, (count,), generator=generator, device=generator.device).cpu()
        chances = self.horizontal, self.vertical, self.edges, self.invert, self.affine, self.elastic
        hit = _chances(1, generator, *chances)
        horizontal, vertical, edges, invert = (bool(each) for each in hit[:4])
        # what is off draws nothing, so that trainings of before can be repeated
        sharper = bool(self.sharpness and _chances(1, generator, self.sharpness)[0])
        inside_out = bool(self.flip_labels and _chances(1, generator, self.flip_labels)[0])
        turned = [axis for axis, wanted in ((-1, horizontal), (-2, vertical)) if wanted]
        images, labels = images.flip(turned), labels.flip(turned)
        everyone = _map(_only(warp, hit[4], hit[5]), lambda value: value.expand(count, *value.shape[1:]))
        images, labels = _move(images, labels, everyone, (hit[4] | hit[5]).expand(count))
        if invert:
            images = 1 - images
        if sharper:
            images = sharpen(images)
        same = {entry.name: getattr(tone, entry.name).expand(count) for entry in fields(tone)}
        images = apply_intensity(images, replace(tone, **{**same, "seed": grain}))
        labels = mask_edges(labels) if edges else labels
        return images, 1 - labels if inside_out else labels


def mask_edges(labels: Tensor) -> Tensor:
    """Return the outlines of masks, ``N 1 H W`` of 0 and 1: where a neighbour differs.

    Example:
        >>> labels = torch.zeros(1, 1, 5, 5)
        >>> labels[..., 1:4, 1:4] = 1
        >>> int(mask_edges(labels)[..., 2, 2]), int(mask_edges(labels).sum())
        (0, 24)
    """
    return F.max_pool2d(labels, 3, 1, 1) + F.max_pool2d(-labels, 3, 1, 1)


def sharpen(images: Tensor, factor: float = 5.0) -> Tensor:
    """Return images, N 1 H W in [0, 1], with the difference to their smoothed selves enlarged.

    Args:
        images: N 1 H W in [0, 1].
        factor: of the difference; 1 changes nothing.

    Example:
        >>> images = torch.full((1, 1, 3, 3), 0.5)
        >>> images[..., 1, 1] = 0.6
        >>> round(float(sharpen(images)[..., 1, 1]), 3), round(float(sharpen(images, 1.0)[..., 1, 1]), 3)
        (0.846, 0.6)
    """
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=images.device, dtype=images.dtype) / 13
    smooth = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel[None, None])
    # x + (f - 1) (x - smooth x)
    return (smooth + factor * (images - smooth)).clamp(0, 1)


def _chances(count: int, generator: torch.Generator, *probabilities: float) -> list[Tensor]:
    drawn = torch.rand(len(probabilities), count, generator=generator, device=generator.device)
    return [row < probability for row, probability in zip(drawn, probabilities, strict=True)]


def _map(warp: Warp, change: Callable[[Tensor], Tensor]) -> Warp:
    held = {entry.name: getattr(warp, entry.name) for entry in fields(warp)}
    return replace(warp, **{name: change(value) for name, value in held.items() if value is not None})


def _only(warp: Warp, affine: Tensor, elastic: Tensor) -> Warp:
    """Return the warp with the parts of the items that are not hit taken out."""
    nothing = identity_warp(len(warp), 2, warp.scale.device)

    def kept(name: str) -> Tensor:
        value = getattr(warp, name)
        return torch.where(affine.reshape(-1, *[1] * (value.ndim - 1)), value, getattr(nothing, name))

    field_ = None if warp.elastic is None else warp.elastic * elastic.reshape(-1, 1, 1, 1)
    return replace(warp, **{name: kept(name) for name in _AFFINE}, elastic=field_)


def _move(images: Tensor, labels: Tensor, warp: Warp, hit: Tensor) -> Pair:
    """Warp the items that are hit, masks to 0 and 1 again."""
    places = hit.to(images.device).nonzero()[:, 0]
    if len(places) == 0:
        return images, labels
    part = _map(warp, lambda value: value.to(images.device)[places])
    images, labels = images.clone(), labels.clone()
    images[places] = warp_images(images[places], part).clamp(0, 1)
    labels[places] = (warp_images(labels[places], part, "zeros") > 0.5).to(labels.dtype)
    return images, labels


def _check_chances(settings: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f"{name}: wanted a probability in [0, 1], got {getattr(settings, name)}")


def _check_pair(images: Tensor, labels: Tensor) -> None:
    if images.ndim != 4 or images.shape != labels.shape:
        raise ValueError(f"wanted images and labels N 1 H W, got {tuple(images.shape)} and {tuple(labels.shape)}")
