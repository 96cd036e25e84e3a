"""Segmenters by name: one factory for every architecture the three stages can train."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from monai.networks.nets import BasicUNet
from torch import nn

from genseg_monai.errors import UserError
from genseg_monai.networks.activation import SMOOTH, activation_layer

__all__ = ["Segmenter", "make_segmenter"]


class Segmenter(StrEnum):
    """The architectures on offer."""

    UNET = "unet"
    """The paper's U-Net, 64-128-256-512-1024 channels: 31 M weights in 2D."""
    UNET_SMALL = "unet_small"
    """The same at 32-32-64-128-256 channels: under 6 M weights in 2D and 3D, for a CPU."""


def make_segmenter(
    name: Segmenter | str,
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    image_size: Sequence[int] | None = None,
    **settings: Any,
) -> nn.Module:
    """Build a segmenter."""
    if name not in list(Segmenter):
        raise UserError("segmenter", f"wanted one of {', '.join(Segmenter)}, got {name!r}")
    channels = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": out_channels}
    features = (64, 128, 256, 512, 1024, 64) if name == Segmenter.UNET else (32, 32, 64, 128, 256, 32)
    settings["act"] = activation_layer(settings.get("act", SMOOTH))
    return BasicUNet(**channels, **{"features": features} | settings)
