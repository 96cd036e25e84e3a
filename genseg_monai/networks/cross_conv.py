"""Cross convolution: a query and each of its supports, convolved together.

Butoi et al., "UniverSeg: universal medical image segmentation", ICCV 2023 (arXiv 2304.06131), equations 3 to 6.
Differences: the convolution is split into its half on the query, which is computed once, and its half on the
supports, so that no query is copied beside each support; 2D and 3D; supports may weigh differently.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from einops import rearrange
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

__all__ = [
    "CrossBlock",
    "CrossConv",
    "activate",
    "compose",
    "convolve",
    "interact",
    "neighbours",
    "weighted_mean",
]

_SLOPE = 0.01  # of the leaky ReLU


def convolve(parts: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a convolution of width 3 that keeps the size, of channels that come in parts `N C H W [D]`.

    Example:
        >>> import torch
        >>> image, weight = torch.ones(1, 2, 4, 4), torch.ones(5, 3, 3, 3)
        >>> convolve((image, image[:, :1]), weight).shape
        torch.Size([1, 5, 4, 4])
    """
    convolution = F.conv2d if weight.ndim == 4 else F.conv3d
    # conv([a, b]) = conv_a(a) + conv_b(b): parts need no concatenation, and a sum in place no copy
    pieces = weight.split([part.shape[1] for part in parts], dim=1)
    total = convolution(parts[0], pieces[0], bias, padding=1)
    for part, piece in zip(parts[1:], pieces[1:], strict=True):
        total.add_(convolution(part, piece, padding=1))
    return total


def interact(query_half: Tensor, supports: tuple[Tensor, ...], weight: Tensor) -> Tensor:
    """Return z_i = conv_q(q) + conv_s(s_i).

    Args:
        query_half: conv_q(q), bias included, `B Co H W [D]`.
        supports: s `(B S) C H W [D]`, its channels in parts.
        weight: of conv_s.

    Returns:
        z `(B S) Co H W [D]`.
    """
    z = convolve(supports, weight)
    if len(query_half) == 1:
        return z.add_(query_half)
    # out of place: autograd would copy the whole of z to track a change of a view
    return (z.unflatten(0, (len(query_half), -1)) + query_half[:, None]).flatten(0, 1)


def neighbours(supports: Tensor) -> Tensor:
    """Return each voxel's neighbours, 3 a side and zero outside, as channels: `N (C 3 3 [3]) H W [D]`."""
    sides = supports.shape[2:]
    padded = F.pad(supports, [1, 1] * len(sides)).movedim(1, -1)
    shifts = itertools.product(range(3), repeat=len(sides))
    shifted = [
        padded[(slice(None), *(slice(start, start + side) for start, side in zip(shift, sides, strict=True)))]
        for shift in shifts
    ]
    return torch.stack(shifted, dim=-1).flatten(-2).movedim(-1, 1)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Return W such that conv(neighbours(s), W) = conv(conv(s, first), second), image borders included.

    Where s has few channels, the one convolution is cheaper than the two, and what lies between is never held.

    Args:
        first: weight `M C 3 3 [3]`.
        second: weight `O M 3 3 [3]`.

    Returns:
        Weight `O (C 3 3 [3]) 3 3 [3]`.

    Example:
        >>> import torch
        >>> image, first, second = torch.rand(1, 2, 9, 9), torch.rand(8, 2, 3, 3), torch.rand(4, 8, 3, 3)
        >>> once, twice = convolve((neighbours(image),), compose(first, second)), convolve((image,), first)
        >>> torch.allclose(once, convolve((twice,), second), rtol=1e-4)
        True
    """
    return torch.tensordot(second, first.flatten(1), dims=([1], [0])).movedim(-1, 1)


def activate(values: Tensor) -> Tensor:
    """Apply UniverSeg's leaky ReLU in place."""
    return F.leaky_relu_(values, _SLOPE)


