"""How the networks are run on a device: number format, memory format, compiled or not, and how their optimisers step.

None of it changes a name in a checkpoint: a run may stop with one choice and go on with another. What stage III
differentiates a second time always runs as it is, uncompiled and in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.optim import Optimizer

from genseg_monai.errors import UserError
from genseg_monai.multilevel import Estimator

__all__ = ["Acceleration", "Forward", "Precision", "like_in_memory", "plainly", "settle_memory"]

Forward = Callable[..., Tensor]
"""``forward(function, *inputs)``: what a network, or a function of tensors, gives for its inputs."""

_Module = TypeVar("_Module", bound=nn.Module)
_BFLOAT16_FROM = (8, 0)
_FUSED = ("cpu", "cuda")


class Precision(StrEnum):
    """The numbers in which forward and backward passes are computed; weights, losses and optimisers keep float32."""

    AUTO = "auto"
    """``bfloat16`` on a GPU of compute capability 8.0 (Ampere) or later, else ``float32``."""
    FLOAT32 = "float32"
    """Full float32 everywhere: on a GPU without TF32."""
    TF32 = "tf32"
    """On a GPU: float32, whose products are rounded to 10 bits on the tensor cores."""
    BFLOAT16 = "bfloat16"
    """Autocast to bfloat16; on a GPU what is left in float32 may use TF32."""


def plainly(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Call ``function`` as it is."""
    return function(*inputs)


