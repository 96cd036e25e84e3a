"""Several kernels and a factor for each made one kernel, differentiable to any order.

W = sum_i c_i E_i K_i is linear in the factors c and in the kernels K, with E_i whatever linear map a frame says. So the
backward pass is bilinear in cotangent and factors (cotangent and kernels), and its own backward pass is made of the two
maps again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Frame", "mix", "new_kernel", "row_blocks"]

_BLOCK = 2**18  # numbers of the window worked on at once; measured on a CPU with 1 MiB of second-level cache


class Frame(Protocol):
    """A map of factors and kernels to one kernel, linear in either, and its transpose; neither keeps a graph."""

    def collapse(self, factors: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        """Return the kernel that factors and kernels make."""

    def transpose(
        self, cotangent: Tensor, factors: Tensor, kernels: Sequence[Tensor], wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Return the gradients of <`collapse`, cotangent> in the factors and in each kernel, if wanted."""


def mix(frame: Frame, factors: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """Return the kernel that factors and kernels make in a frame, with its graph."""
    return _Collapse.apply(frame, factors, *kernels)


def row_blocks(tensor: Tensor) -> Iterator[slice]:
    """Yield slices of the first axis that cut a tensor into parts of about `_BLOCK` numbers; one part on a GPU.

    So a block stays in a CPU's cache while every candidate passes over it: at width 32 the candidates hold 76 million
    weights, and moving them is the cost.
    """
    rows = tensor.shape[0]
    step = max(1, _BLOCK * rows // tensor.numel()) if tensor.device.type == "cpu" else rows
    for start in range(0, rows, step):
        yield slice(start, start + step)


def new_kernel(like: Tensor, sides: Sequence[int]) -> Tensor:
    """Return an empty kernel of other sides in the same memory format as ``like``, `A B k k [k]`.

    Channels last where ``like`` is: rows of channels are long, rows of taps slow to crop.
    """
    last = torch.channels_last if like.ndim == 4 else torch.channels_last_3d
    layout = last if like.is_contiguous(memory_format=last) else torch.contiguous_format
    return torch.empty(*like.shape[:2], *sides, dtype=like.dtype, device=like.device, memory_format=layout)


class _Collapse(torch.autograd.Function):
    """Candidates' factors c_i and kernels K_i -> W = sum_i c_i E_i K_i, with E_i the embedding."""

    @staticmethod
    def forward(frame: Frame, factors: Tensor, *kernels: Tensor) -> Tensor:
        return frame.collapse(factors, kernels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.frame, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        wanted = (ctx.needs_input_grad[1], any(ctx.needs_input_grad[2:]))
        return None, *_Transpose.apply(ctx.frame, wanted, cotangent, *ctx.saved_tensors)


class _Transpose(torch.autograd.Function):
    """The gradient of `_Collapse`: cotangent g of W -> (<E_i' g, K_i>)_i for c, and c_i E_i' g for each K_i.

    Both maps are linear in each argument, so each one's gradient is made of the two again, to any order.
    """

    @staticmethod
    def forward(
        frame: Frame, wanted: tuple[bool, bool], cotangent: Tensor, factors: Tensor, *kernels: Tensor
    ) -> tuple[Tensor | None, ...]:
        products, gradients = frame.transpose(cotangent, factors, kernels, wanted)
        return products, *gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        ctx.frame, _, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, r: Tensor | None, *h: Tensor | None) -> tuple[Tensor | None, ...]:
        cotangent, factors, *kernels = ctx.saved_tensors
        # d/dg: sum_i E_i (c_i h_i + r_i K_i);  d/dc_i: <E_i' g, h_i>;  d/dK_i: r_i E_i' g
        wanted = (ctx.needs_input_grad[3], any(ctx.needs_input_grad[4:]) and r is not None)
        r = torch.zeros_like(factors) if r is None else r
        h = tuple(torch.zeros_like(k) if x is None else x for x, k in zip(h, kernels, strict=True))
        of_cotangent = None
        if ctx.needs_input_grad[2]:
            of_cotangent = _Collapse.apply(ctx.frame, factors, *h) + _Collapse.apply(ctx.frame, r, *kernels)
        return None, None, of_cotangent, *_Transpose.apply(ctx.frame, wanted, cotangent, r, *h)
