"""Convolutions of few voxels by many weights, as one matrix product.

The innermost cells of a generator hold most of its weights and see 1 to 64 voxels. There a library's convolution, made
for large images, runs at a tenth of the speed of a matrix product on a CPU; on 3 x 3 kernels and large images it wins.
The values are the same up to rounding, and both forms can be differentiated any number of times.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

__all__ = ["convolve_2d"]

_WEIGHTS_A_ROW = 2**16  # weights for each row of the matrix product from which on it is the faster form; measured


def convolve_2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: Sequence[int], *, transposed: bool
) -> Tensor:
    """Return a (transposed) convolution in whichever form is faster.

    Args:
        x: `B in H W`.
        weight: `out in kH kW`, or `in out kH kW` when transposed.
        bias: `out` or None.
        stride: the same along each axis.
        padding: zeros at either end of each axis (of the output when transposed).
        transposed: whether the resolution rises.

    Example:
        >>> import torch
        >>> convolve_2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), None, 2, [1, 1], transposed=False)[0, 0, 0]
        tensor([9., 9.])
    """
    rows = len(x) * x[0, 0].numel() // (1 if transposed else stride**2)
    if x.device.type == "cpu" and weight.numel() >= _WEIGHTS_A_ROW * rows:
        y = (_product_transposed if transposed else _product)(x, weight, stride, padding)
        return y if bias is None else y + bias[:, None, None]
    return (F.conv_transpose2d if transposed else F.conv2d)(x, weight, bias, stride, padding)


def _product(x: Tensor, weight: Tensor, stride: int, padding: Sequence[int]) -> Tensor:
    """Gather the patch of each output voxel, then multiply."""
    size = weight.shape[2:]
    height, width = ((n + 2 * p - k) // stride + 1 for n, p, k in zip(x.shape[2:], padding, size, strict=True))
    patches = F.unfold(x, tuple(size), padding=tuple(padding), stride=stride)
    patches = rearrange(patches, "b (c taps) voxel -> (b voxel) (taps c)", c=x.shape[1])
    y = patches @ rearrange(weight, "out c kh kw -> (kh kw c) out")
    return rearrange(y, "(b h w) out -> b out h w", h=height, w=width)


def _product_transposed(x: Tensor, weight: Tensor, stride: int, padding: Sequence[int]) -> Tensor:
    """Multiply, then add the patch of each input voxel up."""
    size = weight.shape[2:]
    shape = [(n - 1) * stride - 2 * p + k for n, p, k in zip(x.shape[2:], padding, size, strict=True)]
    patches = rearrange(x, "b c h w -> (b h w) c") @ rearrange(weight, "c out kh kw -> c (kh kw out)")
    patches = rearrange(patches, "(b voxel) (taps out) -> b (out taps) voxel", b=x.shape[0], out=weight.shape[1])
    return F.fold(patches, tuple(shape), tuple(size), padding=tuple(padding), stride=stride)
