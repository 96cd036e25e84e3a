"""UniverSeg: segment a query from examples alone, without training.

Butoi et al., "UniverSeg: universal medical image segmentation", ICCV 2023 (arXiv 2304.06131), as its released code has
it (v1: no activation after the cross convolution, no norm, no residual), under the same names of weights. Differences,
none of which changes a result beyond rounding: the cross convolution is split in halves; the query's stream takes the
mean of the supports through it rather than the mean of its outputs, so that the last level never sees single supports;
supports go through in chunks; sides that do not divide are padded; supports may be masked; 2D and 3D.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genseg_monai.errors import UserError
from genseg_monai.networks.cross_conv import CrossBlock, convolve, weighted_mean
from genseg_monai.networks.support_checks import check_ranges, check_shapes
from genseg_monai.networks.support_streams import Parts, Streams, join, supports_through

__all__ = ["UniverSeg"]


class UniverSeg(nn.Module):
    """Segment queries by supports: images with one binary label each.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels C of images.
        out_channels: channels of the logits.
        features: channels of each level, finest first; all but the last also on the way up.
        cross_activation: a leaky ReLU after each cross convolution (the released model has none).
        support_chunk: supports that go through together; None takes all at once. Smaller needs less memory: without
            gradients, at most 3 MB a support of 128 x 128 above a single one.
        recompute: keep no support's features for the backward pass but compute them twice; with `support_chunk` the
            same 3 MB a support then hold in training, for about a third more work.

    Attributes:
        range_checks: whether `forward` checks that values lie in [0, 1]; a loop that made them can spare the look.

    Shape:
        Query `B C H W [D]`, support images `B S C H W [D]`, support labels `B S 1 H W [D]`, all in [0, 1], any S >= 1
        and any sides; support mask `B S`, true for supports that count, at least one a row. Gives logits
        `B out_channels H W [D]`.

    Example:
        >>> import torch
        >>> network = UniverSeg(features=(8, 8, 8, 8))
        >>> images, labels = torch.rand(1, 5, 1, 40, 36), torch.rand(1, 5, 1, 40, 36).round()
        >>> network(images[:, 0], images, labels).shape
        torch.Size([1, 1, 40, 36])
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        features: Sequence[int] = (64, 64, 64, 64),
        cross_activation: bool = False,
        support_chunk: int | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise UserError("universeg", f"wanted spatial_dims 2 or 3, got {spatial_dims}")
        if not features or min(features) < 1:
            raise UserError("universeg features", f"wanted a width of at least 1 for each level, got {tuple(features)}")
        if support_chunk is not None and support_chunk < 1:
            raise UserError("universeg support_chunk", f"wanted at least 1 or None, got {support_chunk}")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.cross_activation = cross_activation
        self.support_chunk = support_chunk
        self.recompute = recompute
        self.range_checks = True

        def block(query_channels: int, support_channels: int, width: int) -> CrossBlock:
            return CrossBlock(spatial_dims, query_channels, support_channels, width, cross_activation=cross_activation)

        wide = list(features)
        self.enc_blocks = nn.ModuleList([block(in_channels, in_channels + 1, wide[0])])
        self.enc_blocks.extend(block(above, above, width) for above, width in zip(wide, wide[1:], strict=False))
        self.dec_blocks = nn.ModuleList(
            block(below + width, below + width, width) for below, width in zip(wide[:0:-1], wide[-2::-1], strict=True)
        )
        conv = Conv[Conv.CONV, spatial_dims](wide[0], out_channels, kernel_size=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
        nn.init.zeros_(conv.bias)
        self.out_conv = nn.ModuleDict({"conv": conv})
        self.pool = Pool[Pool.MAX, spatial_dims](2)

    def forward(
        self, query: Tensor, support_images: Tensor, support_labels: Tensor, support_mask: Tensor | None = None
    ) -> Tensor:
        """Return logits of the query.

        Raises:
            UserError: no support, in all or in a row of the mask; shapes that do not fit; values outside [0, 1].
        """
        dims, channels = self.spatial_dims, self.in_channels
        check_shapes(query, support_images, support_labels, support_mask, spatial_dims=dims, channels=channels)
        supports = torch.cat([support_images, support_labels.to(support_images.dtype)], dim=2)
        weights = supports.new_full(supports.shape[:2], 1 / supports.shape[1])
        if support_mask is not None:
            valid = support_mask.bool()
            counts = valid.sum(1, keepdim=True)
            if self.range_checks and not bool(counts.all()):
                raise UserError("support_mask", "wanted at least one valid support a row, got a row without; drop it")
            weights = valid / counts.to(weights.dtype)
            # what stands in for a support may be anything, NaN included
            supports = supports.where(valid.reshape(*valid.shape, *[1] * (1 + dims)), 0)
        if self.range_checks:
            check_ranges(query=query, support_images=supports[:, :, :-1], support_labels=supports[:, :, -1:])
        step = self.support_chunk or supports.shape[1]
        chunks = [self._prepare(chunk.flatten(0, 1)) for chunk in supports.split(step, dim=1)]
        del supports  # the chunks are copies
        shares = list(weights.split(step, dim=1))
        mean = _total([weighted_mean(*pair) for pair in zip(chunks, shares, strict=True)])
        streams = Streams((self._prepare(query),), (mean,), [(chunk,) for chunk in chunks])
        logits = self._segment(streams, shares)
        for axis in range(2, query.ndim):
            logits = logits.narrow(axis, 0, query.shape[axis])
        return logits

    def drop_last_supports(self) -> None:
        """Remove the supports' convolution of the last block, which the official weights have and nothing reads."""
        [*self.enc_blocks, *self.dec_blocks][-1].support = nn.ModuleDict()

    def _prepare(self, images: Tensor) -> Tensor:
        """Pad `N C H W [D]` to sides that halve often enough, and put channels last in memory."""
        multiple = 2 ** len(self.dec_blocks)
        padding: list[int] = []
        for side in images.shape[2:]:
            padding = [0, -side % multiple] + padding  # F.pad wants the last axis first
        if any(padding):
            images = F.pad(images, padding, mode="replicate")
        last = torch.channels_last if self.spatial_dims == 2 else torch.channels_last_3d
        return images.contiguous(memory_format=last)

    def _segment(self, streams: Streams, shares: list[Tensor]) -> Tensor:
        """Return logits `B K H W [D]`, given each chunk's weights in the mean, `B k`."""
        *downs, deepest = cast(list[CrossBlock], list(self.enc_blocks))
        skips: list[Streams] = []
        for block in downs:
            # single supports of the finest level are met again only where each is activated by itself
            keep = bool(skips) or self.cross_activation
            fine, streams = self._advance(block, streams, shares, pool=True, keep=keep)
            skips.append(fine)
        keep, last = len(skips) > 1 or self.cross_activation, not skips
        (streams,) = self._advance(deepest, streams, shares, keep=keep, last=last)
        for block in cast(list[CrossBlock], list(self.dec_blocks)):
            keep, last = len(skips) > 2 or self.cross_activation, len(skips) == 1
            (streams,) = self._advance(block, streams.beside(skips.pop()), shares, keep=keep, last=last)
        return self.out_conv["conv"](streams.query[0])

    def _advance(
        self,
        block: CrossBlock,
        streams: Streams,
        shares: list[Tensor],
        *,
        pool: bool = False,
        keep: bool = True,
        last: bool = False,
    ) -> list[Streams]:
        """Take all streams through a block.

        Args:
            block: of this level.
            streams: what enters it.
            shares: each chunk's weights in the mean, `B k`.
            pool: give the streams a second time, pooled.
            keep: whether single supports of this size are needed hereafter, or just their mean.
            last: whether nothing but the query is needed hereafter.

        Returns:
            The streams at this size, and where asked pooled.
        """
        half = block.cross.query_half(*join(streams.query))
        results = []
        if self.cross_activation or not last:
            start, through = supports_through(block, half, pool=self.pool if pool else None, keep=keep, last=last)
            run = checkpoint if self.recompute and torch.is_grad_enabled() else _call
            pairs = zip(streams.supports, shares, strict=True)
            results = [run(through, start, share, *parts, use_reentrant=False) for parts, share in pairs]
        if self.cross_activation:
            z_mean = _total([z_mean for z_mean, _ in results])
        else:
            # mean_i (conv_q(q) + conv_s(s_i)) = conv_q(q) + conv_s(mean_i s_i)
            z_mean = half + convolve(join(streams.mean), block.cross.support_weight)
        query = block.new_query(z_mean)
        if last:
            return [Streams((query,), (), [])]
        outputs = []
        for size, stages in enumerate(zip(*(stages for _, stages in results), strict=True)):
            supports: list[Parts] = [(chunk,) for chunk, _ in stages if chunk is not None]
            mean = _total([mean for _, mean in stages])
            outputs.append(Streams((self.pool(query) if size else query,), (mean,), supports))
        return outputs


def _call(function: Callable[..., Any], *arguments: Tensor, use_reentrant: bool) -> Any:
    return function(*arguments)


def _total(tensors: list[Tensor]) -> Tensor:
    return functools.reduce(torch.add, tensors)
