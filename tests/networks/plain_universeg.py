"""UniverSeg as its paper defines it, support by support and without any speed-up: what the package must equal."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genseg_monai.networks.cross_conv import CrossBlock
from genseg_monai.networks.universeg import UniverSeg

__all__ = ["plain_universeg"]


def plain_universeg(network: UniverSeg, query: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Return logits `B K H W [D]` by the weights of ``network``; sides must divide by 8."""
    pool = F.max_pool2d if query.ndim == 4 else F.max_pool3d
    supports = list(torch.cat([images, labels], dim=2).unbind(1))
    skips = []
    *downs, deepest = network.enc_blocks
    for block in downs:
        query, supports = _block(block, query, supports, network.cross_activation)
        skips.append((query, supports))
        query, supports = pool(query, 2), [pool(support, 2) for support in supports]
    query, supports = _block(deepest, query, supports, network.cross_activation)
    for block in network.dec_blocks:
        skip, skipped = skips.pop()
        query = torch.cat([_upsample(query), skip], dim=1)
        supports = [torch.cat([_upsample(low), high], dim=1) for low, high in zip(supports, skipped, strict=True)]
        query, supports = _block(block, query, supports, network.cross_activation)
    return network.out_conv["conv"](query)


def _block(
    block: CrossBlock, query: Tensor, supports: list[Tensor], cross_activation: bool
) -> tuple[Tensor, list[Tensor]]:
    cross, query_conv, support_conv = block.cross.cross_conv, block.target["vmapped"]["conv"], block.support_conv
    # z_i = conv([q, s_i])
    z = [cross(torch.cat([query, support], dim=1)) for support in supports]
    if cross_activation:
        z = [_activate(each) for each in z]
    # q' = A conv_t(mean_i z_i), s_i' = A conv_s(z_i)
    return _activate(query_conv(torch.stack(z).mean(0))), [_convolved(support_conv, each) for each in z]


def _convolved(conv: nn.Module, values: Tensor) -> Tensor:
    return _activate(conv(values))


def _activate(values: Tensor) -> Tensor:
    return F.leaky_relu(values, 0.01)


def _upsample(values: Tensor) -> Tensor:
    mode = "bilinear" if values.ndim == 4 else "trilinear"
    return F.interpolate(values, scale_factor=2, mode=mode, align_corners=True)
