"""Segmenters by name: one factory for every architecture the three stages can train."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import torch.nn.functional as F
from monai.networks.layers.utils import get_act_layer
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR
from torch import Tensor, nn

from genseg_monai.errors import UserError
from genseg_monai.networks.activation import SMOOTH, activation_layer, replace_layers
from genseg_monai.networks.deeplab import DeepLabV3Plus
from genseg_monai.networks.in_context_network import SUPPORT_SIZE, InContextNetwork

__all__ = ["PadToFit", "Segmenter", "make_segmenter"]


class Segmenter(StrEnum):
    """The architectures on offer."""

    UNET = "unet"
    """The paper's U-Net, 64-128-256-512-1024 channels: 31.1 M weights in 2D, 90.5 M in 3D. Sides of 32 or more."""
    UNET_SMALL = "unet_small"
    """The same at 32-32-64-128-256 channels: 2.0 M weights in 2D, 5.8 M in 3D; fit for a CPU. Sides of 32 or more."""
    DEEPLAB = "deeplab"
    """DeepLabV3+ on a ResNet; settings as of `DeepLabV3Plus`. Sides of 16 or more."""
    SWIN_UNETR = "swin_unetr"
    """MONAI's SwinUNETR, 24 features. Any size: pads."""
    SEGRESNET = "segresnet"
    """MONAI's SegResNet, 32 filters. Any size: pads."""
    DYNUNET = "dynunet"
    """MONAI's DynUNet, as nnU-Net would lay it out for cubic voxels. Any size: pads."""
    DYNUNET_DEEP = "dynunet_deep"
    """The same, supervised at every depth but the two lowest: in training `B S K H W [D]`, S outputs, finest first."""
    UNIVERSEG = "universeg"
    """UniverSeg with `support_size` training cases among its 1.1 M weights: patient data. Any size: pads."""


class PadToFit(nn.Module):
    """Give a network the sizes it can take: pad at the end of each axis with edge voxels, and crop its output.

    Args:
        network: from `B C H W [D]` to `B K H W [D]`.
        multiple: every side given to the network divides by it.
        smallest: and is at least this.

    Example:
        >>> import torch
        >>> PadToFit(torch.nn.AvgPool2d(1), multiple=8, smallest=16)(torch.zeros(1, 1, 20, 13)).shape
        torch.Size([1, 1, 20, 13])
    """

    def __init__(self, network: nn.Module, *, multiple: int, smallest: int) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple
        self.smallest = smallest

    def forward(self, image: Tensor) -> Tensor:
        """Return logits `B K H W [D]`, of the image's size."""
        padding: list[int] = []
        for side in image.shape[2:]:
            # F.pad wants the last axis first
            padding = [0, max(self.smallest - side, -side % self.multiple)] + padding
        logits = self.network(F.pad(image, padding, mode="replicate"))
        # counted from the end: a network that is supervised at several depths has one more axis before
        for axis in range(2 - image.ndim, 0):
            logits = logits.narrow(axis, 0, image.shape[axis])
        return logits


def make_segmenter(
    name: Segmenter | str,
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    image_size: Sequence[int] | None = None,
    support_size: int = SUPPORT_SIZE,
    **settings: Any,
) -> nn.Module:
    """Build a segmenter.

    None of them has running statistics or dropout, unless the settings ask for it: what a batch gives then depends on
    nothing but the weights, as the hypergradient wants it.

    Args:
        name: a `Segmenter` or its name.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes K, background included.
        image_size: `H W [D]` it will mostly see; sets the depth of ``dynunet``, is the one size that ``universeg``
            takes, and is checked by the others.
        support_size: labelled images that ``universeg`` holds; the others hold none.
        **settings: arguments of the network's class, over the defaults; the activation is called ``act`` for all.

    Returns:
        A module from `B in_channels H W [D]` to logits `B K H W [D]`.

    Raises:
        UserError: no such segmenter, a setting it does not have, or an image size it cannot take.

    Example:
        >>> import torch
        >>> network = make_segmenter("unet_small", spatial_dims=2, in_channels=3, out_channels=2)
        >>> network(torch.zeros(1, 3, 64, 48)).shape
        torch.Size([1, 2, 64, 48])
    """
    if name not in list(Segmenter):
        raise UserError("segmenter", f"wanted one of {', '.join(Segmenter)}, got {name!r}")
    if spatial_dims not in (2, 3):
        raise UserError("segmenter", f"wanted spatial_dims 2 or 3, got {spatial_dims}")
    name = Segmenter(name)
    smallest = _SMALLEST.get(name, 1)
    if image_size is not None and (len(image_size) != spatial_dims or min(image_size) < smallest):
        problem = f"wanted {spatial_dims} sides of at least {smallest}, got {tuple(image_size)}"
        raise UserError(f"segmenter {name}", problem)
    channels = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": out_channels}
    if name == Segmenter.UNIVERSEG:
        settings["support_size"] = support_size
    else:
        settings["act"] = activation_layer(settings.get("act", SMOOTH))
    try:
        return _MAKERS[name](channels, settings, image_size)
    except TypeError as error:
        raise UserError(f"segmenter {name}", f"wanted settings that its class has, got {settings} ({error})") from error


