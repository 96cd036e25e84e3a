r"""Convolutions whose second derivatives cost what their first do.

A convolution y = W x is linear in W and in x, so its backward pass g -> (W' g, g * x) is bilinear, and the backward
pass of that one is made of the same three products again: with h_x and h_w the cotangents of the two,

    d/dg = W h_x + h_w x,     d/dx = h_w' g,     d/dW = g * h_x

PyTorch computes d/dx with the roles of batch and channels exchanged and g for a kernel of the image's size; here it is
the input gradient of a convolution with kernel h_w. And what nobody asks for is left out: see `Sweeps`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["CONVOLUTIONS", "Sweeps"]

_FORWARD = torch.ops.aten.convolution.default
_BACKWARD = torch.ops.aten.convolution_backward.default


@dataclass(frozen=True)
class Sweeps:
    """Which gradients the backward passes are asked for.

    Attributes:
        weights: whether the second derivatives in the weights are wanted; the first are found in any case.
    """

    weights: bool

    def of_weights(self) -> bool:
        """Tell whether the backward pass that is under way (the first one keeps a graph) is to look at the weights."""
        return self.weights or torch.is_grad_enabled()


@dataclass(frozen=True)
class _Form:
    """Stride, padding and the like, as `aten::convolution` takes them."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return _FORWARD(x, weight, bias, *self._arguments())

    def pull_back(
        self, g: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients in input, kernel and bias, None where not wanted."""
        channels = g.shape[1]
        return _BACKWARD(g, x, weight, [channels] if wanted[2] else None, *self._arguments(), list(wanted))

    def _arguments(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups


class _Convolution(torch.autograd.Function):
    """(x, W, b) -> W x + b."""

    @staticmethod
    def forward(form: _Form, sweeps: Sweeps, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return form.apply(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.form, ctx.sweeps, x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        _, _, x, weight, bias = ctx.needs_input_grad
        kernels = ctx.sweeps.of_weights()
        wanted = (x, weight and kernels, bias and kernels)
        return None, None, *_PullBack.apply(ctx.form, ctx.sweeps, wanted, g, *ctx.saved_tensors)


class _PullBack(torch.autograd.Function):
    """The backward pass of `_Convolution`: (g, x, W) -> (W' g, g * x, sum g)."""

    @staticmethod
    def forward(
        form: _Form, sweeps: Sweeps, wanted: tuple[bool, bool, bool], g: Tensor, x: Tensor, weight: Tensor
    ) -> tuple[Tensor | None, ...]:
        return tuple(form.pull_back(g, x, weight, wanted))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        ctx.form, ctx.sweeps, _, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, hx: Tensor | None, hw: Tensor | None, hb: Tensor | None) -> tuple[Tensor | None, ...]:
        g, x, weight = ctx.saved_tensors
        both = (ctx.form, ctx.sweeps)
        of_g = of_x = of_weight = None
        if ctx.needs_input_grad[3]:
            # W h_x + h_w x
            terms = [
                _Convolution.apply(*both, image, kernel, None)
                for image, kernel in ((hx, weight), (x, hw))
                if image is not None and kernel is not None
            ]
            if hb is not None:
                terms.append(hb.reshape(1, -1, *[1] * (g.ndim - 2)).expand_as(g))
            for term in terms:
                of_g = term if of_g is None else of_g.add_(term) if not of_g.requires_grad else of_g + term
        if ctx.needs_input_grad[4] and hw is not None:
            # h_w' g
            of_x = _PullBack.apply(*both, (True, False, False), g, x, hw)[0]
        if ctx.needs_input_grad[5] and hx is not None and ctx.sweeps.of_weights():
            # g * h_x
            of_weight = _PullBack.apply(*both, (False, True, False), g, hx, weight)[1]
        return None, None, None, of_g, of_x, of_weight


Given = tuple[Tensor, Tensor, Tensor | None, _Form]


def _plain(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Given | None:
    """Read the arguments of `torch.nn.functional.conv2d` and the like; None if they ask for what is not done here."""
    dims = weight.ndim - 2
    if isinstance(padding, str) or input.ndim != weight.ndim:
        return None
    form = _Form(_each(stride, dims), _each(padding, dims), _each(dilation, dims), False, [0] * dims, groups)
    return input, weight, bias, form


def _transposed(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Given | None:
    """Read the arguments of `torch.nn.functional.conv_transpose2d` and the like."""
    dims = weight.ndim - 2
    if input.ndim != weight.ndim:
        return None
    extra = _each(output_padding, dims)
    return (
        input,
        weight,
        bias,
        _Form(_each(stride, dims), _each(padding, dims), _each(dilation, dims), True, extra, groups),
    )


def _each(value: Any, dims: int) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * dims if len(numbers) == 1 else numbers


def _stand_in(read: Callable[..., Given | None]) -> Callable[..., Tensor | None]:
    def convolve(sweeps: Sweeps, *args: Any, **kwargs: Any) -> Tensor | None:
        given = read(*args, **kwargs)
        if given is None:
            return None
        x, weight, bias, form = given
        return _Convolution.apply(form, sweeps, x, weight, bias)

    return convolve


CONVOLUTIONS: dict[Any, Callable[..., Tensor | None]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _stand_in(_plain)),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _stand_in(_transposed)),
}
"""What runs in the place of each function of torch, given `Sweeps` and its arguments; None for what it does not do."""
