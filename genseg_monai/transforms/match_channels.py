"""Give an image the number of channels and dimensions a network was made for, or tell why that cannot be."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from genseg_monai.errors import UserError

__all__ = ["MatchChannelsd"]


class MatchChannelsd(MapTransform):
    """Dictionary transform: check the dimensions of an image and bring grey and RGB together where nothing is lost.

    A grey picture goes to a colour network as three equal channels; a picture stored as RGB whose channels are equal
    goes to a grey network as one of them. Anything else is refused: a colour photograph turned grey, or a channel
    left out, would give a prediction nobody asked for.

    Args:
        keys: the keys of images ``C H W [D]``.
        channels: wanted number of channels C.
        spatial_dims: wanted number of dimensions behind the channels, 2 or 3.
        allow_missing_keys: whether a key may be missing.

    Example:
        >>> match = MatchChannelsd("image", channels=3, spatial_dims=2)
        >>> tuple(match({"image": torch.zeros(1, 4, 4)})["image"].shape)
        (3, 4, 4)
    """

    def __init__(
        self, keys: KeysCollection, channels: int, spatial_dims: int, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels, self.spatial_dims = channels, spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check and match the keys of a case.

        Args:
            data: the case.

        Returns:
            The case, its images ``channels H W [D]``.

        Raises:
            UserError: the dimensions or the channels differ, and cannot be matched without loss.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = self._match(case[key], str(key))
        return case

    def _match(self, image: torch.Tensor, key: str) -> torch.Tensor:
        where = str(getattr(image, "meta", {}).get("filename_or_obj", key))
        found = image.ndim - 1
        if found != self.spatial_dims:
            raise UserError(
                where,
                f"wanted {self.spatial_dims}D images, got {found}D of size {' x '.join(map(str, image.shape[1:]))}; "
                "use a bundle trained on such images",
            )
        channels = image.shape[0]
        if channels == self.channels:
            return image
        if channels == 1 and self.channels == 3:
            return image.repeat(3, *[1] * found)
        if self.channels == 1 and channels == 3 and bool((image == image[:1]).all()):
            return image[:1]
        raise UserError(
            where, f"wanted {self.channels} channel(s), got {channels}; give images as those the bundle was trained on"
        )