_SMALLEST = {Segmenter.UNET: 32, Segmenter.UNET_SMALL: 32, Segmenter.DEEPLAB: 16}


def _unet(channels: dict, settings: dict, image_size: Sequence[int] | None) -> nn.Module:
    return BasicUNet(**channels, **{"features": (64, 128, 256, 512, 1024, 64)} | settings)


def _unet_small(channels: dict, settings: dict, image_size: Sequence[int] | None) -> nn.Module:
    return BasicUNet(**channels, **{"features": (32, 32, 64, 128, 256, 32)} | settings)


def _deeplab(channels: dict, settings: dict, image_size: Sequence[int] | None) -> nn.Module:
    return DeepLabV3Plus(**channels, **settings)


def _swin_unetr(channels: dict, settings: dict, image_size: Sequence[int] | None) -> nn.Module:
    act = settings.pop("act")
    network = SwinUNETR(**channels, **{"feature_size": 24} | settings)
    # the attention's GELU stays; the convolution blocks' activation has no argument of its own
    replace_layers(network, nn.LeakyReLU, lambda _: get_act_layer(act))
    # five halvings, and instance norm wants more than one voxel after them
    return PadToFit(network, multiple=32, smallest=64)


def _segresnet(channels: dict, settings: dict, image_size: Sequence[int] | None) -> nn.Module:
    network = SegResNet(**channels, **{"init_filters": 32} | settings)
    multiple = 2 ** (len(network.blocks_down) - 1)
    return PadToFit(network, multiple=multiple, smallest=multiple)


def _halvings(channels: dict, image_size: Sequence[int] | None) -> int:
    """Return how often a DynUNet halves: as nnU-Net, while 4 voxels are left, at most 7 (2D) or 5 (3D) times."""
    if image_size is None:
        return 4
    return max(2, min(min(image_size).bit_length() - 3, 7 if channels["spatial_dims"] == 2 else 5))


def _dynunet(channels: dict, settings: dict, image_size: Sequence[int] | None) -> nn.Module:
    settings = {"act_name" if name == "act" else name: value for name, value in settings.items()}
    halvings = _halvings(channels, image_size)
    layout = {
        "kernel_size": [3] * (halvings + 1),
        "strides": [1] + [2] * halvings,
        "upsample_kernel_size": [2] * halvings,
    }
    network = DynUNet(**channels, **layout | settings)
    return PadToFit(network, multiple=2**halvings, smallest=2 ** (halvings + 1))


def _dynunet_deep(channels: dict, settings: dict, image_size: Sequence[int] | None) -> nn.Module:
    halvings = _halvings(channels, image_size)
    return _dynunet(channels, {"deep_supervision": True, "deep_supr_num": max(1, halvings - 2)} | settings, image_size)


def _universeg(channels: dict, settings: dict, image_size: Sequence[int] | None) -> nn.Module:
    if image_size is None:
        raise UserError("segmenter universeg", "wanted the image_size of its supports, got none")
    return InContextNetwork(**channels, image_size=image_size, **settings)


_MAKERS = {
    Segmenter.UNET: _unet,
    Segmenter.UNET_SMALL: _unet_small,
    Segmenter.DEEPLAB: _deeplab,
    Segmenter.SWIN_UNETR: _swin_unetr,
    Segmenter.SEGRESNET: _segresnet,
    Segmenter.DYNUNET: _dynunet,
    Segmenter.UNIVERSEG: _universeg,
    Segmenter.DYNUNET_DEEP: _dynunet_deep,
}
