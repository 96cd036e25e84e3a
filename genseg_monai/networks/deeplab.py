"""DeepLabV3+ for 2D and 3D.

Chen et al., "Encoder-decoder with atrous separable convolution for semantic image segmentation", ECCV 2018 (arXiv
1802.02611), on MONAI's ResNet. Differences: plain in place of separable convolutions, as is usual on a ResNet; group
norm, since batches are tiny; no pretrained weights; one class for 2D and 3D.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from monai.networks.nets.resnet import ResNet, get_inplanes, resnet_params
from torch import Tensor, nn

from genseg_monai.errors import UserError
from genseg_monai.networks.activation import SMOOTH, activation_layer, replace_layers

__all__ = ["DeepLabV3Plus"]

_NORM = ("group", {"num_groups": 8})


class DeepLabV3Plus(nn.Module):
    """Atrous pyramid on a ResNet, refined with its fine features.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes K, background included.
        backbone: MONAI's name of the ResNet: resnet10, resnet18, resnet34, resnet50, resnet101, resnet152 or resnet200.
        rates: dilations of the pyramid, in units of 16 voxels.
        width: channels of the pyramid and of the decoder; divides by 8.
        fine_width: channels that the fine features are brought down to; divides by 8.
        act: activation, as MONAI names it.
        norm: norm, as MONAI names it.

    Raises:
        UserError: no such backbone.

    Shape:
        `B in_channels H W [D]`, any size from 16 on, to logits `B K H W [D]`.

    Example:
        >>> network = DeepLabV3Plus(2, in_channels=1, out_channels=2, backbone="resnet10", width=16)
        >>> network(torch.zeros(1, 1, 50, 41)).shape
        torch.Size([1, 2, 50, 41])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: str = "resnet50",
        rates: Sequence[int] = (6, 12, 18),
        width: int = 256,
        fine_width: int = 48,
        act: str | tuple = SMOOTH,
        norm: str | tuple = _NORM,
    ) -> None:
        super().__init__()
        if backbone not in resnet_params:
            raise UserError("deeplab backbone", f"wanted one of {', '.join(resnet_params)}, got {backbone!r}")
        act = activation_layer(act)
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        block, layers, _, bias, _ = resnet_params[backbone]
        resnet = ResNet(
            block,
            layers,
            get_inplanes(),
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            shortcut_type="B",  # type A, which the smaller ones default to, cuts the gradient
            feed_forward=False,
            bias_downsample=bias,
        )
        # MONAI's ResNet hands its arguments for these to its stem alone
        replace_layers(resnet, nn.ReLU, lambda _: get_act_layer(act))
        replace_layers(
            resnet,
            (nn.BatchNorm2d, nn.BatchNorm3d),
            lambda old: get_norm_layer(norm, spatial_dims=spatial_dims, channels=old.num_features),
        )
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.act, resnet.maxpool, resnet.layer1)
        self.deep = nn.Sequential(resnet.layer2, resnet.layer3, _dilated(resnet.layer4))
        expansion = 4 if block == "bottleneck" else 1
        fine, coarse = (get_inplanes()[level] * expansion for level in (0, 3))

        def conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Module:
            return Convolution(
                spatial_dims, inputs, outputs, kernel_size=kernel, dilation=dilation, act=act, norm=norm, bias=False
            )

        self.pyramid = nn.ModuleList([conv(coarse, width, 1), *(conv(coarse, width, 3, rate) for rate in rates)])
        self.pool = nn.Sequential(Pool[Pool.ADAPTIVEAVG, spatial_dims](1), conv(coarse, width, 1))
        self.project = conv(width * (len(rates) + 2), width, 1)
        self.reduce = conv(fine, fine_width, 1)
        self.refine = nn.Sequential(conv(width + fine_width, width, 3), conv(width, width, 3))
        self.classify = Conv[Conv.CONV, spatial_dims](width, out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits `B K H W [D]`."""
        fine = self.stem(image)
        coarse = self.deep(fine)
        # the whole image's mean stands beside each voxel's surroundings at several distances
        parts = [self.pool(coarse).expand(list(coarse.shape[:1]) + [-1] + list(coarse.shape[2:]))]
        for branch in self.pyramid:
            parts.append(branch(coarse))
        context = self._resize(self.project(torch.cat(parts, dim=1)), fine)
        logits = self.classify(self.refine(torch.cat([context, self.reduce(fine)], dim=1)))
        return self._resize(logits, image)

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[2:], mode=self.mode, align_corners=False)


def _dilated(stage: nn.Module) -> nn.Module:
    """Turn a ResNet stage's stride 2 into dilation 2: the same field of view, at twice the resolution."""
    for module in stage.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            ones = (1,) * len(module.kernel_size)
            module.stride = ones
            if module.kernel_size != ones:
                module.dilation = module.padding = (2,) * len(ones)
    return stage
