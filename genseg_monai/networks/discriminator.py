"""The critic of stage I: does this patch of an image belong to its mask?

PatchGAN of pix2pix (Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017, arXiv
1611.07004), with MONAI's layers. Differences: instance norm in place of batch norm, since batches are tiny and no
running statistics should pass between real and synthetic images; 2D and 3D.
"""

from __future__ import annotations

import torch
from monai.networks.nets import PatchDiscriminator as MonaiPatchDiscriminator
from torch import Tensor, nn

from genseg_monai.errors import UserError

__all__ = ["PatchDiscriminator"]


class PatchDiscriminator(nn.Module):
    """Judge overlapping patches of an image, given its mask.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels C.
        classes: mask classes K, background included.
        width: channels after the first convolution, doubled by each further one.
        layers: convolutions between the first and the last; 3 see patches of 70 voxels a side.

    Shape:
        Images `B C H W [D]` and masks `B K H W [D]`, sides of at least `smallest`, to logits `B 1 h w [d]`.

    Example:
        >>> discriminator = PatchDiscriminator(2, in_channels=3, classes=2, width=8)
        >>> discriminator(torch.zeros(1, 3, 64, 64), torch.zeros(1, 2, 64, 64)).shape
        torch.Size([1, 1, 6, 6])
    """

    def __init__(self, spatial_dims: int, in_channels: int, classes: int, *, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        if layers < 1:
            raise UserError("discriminator layers", f"wanted at least 1, got {layers}")
        self.smallest = 3 * 2**layers
        self.network = MonaiPatchDiscriminator(
            spatial_dims=spatial_dims,
            channels=width,
            in_channels=in_channels + classes,
            num_layers_d=layers,
            activation=("leakyrelu", {"negative_slope": 0.2}),
            norm=("instance", {"affine": True}),
        )

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        """Return one logit a patch: large where the image looks real and fits the mask."""
        shape = list(image.shape)
        if min(shape[2:]) < self.smallest:
            raise ValueError(f"wanted images whose sides are at least {self.smallest}, got {shape}; use fewer layers")
        # MONAI's discriminator returns the output of every layer; the last one holds the logits
        return self.network(torch.cat([image, masks], dim=1))[-1]
