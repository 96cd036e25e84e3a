"""What the generator is given, to draw a real image again and to draw one that nobody has taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from genseg_monai.errors import UserError
from genseg_monai.transforms import IntensityRanges, WarpRanges, apply_warp, draw_warp
from genseg_monai.transforms.batch_augment import warp_images
from genseg_monai.transforms.intensity import apply_intensity, draw_intensity
from genseg_monai.transforms.look import styled_scene
from genseg_monai.transforms.overlay import laid_over
from genseg_monai.transforms.scene import hole_of, make_scene, moved_onto

__all__ = ["Conditions", "PairKind", "Place", "kind_of"]

Augment = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


class PairKind(StrEnum):
    """How a synthetic pair comes about."""

    MASKS = "masks"
    """A whole image from a warped mask: the method of the paper."""
    SCENES = "scenes"
    """The object of one case, moved and bent, made part of the real image of another."""
    STYLES = "styles"
    """A whole image from a warped mask and a look: the blurred objects of one case, the blurred rest of another."""


class Place(StrEnum):
    """Where in a scene the object goes."""

    OWN = "own"
    """Where the image has its own, which goes: a wound belongs on the foot."""
    ANYWHERE = "anywhere"
    """Where the warp leaves it, and the image's own goes: a polyp may be everywhere."""
    BESIDE = "beside"
    """Where the warp leaves it, and the image's own stays, but for what is covered: nothing has to be painted over."""


def kind_of(generator: Any, wanted: PairKind | str | None = None) -> PairKind:
    """Return the kind of pairs a generator draws.

    Args:
        generator: a network, whose ``scene`` tells whether it is given real images.
        wanted: what it was trained for; by default scenes, if it is given real images.

    Raises:
        UserError: it was not trained for that, or there is no such kind.
    """
    if wanted and wanted not in list(PairKind):
        raise UserError("synthesis", f"wanted one of {', '.join(PairKind)}, got '{wanted}'")
    kind = PairKind(wanted or (PairKind.SCENES if generator.scene else PairKind.MASKS))
    if generator.scene is not (kind is not PairKind.MASKS):
        able = "scenes or styles" if generator.scene else "masks"
        raise UserError("synthesis", f"wanted {able}, as the generator draws, got {kind}")
    return kind


