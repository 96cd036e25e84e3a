"""Augment real pairs: one warp for the image and its mask, then a change of intensity of the image.

A whole batch at a time, on the device where it lies: in the regime of few cases all labelled data stay there, and no
loader worker is waited for. Strong augmentation of real pairs is also the bar that synthetic pairs have to pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.transforms._transfer import send
from genseg_monai.transforms.intensity import IntensityRanges, apply_intensity, draw_intensity
from genseg_monai.transforms.mask_warp import Warp, WarpRanges, apply_warp, draw_warp, sampling_grid
from genseg_monai.transforms.overlay import laid_over

__all__ = ["BatchAugment", "warp_images"]


def warp_images(images: Tensor, warp: Warp, padding: str = "border") -> Tensor:
    """Warp images as `apply_warp` warps their masks.

    Args:
        images: B C H W [D].
        warp: the drawn numbers, one set for each item.
        padding: what lies outside: `border` repeats the edge, `zeros` is black.

    Returns:
        B C H W [D].

    Raises:
        ValueError: the number of items or of spatial axes does not fit.

    Example:
        >>> from genseg_monai.transforms import identity_warp
        >>> images = torch.rand(2, 1, 8, 8)
        >>> torch.allclose(warp_images(images, identity_warp(2, 2)), images, atol=1e-6)
        True
    """
    if padding not in ("border", "zeros"):
        raise ValueError(f"padding: wanted border or zeros, got {padding!r}")
    grid = sampling_grid(warp.to(images.dtype), warp.size_of(images), images.device)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


@dataclass(frozen=True)
class BatchAugment:
    """Augment a batch of images and masks alike.

    Args:
        warp: how far both are moved; None leaves them where they are.
        intensity: how far the intensity of the images changes; None leaves it as it is.
        probability: chance of an item being moved, in [0, 1].
        padding: what lies outside the images: `border` repeats the edge, `zeros` is black.
        paste: chance that the moved objects of an item drawn from the batch, which may be its own, are laid over an
            item, in [0, 1]: copy-paste (Ghiasi et al., CVPR 2021).

    Example:
        >>> images, masks = torch.rand(2, 1, 16, 16), torch.ones(2, 2, 16, 16) / 2
        >>> images, masks = BatchAugment()(images, masks, torch.Generator().manual_seed(0))
        >>> images.shape, masks.shape
        (torch.Size([2, 1, 16, 16]), torch.Size([2, 2, 16, 16]))
    """

    warp: WarpRanges | None = field(default_factory=WarpRanges)
    intensity: IntensityRanges | None = field(default_factory=IntensityRanges)
    probability: float = 1.0
    padding: str = "border"
    paste: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        for name in ("probability", "paste"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: wanted a number in [0, 1], got {getattr(self, name)}")
        if self.padding not in ("border", "zeros"):
            raise ValueError(f"padding: wanted border or zeros, got {self.padding!r}")

    def __call__(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the augmented images and masks.

        Args:
            images: B C H W [D] in [0, 1].
            masks: B K H W [D], one-hot or soft.
            generator: where every number comes from.

        Returns:
            B C H W [D] in [0, 1] and B K H W [D], soft, summing to one over K.

        Raises:
            ValueError: images and masks do not belong together.
        """
        if len(images) != len(masks) or images.shape[2:] != masks.shape[2:]:
            raise ValueError(
                f"wanted images and masks of one number and size, got {tuple(images.shape)} and {tuple(masks.shape)}"
            )
        if self.warp is not None:
            warp = draw_warp(self.warp, len(images), images.ndim - 2, generator)
            moved = torch.rand(len(images), generator=generator, device=generator.device) < self.probability
            warped, warped_masks = warp_images(images, warp, self.padding), apply_warp(masks, warp)
            chosen = send(moved, images.device).reshape(-1, *[1] * (images.ndim - 1))
            images, masks = torch.where(chosen, warped, images), torch.where(chosen, warped_masks, masks)
        if self.paste:
            order = send(torch.randperm(len(images), generator=generator, device=generator.device), images.device)
            shown = send(
                torch.rand(len(images), generator=generator, device=generator.device) < self.paste, images.device
            )
            shown = shown.reshape(-1, *[1] * (images.ndim - 1))
            pasted, pasted_masks = laid_over(images[order], masks[order], images, masks)
            images, masks = torch.where(shown, pasted, images), torch.where(shown, pasted_masks, masks)
        if self.intensity is not None:
            images = apply_intensity(images, draw_intensity(self.intensity, len(images), generator))
        return images, masks
