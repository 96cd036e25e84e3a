r"""A mixture of candidate convolutions, collapsed into a single one.

No non-linearity stands between the candidates of a cell and their sum, and each of them is linear and shift-invariant,
so the mixture of Zhang et al. (Nature Communications 16:6486, 2025, arXiv 2408.17421) *is one convolution*:

    W(alpha) = sum_i softmax(alpha)_i embed(W_i),     y = conv(x, W(alpha))

`embed` places kernel i into the smallest common window: tap j of candidate i sits at offset j - padding_i, with
P = max_i padding_i and window = P + max_i(extent_i - padding_i). A dilated kernel is placed with gaps; a convolution
followed by averaging, or following nearest-neighbour upsampling, is placed once for each voxel of the averaged (copied)
box. The public release runs each candidate and adds their outputs: same values, same gradients, several times the work.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor, nn

from genseg_monai.networks.candidates import CandidateKind, CandidateSpec, SearchSpace, candidates

__all__ = ["CandidateKind", "CandidateSpec", "MixedConv", "SearchSpace", "candidates", "collapse", "embed", "window"]


def window(specs: Sequence[CandidateSpec]) -> tuple[int, int]:
    """Return the size and the padding of the smallest window that holds every candidate.

    Example:
        >>> window(candidates("paper", transposed=False))
        (8, 3)
    """
    padding = max(spec.padding for spec in specs)
    return padding + max(spec.extent - spec.padding for spec in specs), padding


def embed(kernel: Tensor, spec: CandidateSpec, size: int, padding: int) -> Tensor:
    """Place one candidate's kernel into a window.

    Args:
        kernel: `A B k k [k]`.
        spec: the candidate the kernel belongs to.
        size: taps of the window along each axis.
        padding: padding of the window.

    Returns:
        `A B size size [size]`: the kernel of the plain convolution (stride ``spec.stride``, padding ``padding``) that
        does what the candidate does.
    """
    return _collapsed(kernel.new_ones(1), [kernel], [spec], (size, padding))


def collapse(probabilities: Tensor, kernels: Sequence[Tensor], specs: Sequence[CandidateSpec]) -> Tensor:
    """Return the kernel of the mixture, sum_i probabilities_i embed(kernels_i).

    Differentiable any number of times in the probabilities and in each kernel.

    Args:
        probabilities: `n`, one for each candidate.
        kernels: n tensors `A B k_i k_i [k_i]`.
        specs: the n candidates.

    Returns:
        `A B size size [size]`, with size and padding as `window` says.
    """
    return _Collapse.apply(tuple(specs), probabilities, *kernels)


def _places(spec: CandidateSpec, padding: int, spatial_dims: int) -> Iterator[tuple[slice, ...]]:
    """Yield the indices of a window, `A B size size [size]`, at which a candidate's kernel lies."""
    span = spec.dilation * (spec.kernel - 1) + 1
    starts = range(padding - spec.padding, padding - spec.padding + spec.box)
    for corner in itertools.product(starts, repeat=spatial_dims):
        yield (slice(None), slice(None), *(slice(start, start + span, spec.dilation) for start in corner))


def _scale(spec: CandidateSpec, spatial_dims: int) -> float:
    """Return the factor of every placed copy: averaging divides by the size of the box."""
    return spec.box**-spatial_dims if spec.kind == CandidateKind.POOL else 1.0


def _collapsed(
    factors: Tensor, kernels: Sequence[Tensor], specs: Sequence[CandidateSpec], frame: tuple[int, int]
) -> Tensor:
    """Compute sum_i factors_i embed(kernels_i) in one buffer, without keeping a graph."""
    size, padding = frame
    dims = kernels[0].ndim - 2
    # a plain kernel that fills the window starts the buffer (in its own memory format), else zeros do
    first = next((i for i, s in enumerate(specs) if s.kernel == size and s.box == 1), None)
    if first is None:
        total = kernels[0].new_zeros(*kernels[0].shape[:2], *(size,) * dims)
    else:
        total = kernels[first] * factors[first]
    for i, (factor, kernel, spec) in enumerate(zip(factors, kernels, specs, strict=True)):
        if i != first:
            for place in _places(spec, padding, dims):
                total[place].addcmul_(kernel, factor, value=_scale(spec, dims))
    return total


def _cropped(cotangent: Tensor, spec: CandidateSpec, padding: int) -> Tensor:
    """Apply the transpose of `embed`: read what lies at the candidate's places, `A B k k [k]`."""
    dims = cotangent.ndim - 2
    places = _places(spec, padding, dims)
    crop = cotangent[next(places)]
    for place in places:
        crop = crop + cotangent[place]
    scale = _scale(spec, dims)
    return crop if scale == 1 else crop * scale


