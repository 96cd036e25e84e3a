r"""Instance norm and SiLU whose second derivatives take few passes over the images.

With r = 1 / sqrt(var + eps), z = r (x - mean), m voxels and P u = u - mean(u) - z mean(u z), the norm y = w z + b has

    backward       g_x = r w P g,   g_w = sum g z,   g_b = sum g
    and of that    d/dg = r w P h_x + h_w z + h_b
                   d/dx = (r h_w - r^2 w p) P g - r^2 w t P h_x - r^2 w s z
                   d/dw = m r s,    p = mean(h_x z),   t = mean(g z),   s = mean(h_x g) - mean(h_x) mean(g) - p t

with h_x, h_w, h_b the cotangents of g_x, g_w, g_b, image by image and channel by channel. PyTorch spells the same out
in many more passes, and keeps more on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from genseg_monai.networks.second_convolution import Sweeps

__all__ = ["POINTWISE"]

_NORM_BACKWARD = torch.ops.aten.native_batch_norm_backward.default
_SILU_BACKWARD = torch.ops.aten.silu_backward.default


class _Norm(torch.autograd.Function):
    """(x, w, b) -> w z + b."""

    @staticmethod
    def forward(
        sweeps: Sweeps, eps: float, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        # instance norm is the batch norm of one image that has all images' channels
        shifts = None if bias is None else bias.repeat(len(x))
        scales = weight.repeat(len(x))
        y, mean, r = torch.native_batch_norm(_one_image(x), scales, shifts, None, None, True, 0.0, eps)
        return y.view(x.shape), mean, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.sweeps, ctx.eps, x, weight, _ = inputs
        _, mean, r = output
        ctx.mark_non_differentiable(mean, r)
        ctx.save_for_backward(x, weight, mean, r)

    @staticmethod
    def backward(ctx: Any, g: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
        _, _, x, weight, bias = ctx.needs_input_grad
        weights = ctx.sweeps.of_weights()
        wanted = (x, weight and weights, bias and weights)
        return None, None, *_NormPullBack.apply(ctx.sweeps, wanted, ctx.eps, g, *ctx.saved_tensors)


class _NormPullBack(torch.autograd.Function):
    """The backward pass of `_Norm`: (g, x, w) -> (g_x, g_w, g_b)."""

    @staticmethod
    def forward(
        sweeps: Sweeps,
        wanted: tuple[bool, bool, bool],
        eps: float,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        mean: Tensor,
        r: Tensor,
    ) -> tuple[Tensor | None, ...]:
        scales = weight.repeat(len(x))
        of_x, *rest = _NORM_BACKWARD(_one_image(g), _one_image(x), scales, None, None, mean, r, True, eps, list(wanted))
        sums = [value.view(len(x), -1).sum(0) if want else None for value, want in zip(rest, wanted[1:], strict=True)]
        return of_x.view(x.shape) if wanted[0] else None, *sums

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        ctx.sweeps, _, _, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, hx: Tensor | None, hw: Tensor | None, hb: Tensor | None) -> tuple[Tensor | None, ...]:
        g, x, weight, mean, r = ctx.saved_tensors
        shape, rows, m = x.shape, len(mean), x[0, 0].numel()

        def spread(value: Tensor) -> Tensor:
            """Bring one number a channel to one for each image and channel."""
            return value.repeat(len(x))[:, None]

        w, r, h_w = spread(weight), r[:, None], 0.0 if hw is None else spread(hw)
        g, h = g.reshape(rows, m), None if hx is None else hx.reshape(rows, m)
        z = (x.reshape(rows, m) - mean[:, None]).mul_(r)
        t, g_mean = _means(g, z), g.mean(1, keepdim=True)
        p = h_mean = s = torch.zeros_like(t)
        if h is not None:
            p, h_mean = _means(h, z), h.mean(1, keepdim=True)
            s = _means(h, g) - h_mean * g_mean - p * t
        of_g = of_x = of_weight = None
        if ctx.needs_input_grad[3]:
            shift = -r * w * h_mean + (0.0 if hb is None else spread(hb))
            of_g = _sum((z, h_w - r * w * p), (h, r * w)).add_(shift).view(shape)
        if ctx.needs_input_grad[4]:
            by_g, by_h = r * h_w - r.square() * w * p, -r.square() * w * t
            by_z = -by_g * t - by_h * p - r.square() * w * s
            of_x = _sum((z, by_z), (g, by_g), (h, by_h)).sub_(by_g * g_mean + by_h * h_mean).view(shape)
        if ctx.needs_input_grad[5] and h is not None and ctx.sweeps.of_weights():
            of_weight = (m * r * s).view(len(x), -1).sum(0)
        return None, None, None, of_g, of_x, of_weight, None, None


def _one_image(x: Tensor) -> Tensor:
    return x.reshape(1, -1, *x.shape[2:])


def _means(left: Tensor, right: Tensor) -> Tensor:
    """Return the mean of each row of the product, `rows 1`."""
    return torch.linalg.vecdot(left, right)[:, None] / left.shape[1]


def _sum(first: tuple[Tensor, Tensor], *others: tuple[Tensor | None, Tensor]) -> Tensor:
    """Return the sum of tensors, each times a column of factors."""
    total = first[0] * first[1]
    for value, factor in others:
        if value is not None:
            total.addcmul_(value, factor)
    return total


class _Silu(torch.autograd.Function):
    """X times its sigmoid."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.silu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return _SiluPullBack.apply(g, *ctx.saved_tensors)


class _SiluPullBack(torch.autograd.Function):
    """The backward pass of `_Silu`."""

    @staticmethod
    def forward(g: Tensor, x: Tensor) -> Tensor:
        return _SILU_BACKWARD(g, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor, Tensor | None]:
        g, x = ctx.saved_tensors
        of_x = None
        if ctx.needs_input_grad[1]:
            # silu'' = s (1 - s) (2 + x (1 - 2 s)), s = sigmoid x
            s = torch.sigmoid(x)
            of_x = s.mul(-2).add_(1).mul_(x).add_(2)
            of_x.mul_(s.addcmul_(s, s, value=-1)).mul_(g).mul_(h)
        return _SILU_BACKWARD(h, x), of_x


def _instance_norm(
    sweeps: Sweeps,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Stand in for `torch.nn.functional.instance_norm`, where it has no running statistics."""
    if running_mean is not None or running_var is not None or not use_input_stats or input[0, 0].numel() == 1:
        return None
    y: Tensor = _Norm.apply(sweeps, eps, input, input.new_ones(input.shape[1]) if weight is None else weight, bias)[0]
    return y


def _silu(sweeps: Sweeps, input: Tensor, inplace: bool = False) -> Tensor | None:
    """Stand in for `torch.nn.functional.silu`."""
    y: Tensor | None = None if inplace else _Silu.apply(input)
    return y


POINTWISE: dict[Any, Callable[..., Tensor | None]] = {F.instance_norm: _instance_norm, F.silu: _silu}
"""What runs in the place of each function of torch, as in `genseg_monai.networks.second_convolution`."""
