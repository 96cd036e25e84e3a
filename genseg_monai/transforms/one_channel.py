"""Give an image the one channel of a network that takes grey pictures, or tell why that cannot be."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from genseg_monai.errors import UserError

__all__ = ["LUMINANCE", "OneChanneld"]

LUMINANCE = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey: ITU-R BT.601, as Pillow turns colour into grey."""


class OneChanneld(MapTransform):
    """Dictionary transform: check the dimensions of an image, and turn the three channels of a picture into grey.

    Args:
        keys: the keys of images ``C H W [D]``.
        spatial_dims: wanted number of dimensions behind the channels, 2 or 3.
        allow_missing_keys: whether a key may be missing.

    Example:
        >>> tuple(OneChanneld("image", spatial_dims=2)({"image": torch.zeros(3, 4, 4)})["image"].shape)
        (1, 4, 4)
    """

    def __init__(self, keys: KeysCollection, spatial_dims: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spatial_dims = spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with images of one channel.

        Raises:
            UserError: pictures among volumes or the reverse, or other channels than grey and colour.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = self._grey(case[key], str(key))
        return case

    def _grey(self, image: torch.Tensor, key: str) -> torch.Tensor:
        where = str(getattr(image, "meta", {}).get("filename_or_obj", key))
        found = image.ndim - 1
        if found != self.spatial_dims:
            wanted, came = ("pictures", "a volume") if self.spatial_dims == 2 else ("volumes", "a picture")
            size = " x ".join(map(str, image.shape[1:]))
            raise UserError(where, f"wanted {wanted}, as the supports are, got {came} of {size}; give others")
        if len(image) == 1:
            return image
        if len(image) == 3 and found == 2:
            # Y = 0.299 R + 0.587 G + 0.114 B
            return sum(share * image[i : i + 1] for i, share in enumerate(LUMINANCE))  # type: ignore[return-value]
        raise UserError(where, f"wanted grey or colour, 1 or 3 channels, got {len(image)}; give one channel")
