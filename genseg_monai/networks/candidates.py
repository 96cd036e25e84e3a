"""The candidate operations a searchable cell chooses from.

The `paper` space is that of Zhang et al., "Generative AI enables medical image segmentation in ultra low-data regimes",
Nature Communications 16:6486, 2025 (arXiv 2408.17421): convolutions of kernel 4, 6 and 8, all of stride 2. The `wide`
space adds a dilated convolution and convolutions that leave the change of resolution to averaging (encoder) or to
nearest-neighbour upsampling (decoder). The `shared` space has the candidates of the paper as crops of one window's
weights (`genseg_monai.networks.shared_window`). Every candidate is linear and shift-invariant and changes the
resolution by its stride, so a mixture of them is one convolution: see `genseg_monai.networks.mixed_conv`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

from monai.networks.layers.factories import Conv, Pool
from torch import nn

from genseg_monai.errors import UserError
from genseg_monai.networks.padded_depth import PaddedConv3d, PaddedConvTranspose3d

__all__ = ["CandidateKind", "CandidateSpec", "SearchSpace", "candidates", "make_candidate"]


class CandidateKind(StrEnum):
    """What a candidate does."""

    CONV = "conv"
    """A strided convolution, transposed in a decoder."""
    POOL = "pool"
    """Encoder: a convolution of stride 1, then averaging over ``stride`` voxels. Kernel 1: average pooling + 1x1."""
    RESIZE = "resize"
    """Decoder: nearest-neighbour upsampling by ``stride``, then a (transposed) convolution of stride 1."""


class SearchSpace(StrEnum):
    """The sets of candidates on offer."""

    PAPER = "paper"
    """Kernels 4, 6 and 8."""
    WIDE = "wide"
    """Those of the paper, a dilated one, and two that pool (encoder) or resize (decoder)."""
    SHARED = "shared"
    """Kernels 4, 6 and 8 that share the weights of the largest one's window: 64 taps in place of 116 (2D)."""


@dataclass(frozen=True)
class CandidateSpec:
    """One candidate operation.

    Args:
        kind: a `CandidateKind` or its name.
        kernel: taps along each axis.
        stride: the factor by which the resolution falls (encoder) or rises (decoder).
        padding: zeros added on each side of each axis.
        dilation: distance between taps, in voxels.

    Example:
        >>> CandidateSpec("conv", kernel=4, stride=2, padding=3, dilation=2).name
        'conv_4_dilated_2'
    """

    kind: CandidateKind | str
    kernel: int
    stride: int
    padding: int
    dilation: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", CandidateKind(self.kind))
        if min(self.kernel, self.stride, self.dilation) < 1 or self.padding < 0:
            raise ValueError(f"wanted kernel, stride and dilation >= 1 and padding >= 0, got {self}")
        if self.kind != CandidateKind.CONV and (self.dilation != 1 or self.kernel != 2 * self.padding + 1):
            raise ValueError(
                f"a {self.kind} candidate keeps the size: wanted dilation 1, kernel 2 padding + 1, got {self}"
            )

    @property
    def name(self) -> str:
        """The name a genotype stores."""
        dilated = f"_dilated_{self.dilation}" if self.dilation > 1 else ""
        return f"{self.kind}_{self.kernel}{dilated}"

    @property
    def box(self) -> int:
        """Neighbouring voxels that share each tap (averaged over or copied to): 1 for a plain convolution."""
        return 1 if self.kind == CandidateKind.CONV else self.stride

    @property
    def extent(self) -> int:
        """Voxels the candidate reaches along each axis, as one convolution."""
        return self.dilation * (self.kernel - 1) + self.box


_PAPER = tuple(CandidateSpec("conv", kernel, stride=2, padding=kernel // 2 - 1) for kernel in (4, 6, 8))
_DILATED = CandidateSpec("conv", kernel=4, stride=2, padding=3, dilation=2)


def candidates(space: SearchSpace | str, transposed: bool) -> tuple[CandidateSpec, ...]:
    """Return the candidates of a cell, in the order of its architecture weights.

    Args:
        space: a `SearchSpace` or its name.
        transposed: whether the cell raises the resolution (decoder) or lowers it (encoder).

    Raises:
        UserError: no such search space.

    Example:
        >>> [spec.name for spec in candidates("wide", transposed=True)]
        ['conv_4', 'conv_6', 'conv_8', 'conv_4_dilated_2', 'resize_1', 'resize_3']
    """
    if space not in list(SearchSpace):
        raise UserError("search space", f"wanted one of {', '.join(SearchSpace)}, got {space!r}")
    if space in (SearchSpace.PAPER, SearchSpace.SHARED):
        return _PAPER
    kind = CandidateKind.RESIZE if transposed else CandidateKind.POOL
    return (*_PAPER, _DILATED, CandidateSpec(kind, 1, stride=2, padding=0), CandidateSpec(kind, 3, stride=2, padding=1))


def make_candidate(
    spec: CandidateSpec, spatial_dims: int, in_channels: int, out_channels: int, *, transposed: bool, bias: bool = True
) -> nn.Sequential:
    """Build one candidate from plain layers; the one that holds the weights is called ``conv``.

    Args:
        spec: which candidate.
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        transposed: whether the resolution rises.
        bias: whether the convolution has a bias.

    Returns:
        A module from `B in_channels H W [D]` to `B out_channels H/stride W/stride [D/stride]`, or times stride when
        transposed; sizes must divide by the stride.
    """
    channels = (in_channels, out_channels)
    convolution = Conv[Conv.CONVTRANS if transposed else Conv.CONV, spatial_dims]
    if spec.kind == CandidateKind.POOL:
        conv = convolution(*channels, spec.kernel, padding=spec.padding, bias=bias)
        return nn.Sequential(OrderedDict(conv=conv, pool=Pool[Pool.AVG, spatial_dims](spec.stride)))
    if spec.kind == CandidateKind.RESIZE:
        conv = convolution(*channels, spec.kernel, padding=spec.padding, bias=bias)
        return nn.Sequential(OrderedDict(resize=nn.Upsample(scale_factor=float(spec.stride)), conv=conv))
    settings = {"stride": spec.stride, "padding": spec.padding, "dilation": spec.dilation, "bias": bias}
    if transposed:
        # so that the output has stride times the size of the input
        settings["output_padding"] = spec.stride + 2 * spec.padding - spec.extent
    if spatial_dims == 3:
        convolution = PaddedConvTranspose3d if transposed else PaddedConv3d
    return nn.Sequential(OrderedDict(conv=convolution(*channels, spec.kernel, **settings)))
