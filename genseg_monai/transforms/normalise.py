"""Bring intensities to [0, 1] and label values to class indices, as the plan of a data set says."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from torch import Tensor

from genseg_monai.errors import UserError

__all__ = ["MapLabel", "MapLabeld", "Normalisation", "Normalise", "Normalised"]

_PIECE, _VOXELS = 16, 2**20  # rows, or voxels, worked on at once
_MOST_SAMPLES = 2**22  # a percentile of four million voxels is as good as one of four hundred million


class Normalisation(StrEnum):
    """Where the two intensities that become 0 and 1 come from."""

    RANGE = "range"
    PERCENTILE = "percentile"
    WINDOW = "window"


class Normalise(Transform):
    """Map intensities linearly to [0, 1] and cut off what lies outside.

    Args:
        mode: `range`: `lower` and `upper` are intensities (0 and 255 of an 8-bit picture); `window`: they are the
            ends of a CT window in HU; `percentile`: they are percentiles, taken of each image and channel.
        lower: becomes 0.
        upper: becomes 1; above `lower`.

    Values that are no number become 0 and do not count in a percentile. An image of one value becomes 0.

    Raises:
        ValueError: an unknown mode, or bounds in the wrong order.

    Example:
        >>> Normalise("range", 0, 255)(torch.tensor([[0.0, 51.0, 255.0, 300.0]]))
        tensor([[0.0000, 0.2000, 1.0000, 1.0000]])
    """

    def __init__(self, mode: Normalisation | str, lower: float, upper: float) -> None:
        if mode not in list(Normalisation):
            raise ValueError(f"mode: wanted one of {', '.join(Normalisation)}, got {mode!r}")
        if not lower < upper:
            raise ValueError(f"lower, upper: wanted lower < upper, got {lower} and {upper}")
        if mode == Normalisation.PERCENTILE and not (lower >= 0 and upper <= 100):
            raise ValueError(f"lower, upper: wanted percentiles in [0, 100], got {lower} and {upper}")
        self.mode = Normalisation(mode)
        self.lower = float(lower)
        self.upper = float(upper)

    def __call__(self, image: Tensor | np.ndarray) -> Tensor:
        """Return the image, C H W [D], as float32 in [0, 1]; a `MetaTensor` keeps what it knows."""
        given = torch.as_tensor(image)
        values = given.as_tensor() if isinstance(given, MetaTensor) else given
        out = torch.empty(values.shape, dtype=torch.float32, device=values.device)
        for channel, result in zip(values, out, strict=True):
            lower, upper = self.lower, self.upper
            if self.mode is Normalisation.PERCENTILE:
                lower, upper = _percentiles(channel, lower, upper)
            span = upper - lower if upper > lower else torch.inf
            # a piece at a time, so that a large volume is in memory once and not five times
            for piece, place in zip(channel.split(_PIECE), result.split(_PIECE), strict=True):
                # float64 on the way: a 16-bit or HU value less the lower bound keeps all its digits
                place.copy_(((piece.to(torch.float64) - lower) / span).nan_to_num_(nan=0.0).clamp_(0, 1))
        if isinstance(given, MetaTensor):
            return MetaTensor(out, meta=given.meta, applied_operations=given.applied_operations)
        return out


class Normalised(MapTransform):
    """Dictionary form of `Normalise`.

    Args:
        keys: the images.
        mode: `range`, `percentile` or `window`.
        lower: becomes 0.
        upper: becomes 1.
        allow_missing_keys: leave out keys that are not there.

    Example:
        >>> float(Normalised("image", "window", -160, 240)({"image": torch.tensor([[40.0]])})["image"])
        0.5
    """

    def __init__(
        self,
        keys: KeysCollection,
        mode: Normalisation | str,
        lower: float,
        upper: float,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalise = Normalise(mode, lower, upper)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its images in [0, 1]."""
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = self.normalise(case[key])
        return case


class MapLabel(Transform):
    """Replace each raw value of a label by its class index.

    Args:
        values: raw value -> class index, 0 for background; several values may share a class.

    Raises:
        ValueError: no values, or an index that is none.

    Example:
        >>> MapLabel({0: 0, 255: 1})(torch.tensor([[0.0, 255.0]]))
        tensor([[0, 1]], dtype=torch.uint8)
    """

    def __init__(self, values: Mapping[int, int]) -> None:
        if not values:
            raise ValueError("values: wanted raw value -> class index, got none")
        if not all(isinstance(index, int) and 0 <= index <= 255 for index in values.values()):
            raise ValueError(f"values: wanted class indices of 0 to 255, got {dict(values)}")
        self.values = {float(value): index for value, index in sorted(values.items())}

    def __call__(self, label: Tensor | np.ndarray) -> Tensor:
        """Return the label, 1 H W [D], as class indices, uint8.

        Raises:
            UserError: it has values that are not listed; the message has the file and the values.
        """
        raw = torch.as_tensor(label)
        values = raw.as_tensor() if isinstance(raw, MetaTensor) else raw
        # a piece at a time: what sorts them all needs tenfold their memory
        pieces = values.reshape(-1).split(_VOXELS)
        found = torch.unique(torch.cat([torch.unique(piece) for piece in pieces]))
        unknown = [value for value in found.tolist() if float(value) not in self.values]
        if unknown:
            where = label.meta.get("filename_or_obj", "label") if isinstance(label, MetaTensor) else "label"
            known = ", ".join(f"{value:g}" for value in self.values)
            came = ", ".join(f"{value:g}" for value in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
            raise UserError(where, f"wanted the label values {known}, got also {came}; list them in label_values")
        table = torch.tensor([self.values[float(value)] for value in found.tolist()], dtype=torch.uint8)
        mapped = torch.cat([table.to(raw.device)[torch.searchsorted(found, piece)] for piece in pieces]).reshape(
            raw.shape
        )
        return (
            MetaTensor(mapped, meta=raw.meta, applied_operations=raw.applied_operations)
            if isinstance(raw, MetaTensor)
            else mapped
        )


class MapLabeld(MapTransform):
    """Dictionary form of `MapLabel`.

    Args:
        keys: the labels.
        values: raw value -> class index.
        allow_missing_keys: leave out keys that are not there.

    Example:
        >>> MapLabeld("label", {0: 0, 255: 1})({"label": torch.tensor([[0, 255]])})["label"]
        tensor([[0, 1]], dtype=torch.uint8)
    """

    def __init__(self, keys: KeysCollection, values: Mapping[int, int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.map_label = MapLabel(values)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its labels as class indices."""
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = self.map_label(case[key])
        return case


def _percentiles(channel: Tensor, lower: float, upper: float) -> tuple[float, float]:
    """Return two percentiles of what is a number, at most about four million voxels of it, evenly spread."""
    values = channel.detach().cpu().numpy().ravel()
    values = values[:: max(1, values.size // _MOST_SAMPLES)]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, [lower, upper])
    return float(low), float(high)