class _Collapse(torch.autograd.Function):
    """Candidates' factors c_i and kernels K_i -> W = sum_i c_i E_i K_i, with E_i the embedding."""

    @staticmethod
    def forward(specs: tuple[CandidateSpec, ...], factors: Tensor, *kernels: Tensor) -> Tensor:
        return _collapsed(factors, kernels, specs, window(specs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.specs, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        wanted = (ctx.needs_input_grad[1], any(ctx.needs_input_grad[2:]))
        return (None, *_Transpose.apply(ctx.specs, wanted, cotangent, *ctx.saved_tensors))


class _Transpose(torch.autograd.Function):
    """The gradient of `_Collapse`: cotangent g of W -> (<E_i' g, K_i>)_i for c, and c_i E_i' g for each K_i.

    Both maps are linear in each argument, so each one's gradient is made of the two again, to any order.
    """

    @staticmethod
    def forward(
        specs: tuple[CandidateSpec, ...],
        wanted: tuple[bool, bool],
        cotangent: Tensor,
        factors: Tensor,
        *kernels: Tensor,
    ) -> tuple[Tensor | None, ...]:
        of_factors, of_kernels = wanted
        padding = window(specs)[1]
        products, gradients = [], []
        for factor, kernel, spec in zip(factors, kernels, specs, strict=True):
            crop = _cropped(cotangent, spec, padding)
            if of_factors:
                products.append((crop * kernel).sum())
            if of_kernels:
                gradients.append(crop * factor)
        return torch.stack(products) if of_factors else None, *(gradients if of_kernels else [None] * len(specs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        ctx.specs, ctx.wanted, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, r: Tensor | None, *h: Tensor | None) -> tuple[Tensor | None, ...]:
        cotangent, factors, *kernels = ctx.saved_tensors
        # what was not asked for has no cotangent: zeros then stand for it
        r = torch.zeros_like(factors) if r is None else r
        h = tuple(torch.zeros_like(k) if x is None else x for x, k in zip(h, kernels, strict=True))
        # d/dg: sum_i E_i (c_i h_i + r_i K_i)
        of_cotangent = None
        if ctx.needs_input_grad[2]:
            of_cotangent = _Collapse.apply(ctx.specs, factors, *h) + _Collapse.apply(ctx.specs, r, *kernels)
        # d/dc_i: <E_i' g, h_i>;  d/dK_i: r_i E_i' g
        wanted = (ctx.needs_input_grad[3], any(ctx.needs_input_grad[4:]))
        return None, None, of_cotangent, *_Transpose.apply(ctx.specs, wanted, cotangent, r, *h)


class MixedConv(nn.Module):
    """A searchable (transposed) convolution that halves (doubles) the resolution.

    The output is sum_i softmax(alpha)_i candidate_i(x), computed as one convolution with the collapsed kernel.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        transposed: whether the resolution rises (decoder) or falls (encoder).
        space: a `SearchSpace` or its name.
        bias: whether the candidates have a bias; pointless before a norm that subtracts the mean.

    Shape:
        `B in_channels H W [D]` (even sizes) to `B out_channels H/2 W/2 [D/2]`, or to double the size when transposed.

    Attributes:
        alpha: architecture weights, `n`; zero (all candidates equal) at the start.
        weights: the candidates' kernels, `out in k k [k]`, or `in out k k [k]` when transposed.
        bias: the candidates' biases, `n out`, or None.

    Example:
        >>> cell = MixedConv(2, in_channels=3, out_channels=8, transposed=False, space="wide")
        >>> cell(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 8, 16, 24])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        transposed: bool,
        space: SearchSpace | str = SearchSpace.PAPER,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.specs = candidates(space, transposed)
        self.stride = self.specs[0].stride
        size, self.padding = window(self.specs)
        # 0 where the window alone gives the size wanted; a window can be short of a tap, which is then worth nothing
        self.output_padding = self.stride + 2 * self.padding - size
        self.transposed = transposed
        self._convolve = getattr(F, f"conv{'_transpose' if transposed else ''}{spatial_dims}d")
        self.alpha = nn.Parameter(torch.zeros(len(self.specs)))
        channels = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weights = nn.ParameterList(torch.empty(*channels, *(s.kernel,) * spatial_dims) for s in self.specs)
        self.bias = nn.Parameter(torch.zeros(len(self.specs), out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw kernels that keep the variance of the input (He initialisation); zero biases and alpha."""
        for spec, weight in zip(self.specs, self.weights, strict=True):
            fan_in = weight[0].numel() if not self.transposed else weight[:, 0].numel()
            # only one in stride**dims of a strided transposed kernel's taps meets a given output voxel
            if self.transposed and spec.kind == CandidateKind.CONV:
                fan_in = max(1, fan_in // spec.stride ** (weight.ndim - 2))
            nn.init.normal_(weight, std=math.sqrt(2 / fan_in))
        for parameter in (self.alpha, self.bias):
            if parameter is not None:
                nn.init.zeros_(parameter)

    def collapsed(self) -> tuple[Tensor, Tensor | None]:
        """Return the mixture's kernel, `out in size size [size]` (transposed: `in out ...`), and its bias, `out`."""
        probabilities = torch.softmax(self.alpha, dim=0)
        weight = collapse(probabilities, list(self.weights), self.specs)
        if self.bias is None:
            return weight, None
        return weight, einsum(probabilities, self.bias, "candidate, candidate out -> out")

    def forward(self, x: Tensor, kernel: tuple[Tensor, Tensor | None] | None = None) -> Tensor:
        """Apply the mixture.

        Args:
            x: `B in_channels H W [D]`.
            kernel: what `collapsed` returned, to share it between calls while nothing has changed.
        """
        weight, bias = self.collapsed() if kernel is None else kernel
        if self.transposed:
            return self._convolve(x, weight, bias, self.stride, self.padding, self.output_padding)
        return self._convolve(x, weight, bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Name the candidates."""
        return ", ".join(spec.name for spec in self.specs)
