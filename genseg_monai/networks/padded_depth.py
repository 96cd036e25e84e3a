"""Strided convolutions in 3D, with the zeros along the depth written out instead of asked for.

On a CPU, oneDNN (as in torch 2.13, AVX-512) overruns its buffers in the weight gradient of a 3D convolution whose
kernel is about as deep as its padded input: kernel 8, stride 2, padding 3 at a depth of 6 or 8, which nearly every
generator has somewhere. The gradient is then wrong or NaN, or the process dies. Without padding along the depth it is
right. Values are those of the plain layers, state dicts too.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PaddedConv3d", "PaddedConvTranspose3d", "convolve", "convolve_transposed"]


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """Return `torch.nn.functional.conv3d` of the same arguments.

    Args:
        x: `B in X Y Z`.
        weight: `out in kX kY kZ`.
        bias: `out`, or None.
        stride: along each axis; so are the others.
        padding: zeros on each side.
        dilation: distance between taps.
    """
    depth = padding[0]
    x = F.pad(x, [0, 0, 0, 0, depth, depth])
    return F.conv3d(x, weight, bias, stride, [0, padding[1], padding[2]], dilation)


def convolve_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """Return the transposed convolution whose output has ``stride`` times the size of ``x``.

    Args:
        x: `B in X Y Z`.
        weight: `in out kX kY kZ`.
        bias: `out`, or None.
        stride: along each axis; so are the others.
        padding: taken off the output on each side.
        dilation: distance between taps.
    """
    extra = [stride[axis] + 2 * padding[axis] - dilation[axis] * (weight.shape[2 + axis] - 1) - 1 for axis in range(3)]
    extra[0] = 0
    y = F.conv_transpose3d(x, weight, bias, stride, [0, padding[1], padding[2]], extra, 1, dilation)
    return y.narrow(2, padding[0], stride[0] * x.shape[2])


class PaddedConv3d(nn.Conv3d):
    """`torch.nn.Conv3d` for integer padding and one group.

    Example:
        >>> import torch
        >>> PaddedConv3d(1, 2, 8, stride=2, padding=3)(torch.zeros(1, 1, 8, 8, 8)).shape
        torch.Size([1, 2, 4, 4, 4])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `B in X Y Z`."""
        padding = [int(self.padding[0]), int(self.padding[1]), int(self.padding[2])]
        return convolve(x, self.weight, self.bias, list(self.stride), padding, list(self.dilation))


class PaddedConvTranspose3d(nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` whose output has ``stride`` times the size of its input.

    Example:
        >>> import torch
        >>> PaddedConvTranspose3d(1, 2, 8, stride=2, padding=3)(torch.zeros(1, 1, 4, 4, 4)).shape
        torch.Size([1, 2, 8, 8, 8])
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve `B in X Y Z`; ``output_size`` is not for this layer."""
        padding = [int(self.padding[0]), int(self.padding[1]), int(self.padding[2])]
        return convolve_transposed(x, self.weight, self.bias, list(self.stride), padding, list(self.dilation))
