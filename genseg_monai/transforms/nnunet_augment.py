"""The augmentation list of nnU-Net, from MONAI's transforms: what a recipe that is known to work does to real pairs.

Isensee et al., "nnU-Net", Nature Methods 2021, supplement section 4: rotation and scaling, Gaussian noise and blur,
brightness, contrast, simulated low resolution, gamma (also of the inverted image), mirroring. Differences: images lie
in [0, 1] instead of having unit variance, so noise and brightness are scaled to that; whole images instead of patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandAxisFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSimulateLowResolutiond,
)
from monai.utils import convert_to_tensor
from torch import Tensor

from genseg_monai.transforms.mask_warp import WarpRanges

__all__ = ["NnUNetAugment"]


@dataclass(frozen=True)
class NnUNetAugment:
    """Augment a batch of images and masks alike, one item after the other.

    Args:
        mirror: probability of a mirror image along one axis, in [0, 1]; 0 where left and right are classes.
        rotate: largest angle in degrees; None takes 180 for pictures and 30 for volumes.

    Example:
        >>> images, masks = torch.rand(2, 1, 32, 32), torch.ones(2, 2, 32, 32) / 2
        >>> images, masks = NnUNetAugment()(images, masks, torch.Generator().manual_seed(0))
        >>> images.shape, bool(masks.sum(1).sub(1).abs().max() < 1e-5)
        (torch.Size([2, 1, 32, 32]), True)
    """

    mirror: float = 0.5
    rotate: float | None = None
    _lists: dict[int, Compose] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.mirror <= 1:
            raise ValueError(f"mirror: wanted a probability in [0, 1], got {self.mirror}")

    @property
    def warp(self) -> WarpRanges:
        """What is mirrored, for whoever mirrors a prediction too."""
        return WarpRanges(flip=self.mirror)

    def __call__(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the augmented images and masks.

        Args:
            images: B C H W [D] in [0, 1].
            masks: B K H W [D], one-hot or soft.
            generator: where the seed of each item comes from.

        Returns:
            B C H W [D] in [0, 1] and B K H W [D], soft, summing to one over K.
        """
        dims = images.ndim - 2
        transforms = self._lists.setdefault(dims, self._build(dims))
        seeds = torch.randint(2**31, (len(images),), generator=generator, device=generator.device)
        out: list[dict[str, Any]] = []
        for image, mask, seed in zip(images, masks, seeds.tolist(), strict=True):
            transforms.set_random_state(state=np.random.RandomState(seed))  # noqa: NPY002 - the kind MONAI wants
            out.append(transforms({"image": image, "label": mask}))
        moved = torch.stack([_plain(item["image"]) for item in out]).clamp(0, 1)
        moved_masks = torch.stack([_plain(item["label"]) for item in out]).clamp(0, 1)
        return moved, moved_masks / moved_masks.sum(1, keepdim=True).clamp(min=1e-6)

    def _build(self, dims: int) -> Compose:
        angle = math.radians(self.rotate if self.rotate is not None else 180 if dims == 2 else 30)
        both = ["image", "label"]
        border = {"keys": both, "mode": "bilinear", "padding_mode": "border"}
        return Compose(
            [
                RandAffined(**border, prob=0.2, rotate_range=[(-angle, angle)] * (1 if dims == 2 else 3)),
                RandAffined(**border, prob=0.2, scale_range=[(-0.3, 0.4)] * dims),
                RandGaussianNoised("image", prob=0.1, std=0.06),
                RandGaussianSmoothd("image", (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.2),
                RandScaleIntensityd("image", factors=0.25, prob=0.15),
                RandScaleIntensityFixedMeand("image", factors=0.25, prob=0.15, preserve_range=True),
                RandSimulateLowResolutiond(
                    "image", prob=0.25, zoom_range=(0.5, 1.0), upsample_mode="bilinear" if dims == 2 else "trilinear"
                ),
                RandAdjustContrastd("image", prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
                RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
                RandAxisFlipd(both, prob=self.mirror),
            ]
        )


def _plain(value: Any) -> Tensor:
    plain: Tensor = convert_to_tensor(value, track_meta=False)
    return plain
