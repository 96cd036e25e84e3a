"""Nested candidates that share one window's weights, and their mixture as one kernel.

Where every candidate is a plain convolution that is centred in the largest one's window, a candidate can be a crop of
that window instead of a kernel of its own. The collapse is then an elementwise product,

    W(alpha) = W * m(alpha),     m(alpha) = sum_i softmax(alpha)_i 1[tap lies in candidate i]

so that kernels 4, 6 and 8 hold 64 taps a pair of channels where three kernels hold 116 (in 3D 512 where they hold 792).
Of the window only the middle need be held where the cell sees so few voxels that the rest never meets one.

One kernel of which an architecture is a part: Stamoulis et al., "Single-Path NAS", ECML PKDD 2019 (arXiv 1904.02877).
There thresholds choose the part; here it is mixed, as any candidates are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genseg_monai.networks.candidates import CandidateKind, CandidateSpec
from genseg_monai.networks.collapsing import Live, collapse, window
from genseg_monai.networks.mixing import mix, new_kernel, row_blocks

__all__ = ["collapse_window", "crop", "middle", "tap_shares", "whole", "window_of"]


def crop(kernel: Tensor, spec: CandidateSpec, specs: Sequence[CandidateSpec]) -> Tensor:
    """Return one candidate's part of the window, as a view.

    Args:
        kernel: `A B size size [size]`, the window's.
        spec: the candidate.
        specs: all candidates that share the window.

    Returns:
        `A B k k [k]`.

    Raises:
        ValueError: the candidate is no plain convolution.

    Example:
        >>> from genseg_monai.networks.candidates import candidates
        >>> specs = candidates("shared", transposed=False)
        >>> crop(torch.zeros(8, 3, 8, 8), specs[0], specs).shape
        torch.Size([8, 3, 4, 4])
    """
    if spec.kind != CandidateKind.CONV or spec.dilation != 1:
        raise ValueError(f"wanted a plain convolution, which alone can be part of a window, got {spec}")
    start = window(specs)[1] - spec.padding
    inside = (slice(start, start + spec.kernel),) * (kernel.ndim - 2)
    return kernel[(slice(None), slice(None), *inside)]


def middle(kernel: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the part of a window that has ``shape``, as many taps left out at either end; a view."""
    starts = [(size - side) // 2 for size, side in zip(kernel.shape[2:], shape, strict=True)]
    inside = (slice(start, start + side) for start, side in zip(starts, shape, strict=True))
    return kernel[(slice(None), slice(None), *inside)]


def whole(kernel: Tensor, specs: Sequence[CandidateSpec]) -> Tensor:
    """Return a window of which only the middle is held, with zeros in the place of the other taps."""
    margins = [(window(specs)[0] - side) // 2 for side in kernel.shape[2:]]
    return nn.functional.pad(kernel, [margin for margin in reversed(margins) for _ in range(2)])


def tap_shares(probabilities: Tensor, specs: Sequence[CandidateSpec], spatial_dims: int) -> Tensor:
    """Return m, the summed probabilities of the candidates that each tap of the window lies in; without a graph.

    Example:
        >>> from genseg_monai.networks.candidates import candidates
        >>> tap_shares(torch.tensor([0.5, 0.25, 0.25]), candidates("shared", transposed=False), spatial_dims=2)[0, 0, 3]
        tensor([0.2500, 0.5000, 1.0000, 1.0000, 1.0000, 1.0000, 0.5000, 0.2500])
    """
    probabilities = probabilities.detach()
    shares = probabilities.new_zeros(1, 1, *(window(specs)[0],) * spatial_dims)
    for probability, spec in zip(probabilities, specs, strict=True):
        crop(shares, spec, specs).add_(probability)
    return shares


def collapse_window(
    probabilities: Tensor, kernel: Tensor, specs: Sequence[CandidateSpec], live: Live | None = None
) -> Tensor:
    """Return the kernel of the mixture, sum_i probabilities_i embed(crop_i(kernel)).

    Differentiable any number of times in the probabilities and in the kernel.

    Args:
        probabilities: `n`, one for each candidate.
        kernel: `A B size size [size]`, with size as `window` says; or its `middle`.
        specs: the n candidates.
        live: which part of the window to return, see `live_taps`; by default all of it that is held.

    Returns:
        `A B size size [size]`, or what is live and held of that.
    """
    return mix(_SharedFrame(specs, kernel.shape[2:], live), probabilities, [kernel])


def window_of(kernels: Sequence[Tensor], specs: Sequence[CandidateSpec]) -> Tensor:
    """Return the window in which each tap is the mean of what the kernels have there that reach it.

    Mixed in equal shares, this window and the kernels make the same kernel.

    Args:
        kernels: `A B k k [k]`, one for each candidate.
        specs: the candidates.

    Returns:
        `A B size size [size]`.
    """
    ones = kernels[0].new_ones(len(specs))
    return collapse(ones, kernels, specs).div_(tap_shares(ones, specs, kernels[0].ndim - 2))


class _SharedFrame:
    """Which taps are live, as indices of what is held of the window and of all of it; and W(alpha) = W * m(alpha)."""

    def __init__(self, specs: Sequence[CandidateSpec], held: Sequence[int], live: Live | None) -> None:
        self.specs = specs
        size = window(specs)[0]
        margins = [(size - side) // 2 for side in held]
        spans = [(margin, margin + side) for margin, side in zip(margins, held, strict=True)]
        if live is not None:
            spans = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(spans, live, strict=True)]
        self.sides = [last - first for first, last in spans]
        every = (slice(None), slice(None))
        self.of_window = (*every, *(slice(*span) for span in spans))
        self.of_held = (*every, *(slice(a - m, b - m) for (a, b), m in zip(spans, margins, strict=True)))

    def _shares(self, factors: Tensor) -> Tensor:
        return tap_shares(factors, self.specs, len(self.sides))[self.of_window]

    def collapse(self, factors: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        """Return m * W."""
        (kernel,) = kernels
        total, shares = new_kernel(kernel, self.sides), self._shares(factors)
        for rows in row_blocks(total):
            torch.mul(kernel[rows][self.of_held], shares, out=total[rows])
        return total

    def transpose(
        self, cotangent: Tensor, factors: Tensor, kernels: Sequence[Tensor], wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return for each candidate the inner product of cotangent and W within it, and m * cotangent, if wanted."""
        (kernel,) = kernels
        shares = self._shares(factors)
        products = torch.zeros_like(shares) if wanted[0] else None
        make = torch.empty_like if cotangent.shape == kernel.shape else torch.zeros_like
        gradient = make(kernel) if wanted[1] else None
        for rows in row_blocks(cotangent):
            block = cotangent[rows]
            if products is not None:
                products += (block * kernel[rows][self.of_held]).sum((0, 1))
            if gradient is not None:
                torch.mul(block, shares, out=gradient[rows][self.of_held])
        return None if products is None else self._within(products), [gradient]

    def _within(self, products: Tensor) -> Tensor:
        """Sum what belongs to each tap over the taps of each candidate.

        Ring by ring from within, so that candidates which differ in no live tap get the same number to the last bit:
        Adam would make steps of a difference that is only rounding.
        """
        taps = products.new_zeros(1, 1, *(window(self.specs)[0],) * len(self.sides))
        taps[self.of_window] = products
        total, sums = products.new_zeros(()), [products] * len(self.specs)
        for i in sorted(range(len(self.specs)), key=lambda i: self.specs[i].kernel):
            inside = crop(taps, self.specs[i], self.specs)
            total = sums[i] = total + inside.sum()
            inside.zero_()
        return torch.stack(sums)