@dataclass(frozen=True)
class Acceleration:
    """How networks run on a device. ``None`` and ``auto`` are replaced by what they mean there.

    Args:
        device: where everything lies.
        precision: of the passes of stages I and II and of validation, see `Precision`.
        channels_last: whether images lie in memory with their channels last; by default on a GPU. Pictures only.
        compile: whether segmenter, discriminator and the derived generator go through `torch.compile`; not where their
            inputs carry a gradient of an earlier network.
        fused: whether an optimiser steps in one kernel; by default on a CPU and on a GPU.
        benchmark: whether cuDNN tries its algorithms on each new size first; every phase has one size.

    Raises:
        UserError: an unknown precision, or one the device does not have.

    Example:
        >>> acceleration = Acceleration("cpu", precision="bfloat16")
        >>> acceleration.forward(nn.Conv2d(1, 2, 3), torch.rand(1, 1, 8, 8)).dtype
        torch.float32
        >>> Acceleration("cpu").precision
        <Precision.FLOAT32: 'float32'>
    """

    device: torch.device | str = "cpu"
    precision: Precision | str = Precision.AUTO
    channels_last: bool | None = None
    compile: bool = False
    fused: bool | None = None
    benchmark: bool = True

    def __post_init__(self) -> None:
        if self.precision not in list(Precision):
            raise UserError("precision", f"wanted one of {', '.join(Precision)}, got '{self.precision}'")
        device, precision = torch.device(self.device), Precision(self.precision)
        cuda = device.type == "cuda"
        capable = cuda and torch.cuda.get_device_capability(device) >= _BFLOAT16_FROM
        if precision is Precision.AUTO:
            precision = Precision.BFLOAT16 if capable else Precision.FLOAT32
        if (precision is Precision.TF32 or (cuda and precision is Precision.BFLOAT16)) and not capable:
            here = f"on {torch.cuda.get_device_name(device) if cuda else device}"
            raise UserError("precision", f"{precision} wants a GPU of compute capability 8.0; take float32 {here}")
        if self.fused and device.type not in _FUSED:
            raise UserError("fused", f"wanted a device of {', '.join(_FUSED)}, got {device}; leave it null")
        settled = {
            "device": device,
            "precision": precision,
            "channels_last": cuda if self.channels_last is None else self.channels_last,
            "fused": device.type in _FUSED if self.fused is None else self.fused,
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    @property
    def exact(self) -> bool:
        """Whether stage II's gradients may be the base points of stage III's differences."""
        return self.precision is Precision.FLOAT32 and not self.compile

    def prepare(self, module: _Module) -> _Module:
        """Return the module, the kernels of its 2D convolutions laid out as its images will be."""
        if self.channels_last:
            for parameter in module.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return module

    def forward(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """Return what ``function`` gives for ``inputs``; a result in half the bits comes back in float32."""
        return self._run(self._compiled if self._compiles(function, inputs) else plainly, function, *inputs)

    def inferer(self, inferer: Inferer) -> Inferer:
        """Return ``inferer`` with networks in this precision (never compiled: the sizes of whole images differ)."""
        return _Inferer(inferer, self)

    @contextmanager
    def settings_of_the_device(self) -> Iterator[None]:
        """Let convolutions and products inside the block use TF32 if this precision does, and cuDNN search."""
        if torch.device(self.device).type != "cuda":
            yield
            return
        with _products(tf32=self.precision is not Precision.FLOAT32, benchmark=self.benchmark):
            yield

    @contextmanager
    def stage_three(self, estimator: Estimator | str) -> Iterator[None]:
        """Compute the block in float32; without TF32 where ``estimator`` takes differences of two passes.

        A difference step changes most weights by less than half a unit of their tenth bit.
        """
        differences = Estimator(estimator) in (Estimator.FINITE_DIFFERENCE, Estimator.ONE_SIDED, Estimator.HYBRID)
        if torch.device(self.device).type != "cuda" or not differences:
            yield
            return
        with _products(tf32=False, benchmark=self.benchmark):
            yield

    def _compiles(self, function: Callable[..., Tensor], inputs: tuple[Any, ...]) -> bool:
        # the searchable generator has derivatives of its own, and the compiler warns of inputs that have a past
        fresh = all(value.grad_fn is None for value in inputs if isinstance(value, Tensor))
        return self.compile and fresh and isinstance(function, nn.Module) and not hasattr(function, "arch_parameters")

    @cached_property
    def _compiled(self) -> Forward:
        # one graph for each module and size, since each phase keeps to one size
        return torch.compile(plainly, dynamic=False)

    def _run(self, forward: Forward, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        if self.channels_last:
            inputs = tuple(_channels_last(value) for value in inputs)
        if self.precision is not Precision.BFLOAT16:
            return forward(function, *inputs)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            found = forward(function, *inputs)
        return found.float() if isinstance(found, Tensor) and found.dtype == torch.bfloat16 else found


class _Inferer(Inferer):
    def __init__(self, inferer: Inferer, acceleration: Acceleration) -> None:
        super().__init__()
        self.inferer, self.acceleration = inferer, acceleration

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Infer."""

        def segment(*given: Any, **named: Any) -> Any:
            return self.acceleration._run(plainly, partial(network, **named), *given)

        return self.inferer(inputs, segment, *args, **kwargs)


@contextmanager
def _products(*, tf32: bool, benchmark: bool) -> Iterator[None]:
    """Set TF32 and cuDNN's search inside the block, and put back what was."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = matmul.allow_tf32
    with cudnn.flags(enabled=cudnn.enabled, benchmark=benchmark, deterministic=cudnn.deterministic, allow_tf32=tf32):
        matmul.allow_tf32 = tf32
        try:
            yield
        finally:
            matmul.allow_tf32 = before


def _channels_last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value


def like_in_memory(value: Tensor, parameter: Tensor) -> Tensor:
    """Return ``value`` in the memory layout of ``parameter``: a fused optimiser walks both in step, unchecked.

    Example:
        >>> kernel = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
        >>> like_in_memory(torch.ones(2, 3, 4, 4), kernel).stride() == kernel.stride()
        True
    """
    if value.stride() == parameter.stride() or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def settle_memory(optimizer: Optimizer) -> None:
    """Bring an optimiser's memories, which may come from a checkpoint, to the layout of the weights they belong to."""
    for parameter, memories in optimizer.state.items():
        for name, value in memories.items():
            if isinstance(value, Tensor):
                memories[name] = like_in_memory(value, parameter)
