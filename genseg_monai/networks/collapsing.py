"""A mixture of kernels as one kernel, differentiable to any order, with the cost of moving the weights kept low.

`embed` places candidate i's kernel into the smallest common window: tap j sits at offset j - padding_i, with
P = max_i padding_i and window = P + max_i(extent_i - padding_i). A dilated kernel is placed with gaps; a convolution
followed by averaging, or following nearest-neighbour upsampling, is placed once for each voxel of the averaged (copied)
box. `collapse` adds the placed kernels up. For what this is good for, see `genseg_monai.networks.mixed_conv`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genseg_monai.networks.candidates import CandidateKind, CandidateSpec
from genseg_monai.networks.mixing import mix, new_kernel, row_blocks

__all__ = ["Live", "collapse", "embed", "live_taps", "window"]

Live = tuple[tuple[int, int], ...]
"""The first and the last + 1 tap of the window along each axis that are of use."""


def window(specs: Sequence[CandidateSpec]) -> tuple[int, int]:
    """Return the size and the padding of the smallest window that holds every candidate.

    Example:
        >>> from genseg_monai.networks.candidates import candidates
        >>> window(candidates("paper", transposed=False))
        (8, 3)
    """
    padding = max(spec.padding for spec in specs)
    return padding + max(spec.extent - spec.padding for spec in specs), padding


def live_taps(specs: Sequence[CandidateSpec], sides: Sequence[int], transposed: bool) -> Live:
    """Return which taps of the window, first and last + 1 along each axis, ever meet a voxel of such a small input.

    The others only see padding (or write outside the output): leaving them out changes neither value nor gradient, and
    the innermost cells, which hold most of the weights, see 1 to 4 voxels a side.

    Args:
        specs: the candidates.
        sides: `H W [D]` of the cell's input.
        transposed: whether the cell raises the resolution.

    Example:
        >>> from genseg_monai.networks.candidates import candidates
        >>> live_taps(candidates("paper", transposed=False), (32, 4, 2), transposed=False)
        ((0, 8), (1, 7), (3, 5))
    """
    size, padding = window(specs)
    fine = [side * specs[0].stride if transposed else side for side in sides]
    # at a stride s, tap j of position i meets fine voxel s i - padding + j, which lies in [0, side)
    firsts = [max(0, padding - side + specs[0].stride) for side in fine]
    return tuple((first, min(size, side + padding)) for first, side in zip(firsts, fine, strict=True))


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
    frame = _Frame([spec], padding, ((0, size),) * (kernel.ndim - 2))
    return mix(frame, kernel.new_ones(1), [kernel])


def collapse(
    probabilities: Tensor, kernels: Sequence[Tensor], specs: Sequence[CandidateSpec], live: Live | None = None
) -> Tensor:
    """Return the kernel of the mixture, sum_i probabilities_i embed(kernels_i).

    Differentiable any number of times in the probabilities and in each kernel.

    Args:
        probabilities: `n`, one for each candidate.
        kernels: n tensors `A B k_i k_i [k_i]`.
        specs: the n candidates.
        live: which part of the window to return, see `live_taps`; by default all of it.

    Returns:
        `A B size size [size]`, with size and padding as `window` says.
    """
    size, padding = window(specs)
    frame = _Frame(specs, padding, live or ((0, size),) * (kernels[0].ndim - 2))
    return mix(frame, probabilities, kernels)


class _Frame:
    """Where the taps of each candidate lie in (the live part of) the window: linear maps E_i and their transposes."""

    def __init__(self, specs: Sequence[CandidateSpec], padding: int, live: Live) -> None:
        self.sides = tuple(last - first for first, last in live)
        self.places = [list(_places(spec, padding, live)) for spec in specs]
        # averaging divides by the size of the box
        self.scales = [spec.box ** -len(live) if spec.kind == CandidateKind.POOL else 1.0 for spec in specs]
        # candidates with exactly one place for each tap, and of these one that fills the window
        taps = [spec.kernel ** len(live) for spec in specs]
        self.placed_once = [sum(p.taps for p in places) == n for places, n in zip(self.places, taps, strict=True)]
        self.filling = next((i for i, n in enumerate(taps) if self.placed_once[i] and n == math.prod(self.sides)), None)

    def collapse(self, factors: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        """Return sum_i factors_i E_i kernels_i, without keeping a graph."""
        total = new_kernel(kernels[0], self.sides)
        for rows in row_blocks(total):
            block = total[rows]
            if self.filling is None:
                block.zero_()
            else:
                torch.mul(kernels[self.filling][rows], factors[self.filling], out=block)
            for i, kernel in enumerate(kernels):
                for place in () if i == self.filling else self.places[i]:
                    block[place.window].addcmul_(kernel[rows][place.kernel], factors[i], value=self.scales[i])
        return total

    def transpose(
        self, cotangent: Tensor, factors: Tensor, kernels: Sequence[Tensor], wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return <E_i' cotangent, kernels_i> for each i, and each factors_i E_i' cotangent, if wanted."""
        products = torch.zeros_like(factors) if wanted[0] else None
        makers = [torch.empty_like if once else torch.zeros_like for once in self.placed_once]
        gradients = [make(k) if wanted[1] else None for make, k in zip(makers, kernels, strict=True)]
        for rows in row_blocks(cotangent):
            block = cotangent[rows]
            for i, kernel in enumerate(kernels):
                gradient = gradients[i]
                for place in self.places[i]:
                    crop = block[place.window]
                    if products is not None:
                        products[i] += (crop * kernel[rows][place.kernel]).sum() * self.scales[i]
                    if gradient is not None and self.placed_once[i]:
                        torch.mul(crop, factors[i], out=gradient[rows][place.kernel])
                    elif gradient is not None:
                        gradient[rows][place.kernel].addcmul_(crop, factors[i], value=self.scales[i])
        return products, gradients


@dataclass(frozen=True)
class _Place:
    """Some taps of a kernel and where in the window they go, as indices of `A B k k [k]` tensors."""

    kernel: tuple[slice, ...]
    window: tuple[slice, ...]
    taps: int


def _places(spec: CandidateSpec, padding: int, live: Live) -> Iterator[_Place]:
    """Yield the places of a candidate's kernel: one for each voxel of its box, as far as it is live."""
    for corner in itertools.product(range(spec.box), repeat=len(live)):
        kernel, frame, taps = [slice(None)] * 2, [slice(None)] * 2, 1
        for offset, (first, last) in zip(corner, live, strict=True):
            # tap j lies at start + dilation j, and only [0, last - first) is live
            start = padding - spec.padding + offset - first
            low = max(0, -(start // spec.dilation))
            high = min(spec.kernel, (last - first - 1 - start) // spec.dilation + 1)
            kernel.append(slice(low, high))
            frame.append(slice(start + spec.dilation * low, start + spec.dilation * (high - 1) + 1, spec.dilation))
            taps *= max(0, high - low)
        if taps:
            yield _Place(tuple(kernel), tuple(frame), taps)