def weighted_mean(supports: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i w_i s_i of supports `(B S) C H W [D]` under weights `B S`: `B C H W [D]`.

    Example:
        >>> import torch
        >>> weighted_mean(torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1), torch.tensor([[0.5, 0.5]])).item()
        2.0
    """
    # channels last, as they lie in memory: nothing is copied
    values = supports.movedim(1, -1)
    rows = values.reshape(*weights.shape, -1)
    return (weights[:, None] @ rows).reshape(len(weights), *values.shape[1:]).movedim(-1, 1)


class CrossConv(nn.Module):
    """Convolve a query with each of its supports: z_i = conv([q, s_i]), query channels first.

    The convolution is linear, so z_i = conv_q(q) + conv_s(s_i): two halves of one weight, under the official name.

    Args:
        spatial_dims: 2 or 3.
        query_channels: channels of the query.
        support_channels: channels of each support.
        out_channels: channels of each z_i.

    Shape:
        Query `B Cq H W [D]` and supports `B S Cs H W [D]` to `B S Co H W [D]`.

    Example:
        >>> import torch
        >>> cross = CrossConv(2, 1, 2, 8)
        >>> cross(torch.zeros(1, 1, 16, 16), torch.zeros(1, 5, 2, 16, 16)).shape
        torch.Size([1, 5, 8, 16, 16])
    """

    def __init__(self, spatial_dims: int, query_channels: int, support_channels: int, out_channels: int) -> None:
        super().__init__()
        self.query_channels = query_channels
        channels = query_channels + support_channels
        self.cross_conv = Conv[Conv.CONV, spatial_dims](channels, out_channels, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(self.cross_conv.weight, nonlinearity="linear")
        nn.init.zeros_(self.cross_conv.bias)

    @property
    def support_weight(self) -> Tensor:
        """The weight of conv_s."""
        return self.cross_conv.weight[:, self.query_channels :]

    def query_half(self, *parts: Tensor) -> Tensor:
        """Return conv_q(q), bias included, of a query whose channels come in parts `B C H W [D]`."""
        return convolve(parts, self.cross_conv.weight[:, : self.query_channels], self.cross_conv.bias)

    def forward(self, query: Tensor, supports: Tensor) -> Tensor:
        """Return z_i for each support."""
        flat = rearrange(supports, "b s ... -> (b s) ...")
        return rearrange(
            interact(self.query_half(query), (flat,), self.support_weight), "(b s) ... -> b s ...", b=len(query)
        )


class CrossBlock(nn.Module):
    """One level of UniverSeg: cross convolution, then a convolution and a leaky ReLU for each stream.

    z_i = conv([q, s_i]);  q' = A conv_t(mean_i z_i);  s_i' = A conv_s(z_i), with A the leaky ReLU of slope 0.01.

    Args:
        spatial_dims: 2 or 3.
        query_channels: channels of the query.
        support_channels: channels of each support.
        out_channels: channels of both streams afterwards.
        cross_activation: apply A to each z_i too (the released model does not).

    Shape:
        Query `B Cq H W [D]` and supports `B S Cs H W [D]` to `B Co H W [D]` and `B S Co H W [D]`.

    Example:
        >>> import torch
        >>> query, supports = CrossBlock(2, 1, 2, 8)(torch.zeros(1, 1, 16, 16), torch.zeros(1, 5, 2, 16, 16))
        >>> query.shape, supports.shape
        (torch.Size([1, 8, 16, 16]), torch.Size([1, 5, 8, 16, 16]))
    """

    def __init__(
        self,
        spatial_dims: int,
        query_channels: int,
        support_channels: int,
        out_channels: int,
        *,
        cross_activation: bool = False,
    ) -> None:
        super().__init__()
        self.cross_activation = cross_activation
        self.cross = CrossConv(spatial_dims, query_channels, support_channels, out_channels)
        self.target = _stream(spatial_dims, out_channels)
        self.support = _stream(spatial_dims, out_channels)

    @property
    def support_conv(self) -> nn.Conv2d | nn.Conv3d:
        """The convolution of the supports' stream."""
        return self.support.get_submodule("vmapped.conv")  # type: ignore[return-value]

    def new_query(self, z_mean: Tensor) -> Tensor:
        """Return A conv_t(mean_i z_i) `B Co H W [D]`."""
        return activate(self.target.get_submodule("vmapped.conv")(z_mean))

    def forward(self, query: Tensor, supports: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new query and the new supports."""
        z = self.cross(query, supports)
        z = activate(z) if self.cross_activation else z
        new_supports = activate(self.support_conv(rearrange(z, "b s ... -> (b s) ...")))
        return self.new_query(z.mean(dim=1)), rearrange(new_supports, "(b s) ... -> b s ...", b=len(query))


def _stream(spatial_dims: int, channels: int) -> nn.ModuleDict:
    """Return a stream's convolution under the official name ``vmapped.conv``."""
    conv = Conv[Conv.CONV, spatial_dims](channels, channels, kernel_size=3, padding=1)
    # gain sqrt(2): a leaky ReLU follows
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)
    return nn.ModuleDict({"vmapped": nn.ModuleDict({"conv": conv})})
