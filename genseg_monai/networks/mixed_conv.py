r"""A mixture of candidate convolutions, run as a single one.

No non-linearity stands between the candidates of a cell and their sum, and each of them is linear and shift-invariant,
so the mixture of Zhang et al. (Nature Communications 16:6486, 2025, arXiv 2408.17421) *is one convolution*:

    W(alpha) = sum_i softmax(alpha)_i embed(W_i),     y = conv(x, W(alpha))

The public release runs each candidate and adds their outputs: same values, same gradients, more work and more memory.
In the search space `shared` the candidates are crops of one kernel, see `genseg_monai.networks.shared_window`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import einsum
from torch import Tensor, nn

from genseg_monai.networks.candidates import CandidateKind, CandidateSpec, SearchSpace, candidates
from genseg_monai.networks.collapsing import collapse, embed, live_taps, window
from genseg_monai.networks.mixing import new_kernel
from genseg_monai.networks.padded_depth import convolve, convolve_transposed
from genseg_monai.networks.shared_window import collapse_window, crop, middle, whole, window_of
from genseg_monai.networks.small_conv import convolve_2d

__all__ = ["CandidateSpec", "MixedConv", "SearchSpace", "candidates", "collapse", "embed"]


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
        sides: `H W [D]` of the input, if it is always the same: the space `shared` then holds no weights that are
            without effect (zeros, should an input be larger after all).

    Shape:
        `B in_channels H W [D]` (even sizes) to `B out_channels H/2 W/2 [D/2]`, or to double the size when transposed.

    Attributes:
        alpha: architecture weights, `n`; zero (all candidates equal) at the start.
        weights: the candidates' kernels, `out in k k [k]`, or `in out k k [k]` when transposed; in the space `shared`
            the one that all of them are crops of, or its middle.
        bias: the candidates' biases, `n out`, or None; in the space `shared` one for all, `1 out`.

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
        sides: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.specs = candidates(space, transposed)
        self.shared = space == SearchSpace.SHARED
        self.stride = self.specs[0].stride
        self.window, self.padding = window(self.specs)
        self.transposed = transposed
        self.alpha = nn.Parameter(torch.zeros(len(self.specs)))
        channels = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        last = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
        shapes = [(spec.kernel,) * spatial_dims for spec in self.specs]
        if self.shared:
            spans = live_taps(self.specs, sides, transposed) if sides else [(0, self.window)] * spatial_dims
            shapes = [tuple(last_tap - first for first, last_tap in spans)]
        self.weights = nn.ParameterList(torch.empty(*channels, *shape, memory_format=last) for shape in shapes)
        self.bias = nn.Parameter(torch.zeros(len(self.weights), out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw kernels that keep the variance of the input (He initialisation); zero biases and alpha.

        A shared window is the mean of kernels so drawn, tap by tap: with the same seed, the mixture starts as it does
        in the space `paper`, and with alpha held, Adam takes both along the same path.
        """
        kernels: Sequence[Tensor] = list(self.weights)
        if self.shared:
            dims = self.weights[0].ndim - 2
            kernels = [new_kernel(self.weights[0], (spec.kernel,) * dims) for spec in self.specs]
        for spec, weight in zip(self.specs, kernels, strict=True):
            fan_in = weight[0].numel() if not self.transposed else weight[:, 0].numel()
            # only one in stride**dims of a strided transposed kernel's taps meets a given output voxel
            if self.transposed and spec.kind == CandidateKind.CONV:
                fan_in = max(1, fan_in // spec.stride ** (weight.ndim - 2))
            nn.init.normal_(weight, std=math.sqrt(2 / fan_in))
        if self.shared:
            with torch.no_grad():
                self.weights[0].copy_(middle(window_of(kernels, self.specs), self.weights[0].shape[2:]))
        for parameter in (self.alpha, self.bias):
            if parameter is not None:
                nn.init.zeros_(parameter)

    def collapsed(self, sides: Sequence[int] | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the mixture's kernel and its bias.

        Args:
            sides: `H W [D]` of the input, to leave out the taps that it is too small to meet (see `live_taps`).

        Returns:
            `out in size size [size]` (transposed: `in out ...`), and `out` or None.
        """
        bias = None if self.bias is None else self.mixed_bias(self.alpha, self.bias)
        return self.kernel(self.alpha, list(self.weights), sides), bias

    def kernel(self, alpha: Tensor, weights: Sequence[Tensor], sides: Sequence[int] | None = None) -> Tensor:
        """Return the mixture's kernel for other weights than the cell's own, or for some rows of them."""
        live = None if sides is None else live_taps(self.specs, sides, self.transposed)
        probabilities = torch.softmax(alpha, dim=0)
        if self.shared:
            return collapse_window(probabilities, weights[0], self.specs, live)
        return collapse(probabilities, weights, self.specs, live)

    def candidate(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Return the kernel and the bias of one candidate by itself, as `make_candidate` has them."""
        spec = self.specs[index]
        weight = crop(whole(self.weights[0], self.specs), spec, self.specs) if self.shared else self.weights[index]
        return weight, None if self.bias is None else self.bias[0 if self.shared else index]

    @staticmethod
    def mixed_bias(alpha: Tensor, bias: Tensor) -> Tensor:
        """Return the mixture's bias for other biases than the cell's own; of one for all candidates, a copy."""
        if len(bias) == 1:
            return bias.sum(dim=0)
        return einsum(torch.softmax(alpha, dim=0), bias, "candidate, candidate out -> out")

    def forward(self, x: Tensor, kernel: tuple[Tensor, Tensor | None] | None = None) -> Tensor:
        """Apply the mixture.

        Args:
            x: `B in_channels H W [D]`.
            kernel: what `collapsed` returned, to share it between calls while nothing has changed.
        """
        weight, bias = self.collapsed(x.shape[2:]) if kernel is None else kernel
        # a kernel without its dead taps has lost as many at either end
        padding = [self.padding - (self.window - side) // 2 for side in weight.shape[2:]]
        if len(padding) == 2:
            return convolve_2d(x, weight, bias, self.stride, padding, transposed=self.transposed)
        run = convolve_transposed if self.transposed else convolve
        return run(x, weight, bias, [self.stride] * 3, padding, [1] * 3)

    def extra_repr(self) -> str:
        """Name the candidates."""
        return ", ".join(spec.name for spec in self.specs)