@dataclass(frozen=True)
class Conditions:
    """Turn real pairs into what the generator is given.

    Args:
        synthesis: how synthetic pairs come about.
        warp_ranges: A(M), how far masks are warped.
        augment: (images, masks, random generator) -> (images, masks): of the real images that scenes are made of.
        tone: how far the look of an object may be from that of the image around it, while blending them is learnt.
        blank: how often it is left to the generator altogether, in [0, 1].
        margin: voxels by which a hole is wider than what was or is to be there.
        place: where in a scene the object goes.
        warp_real: whether stage I is shown the real pairs moved and bent as the masks of synthetic ones are, so that no
            mask it draws from later is of a kind that it has not seen. Scenes are made of augmented images in any case.

    Raises:
        UserError: for an unknown synthesis or place, a margin below 0, or a probability that is none.

    Example:
        >>> masks = torch.eye(2)[torch.randint(2, (3, 16, 16))].movedim(-1, 1)
        >>> images, random = torch.rand(3, 1, 16, 16), torch.Generator().manual_seed(0)
        >>> given, wanted = Conditions("scenes").of_synthetic(images, masks, random)
        >>> given.shape, wanted.shape
        (torch.Size([3, 4, 16, 16]), torch.Size([3, 2, 16, 16]))
    """

    synthesis: PairKind | str = PairKind.MASKS
    warp_ranges: WarpRanges = field(default_factory=WarpRanges)
    augment: Augment | None = None
    tone: IntensityRanges = field(default_factory=IntensityRanges)
    blank: float = 0.3
    margin: int = 2
    place: Place | str = Place.OWN
    warp_real: bool = False

    def __post_init__(self) -> None:
        if self.synthesis not in list(PairKind):
            raise UserError("synthesis", f"wanted one of {', '.join(PairKind)}, got '{self.synthesis}'")
        if self.place not in list(Place):
            raise UserError("place", f"wanted one of {', '.join(Place)}, got '{self.place}'")
        if self.margin < 0:
            raise UserError("margin", f"wanted 0 voxels or more, got {self.margin}")
        if not 0 <= self.blank <= 1:
            raise UserError("blank", f"wanted a probability in [0, 1], got {self.blank}")
        object.__setattr__(self, "synthesis", PairKind(self.synthesis))
        object.__setattr__(self, "place", Place(self.place))

    def of_real(self, images: Tensor, masks: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return what stage I is given to draw real images again.

        Args:
            images: B C H W [D] in [0, 1].
            masks: B K H W [D], one-hot.
            random: where every number comes from.

        Returns:
            images and masks, moved and bent or augmented where the settings say so, and the generator's input.
        """
        if self.synthesis is PairKind.MASKS and self.warp_real:
            warp = draw_warp(self.warp_ranges, len(masks), masks.ndim - 2, random)
            images, masks = warp_images(images, warp), apply_warp(masks, warp)
        if self.synthesis is PairKind.MASKS:
            return images, masks, masks
        images, masks = self._augmented(images, masks, random)
        if self.synthesis is PairKind.STYLES:
            return images, masks, styled_scene(masks, (images, masks), (images, masks))
        # holes where an object is, and where none is: plain background has to be learnt too
        _, decoys = self._others(images, masks, random)
        objects = apply_intensity(images, draw_intensity(self.tone, len(images), random))
        shown = torch.rand(len(images), generator=random, device=random.device).to(images.device) >= self.blank
        objects = objects * shown.reshape(-1, *[1] * (images.ndim - 1))
        return images, masks, make_scene(masks, images, self._hole(masks, decoys), objects)

    def of_synthetic(self, images: Tensor, masks: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the generator's input for a synthetic batch, and the masks B K H W [D] it is to show.

        Args:
            images: B C H W [D] in [0, 1].
            masks: B K H W [D], one-hot.
            random: where every number comes from.
        """
        if self.synthesis is PairKind.MASKS:
            warped = self._warped(masks, random)
            return warped, warped
        others = self._others(images, masks, random)
        return self.scene(*self._augmented(images, masks, random), *others, random)

    def scene(
        self, images: Tensor, masks: Tensor, objects: Tensor, wanted: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the scenes that put objects into images (or their looks), and the masks B K H W [D] they are to show.

        Args:
            images: B C H W [D] in [0, 1].
            masks: B K H W [D], of the images.
            objects: B C H W [D], images of the objects.
            wanted: B K H W [D], masks of the objects.
            random: where every number comes from.
        """
        if self.synthesis is PairKind.STYLES:
            return styled_scene(wanted, (images, masks), (objects, wanted)), wanted
        decoys = self._warped(masks, random)
        if self.place is Place.BESIDE:
            hole = self._hole(wanted, decoys)
            objects, wanted = laid_over(objects, wanted, images, masks)
            return make_scene(wanted, images, hole, objects), wanted
        if self.place is Place.OWN:
            objects, wanted = moved_onto(objects, wanted, masks)
        return make_scene(wanted, images, self._hole(masks, wanted, decoys), objects), wanted

    def _augmented(self, images: Tensor, masks: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        return (images, masks) if self.augment is None else self.augment(images, masks, random)

    def _warped(self, masks: Tensor, random: torch.Generator) -> Tensor:
        return apply_warp(masks, draw_warp(self.warp_ranges, len(masks), masks.ndim - 2, random))

    def _others(self, images: Tensor, masks: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the pairs of the batch in another order, in which one may keep its place, moved and bent."""
        order = torch.randperm(len(masks), generator=random, device=random.device).to(masks.device)
        warp = draw_warp(self.warp_ranges, len(masks), masks.ndim - 2, random)
        return warp_images(images[order], warp), apply_warp(masks[order], warp)

    def _hole(self, *masks: Tensor) -> Tensor:
        return torch.stack([hole_of(mask, self.margin) for mask in masks]).amax(0)
