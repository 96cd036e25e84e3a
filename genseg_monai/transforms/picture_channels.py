"""Give images one number of channels, grey or colour, or tell why that cannot be."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from genseg_monai.errors import UserError
from genseg_monai.transforms.one_channel import luminance

__all__ = ["PictureChannelsd"]


class PictureChannelsd(MapTransform):
    """Dictionary transform: check the dimensions of an image, and turn grey into colour or colour into grey.

    Args:
        keys: the keys of images ``C H W [D]``.
        spatial_dims: wanted number of dimensions behind the channels, 2 or 3.
        channels: wanted number of channels, 1 or 3.
        allow_missing_keys: whether a key may be missing.

    Example:
        >>> match = PictureChannelsd("image", spatial_dims=2, channels=1)
        >>> tuple(match({"image": torch.zeros(3, 4, 4)})["image"].shape)
        (1, 4, 4)
    """

    def __init__(
        self, keys: KeysCollection, spatial_dims: int, channels: int = 1, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if channels not in (1, 3):
            raise ValueError(f"channels: wanted 1 or 3, got {channels}")
        self.spatial_dims, self.channels = spatial_dims, channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with images of the wanted channels.

        Raises:
            UserError: pictures among volumes or the reverse, or other channels than grey and colour.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = self._matched(case[key], str(key))
        return case

    def _matched(self, image: torch.Tensor, key: str) -> torch.Tensor:
        where = str(getattr(image, "meta", {}).get("filename_or_obj", key))
        found = image.ndim - 1
        if found != self.spatial_dims:
            wanted, came = ("pictures", "a volume") if self.spatial_dims == 2 else ("volumes", "a picture")
            size = " x ".join(map(str, image.shape[1:]))
            raise UserError(where, f"wanted {wanted}, as the supports are, got {came} of {size}; give others")
        if len(image) not in ((1, 3) if found == 2 else (1,)):
            raise UserError(where, f"wanted grey or colour, 1 or 3 channels, got {len(image)}; give one channel")
        if len(image) == self.channels:
            return image
        return luminance(image) if self.channels == 1 else image.repeat(3, *[1] * found)
