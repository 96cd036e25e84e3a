"""The streams of UniverSeg: a query, its supports, and the supports' mean; and how supports pass a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from genseg_monai.networks.cross_conv import (
    CrossBlock,
    activate,
    compose,
    convolve,
    interact,
    neighbours,
    weighted_mean,
)

__all__ = ["Parts", "Streams", "join", "supports_through"]

# one tensor, or two whose channels belong together: the lower, yet to be upsampled, and the skipped
Parts = tuple[Tensor, ...]
# supports (or None where no longer needed) and their weighted mean
Stage = tuple[Tensor | None, Tensor]


class Streams(NamedTuple):
    """What goes from one block to the next.

    Attributes:
        query: `B C H W [D]`.
        mean: the supports' weighted mean, of the same shape.
        supports: `(B k) C H W [D]` a chunk of k supports.
    """

    query: Parts
    mean: Parts
    supports: list[Parts]

    def beside(self, skip: Streams) -> Streams:
        """Return these streams with those of the finer level, which wait for them, as second parts."""
        supports = [low + high for low, high in zip(self.supports, skip.supports, strict=False)]
        return Streams(self.query + skip.query, self.mean + skip.mean, supports)


def supports_through(
    block: CrossBlock, half: Tensor, *, pool: Callable[[Tensor], Tensor] | None, keep: bool, last: bool
) -> tuple[Tensor, Callable[..., tuple[Tensor | None, list[Stage]]]]:
    """Return a function of (start, a chunk's weights in the mean, the chunk in parts), and its first argument.

    Its result is the mean of the activated z, if they are, and the supports at this size, and where asked pooled.
    """
    # taken here, not in `through`: computed a second time, it must meet the weights of this very call
    support_weight = block.cross.support_weight
    if last:
        return half, lambda start, share, *parts: (_activated(start, share, parts, support_weight)[1], [])
    weight, bias = block.support_conv.weight, block.support_conv.bias
    # two convolutions in one where supports have few channels: conv(conv_q(q)) + W neighbours(s)
    narrow = not block.cross_activation and support_weight[0].numel() < len(support_weight)
    composed = compose(support_weight, weight) if narrow else support_weight
    start = convolve((half,), weight, bias) if narrow else half

    def through(start: Tensor, share: Tensor, *parts: Tensor) -> tuple[Tensor | None, list[Stage]]:
        z_mean = None
        if narrow:
            new = interact(start, (neighbours(*parts),), composed)
        elif block.cross_activation:
            z, z_mean = _activated(start, share, parts, support_weight)
            new = convolve((z,), weight, bias)
        else:
            new = convolve((interact(start, join(parts), support_weight),), weight, bias)
        activate(new)
        stages: list[Stage] = [(new if keep else None, weighted_mean(new, share))]
        if pool is not None:
            pooled = pool(new)
            stages.append((pooled, weighted_mean(pooled, share)))
        return z_mean, stages

    return start, through


def _activated(half: Tensor, share: Tensor, parts: Parts, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return A z_i of a chunk, and their weighted mean."""
    z = activate(interact(half, join(parts), weight))
    return z, weighted_mean(z, share)


def join(parts: Parts) -> Parts:
    """Bring the lower of two parts to the size of the skipped one."""
    if len(parts) == 1:
        return parts
    low, skip = parts
    return F.interpolate(low, scale_factor=2, mode=_LINEAR[low.ndim], align_corners=True), skip


_LINEAR = {4: "bilinear", 5: "trilinear"}
