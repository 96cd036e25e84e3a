"""Layers in a form that is meant to be differentiated twice, for whatever network is called inside a block.

Values and derivatives are those of PyTorch's layers up to rounding; second derivatives cost less time and memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from genseg_monai.networks.second_convolution import CONVOLUTIONS, Sweeps
from genseg_monai.networks.second_pointwise import POINTWISE

__all__ = ["SecondOrder"]

_STAND_INS: dict[Any, Callable[..., Tensor | None]] = CONVOLUTIONS | POINTWISE


class SecondOrder(TorchFunctionMode):
    """Inside the block, convolutions, instance norm and SiLU run in a form that is meant to be differentiated twice.

    A third derivative is an error. Under autocast the plain layers run.

    Args:
        weights: whether second derivatives in the weights are wanted. Without them a backward pass that keeps no graph
            computes no gradient of any weight: it is then good for gradients in the images alone.

    Example:
        >>> x, conv = torch.ones(1, 1, 4, 4, requires_grad=True), torch.nn.Conv2d(1, 1, 3)
        >>> with SecondOrder():
        ...     loss = conv(x).square().sum()
        >>> slope = torch.autograd.grad(loss, conv.weight, create_graph=True)[0]
        >>> torch.autograd.grad(slope.sum(), x)[0].shape
        torch.Size([1, 1, 4, 4])
    """

    def __init__(self, *, weights: bool = True) -> None:
        super().__init__()
        self._sweeps = Sweeps(weights)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the stand-in of ``func``, if there is one that takes these arguments."""
        stand_in = _STAND_INS.get(func)
        if stand_in is not None and args and not torch.is_autocast_enabled(args[0].device.type):
            found = stand_in(self._sweeps, *args, **(kwargs or {}))
            if found is not None:
                return found
        return func(*args, **(kwargs or {}))
