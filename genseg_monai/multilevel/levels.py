"""Who owns which tensors: the three levels of GenSeg and one inner step of each of the two lower ones.

A level is a point, the point really reached by its optimiser, and the linear map from gradient to step that joined
them: ``reached = point - rate * P * gradient`` with P the optimiser's diagonal preconditioner, held constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genseg_monai.multilevel.reduced import Reduced
from genseg_monai.multilevel.tree import LazyTree, Rows, Tree

__all__ = ["InnerStep", "ThreeLevels", "adam_point", "adam_preconditioner", "assert_disjoint"]


@dataclass(frozen=True)
class InnerStep:
    """One optimiser step of a lower level.

    Attributes:
        point: weights w at which the step's gradient was taken.
        reached: weights w' after the step.
        rate: learning rate eta.
        preconditioner: diagonal P by name, ``None`` for the identity (plain gradient descent).
    """

    point: Mapping[str, Tensor]
    reached: Mapping[str, Tensor]
    rate: float
    preconditioner: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.point.keys() != self.reached.keys():
            raise ValueError("an inner step needs the same names before and after it")


@dataclass(frozen=True)
class ThreeLevels:
    """One iteration of the three-level problem, as functions of named tensors.

    Every function must be deterministic: the same arguments give the same value (same augmentation draw, same dropout
    masks, norm layers on batch statistics without touching their running buffers).

    Attributes:
        outer: alpha, and any other outer variable.
        generator: stage I step on theta.
        segmenter: stage II step on phi.
        generator_loss: ``(theta, outer) -> L_gen``, a scalar; the discriminator is a constant inside it.
        synthesise: ``(theta, outer) -> (images, masks)``, the synthetic batch; ``masks`` may depend on ``outer``.
        synthetic_loss: ``(phi, images, masks) -> L_seg`` on the synthetic batch, without gamma.
        real_loss: ``(phi) -> L_seg`` on the real batch; only the unrolled estimator asks for it.
        search_loss: ``(phi) -> L_val`` on the search batch.
        gamma: weight of the synthetic term.
    """

    outer: Tree
    generator: InnerStep
    segmenter: InnerStep
    generator_loss: Callable[[Tree, Tree], Tensor]
    synthesise: Callable[[Tree, Tree], tuple[Tensor, Tensor]]
    synthetic_loss: Callable[[Tree, Tensor, Tensor], Tensor]
    real_loss: Callable[[Tree], Tensor]
    search_loss: Callable[[Tree], Tensor]
    gamma: float = 1.0
    synthetic: tuple[Tensor, Tensor] | None = field(default=None)
    """The synthetic batch already made at ``generator.reached``, with its graph to ``shared``: saves a forward pass."""
    shared: tuple[Tree, Tree] | Reduced | None = field(default=None)
    """The leaves (theta', outer) of that graph; or `Reduced`, whose graphs serve one estimate."""
    synthetic_slope: Tree | None = field(default=None)
    """grad_xhat L_seg(phi; xhat) under the name ``images``, where stage II's own backward pass has found it."""
    synthetic_response: Callable[[Tree], Tree] | None = field(default=None)
    """v -> d/d eps [grad_xhat L_seg(phi + eps v; xhat)] under the name ``images``, from the graph of stage II's own
    backward pass: saves a forward and a backward pass; serves one estimate."""
    twice: Callable[[], AbstractContextManager[object]] = nullcontext
    """Entered around a loss that is differentiated first in the weights and then, of that, in the images alone."""


def assert_disjoint(**levels: Mapping[str, Tensor]) -> None:
    """Check that no tensor belongs to two levels.

    Raises:
        ValueError: naming the two levels and the tensor they share.
    """
    owner: dict[int, str] = {}
    for level, tensors in levels.items():
        for name, tensor in tensors.items():
            if id(tensor) in owner:
                raise ValueError(f"{name} of level '{level}' belongs to level '{owner[id(tensor)]}' as well")
            owner[id(tensor)] = level


def adam_preconditioner(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> Mapping[str, Tensor] | None:
    """Return P of the step that ``optimizer`` has just taken: step = -rate * P * gradient + (terms without it).

    For Adam and AdamW P = [(1 - beta1) / (1 - beta1^t)] / (sqrt(vhat_t) + eps), vhat after the update (the momentum
    factor matters: without it the scale is off tenfold). For SGD P is the identity (the momentum buffer's share of the
    present gradient is 1), given as ``None``. Its tensors are made when asked for: take them before the next step.

    Raises:
        TypeError: for any other optimiser.
        ValueError: if a parameter has not been stepped yet.
    """
    if isinstance(optimizer, torch.optim.SGD):
        return None
    steps = _adam_steps(optimizer, parameters)

    def make(name: str, rows: Rows) -> Tensor:
        state, group = steps[name]
        beta1 = group["betas"][0]
        return _over_denominator((1 - beta1) / (1 - beta1 ** _count(state)), state, group, rows)

    return LazyTree(parameters, make)


def adam_point(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> LazyTree:
    """Return the weights before the step that ``optimizer`` (Adam or AdamW) has just taken, up to rounding.

    Adam keeps all that its step was made of, so no copy need be kept. The tensors are made when asked for: take them
    before the next step.

    Raises:
        TypeError: for any other optimiser.
        ValueError: if a parameter has not been stepped yet.
    """
    steps = _adam_steps(optimizer, parameters)

    def make(name: str, rows: Rows) -> Tensor:
        state, group = steps[name]
        # w = w' + rate mhat / (sqrt(vhat) + eps), and for AdamW that divided by 1 - rate decay
        rate = group["lr"] / (1 - group["betas"][0] ** _count(state))
        taken = _over_denominator(rate, state, group, rows).mul_(state["exp_avg"][rows])
        decay = group["weight_decay"] if group.get("decoupled_weight_decay") else 0.0
        return taken.add_(parameters[name].detach()[rows]).div_(1 - group["lr"] * decay)

    return LazyTree(parameters, make)


def _adam_steps(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return each parameter's state and group, after checking that they are those of an Adam that has stepped."""
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        raise TypeError(f"the hypergradient knows SGD, Adam and AdamW, but the optimiser is {type(optimizer).__name__}")
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, parameter in parameters.items() if not optimizer.state.get(parameter)]
    if missing:
        raise ValueError(f"{missing[0]} has not been stepped by its optimiser yet")
    return {name: (optimizer.state[parameter], groups[id(parameter)]) for name, parameter in parameters.items()}


def _count(state: dict[str, Any]) -> Tensor:
    """Return the number of the step, left where it lies: a fused optimiser counts on the device."""
    return torch.as_tensor(state["step"]).double()


def _over_denominator(factor: Tensor, state: dict[str, Any], group: dict[str, Any], rows: Rows) -> Tensor:
    """Return factor / (sqrt(vhat_t) + eps)."""
    second: Tensor = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"][rows]
    # sqrt(vhat_t) = sqrt(v_t) / sqrt(1 - beta2^t)
    scale = factor * (1 - group["betas"][1] ** _count(state)) ** 0.5
    return second.sqrt().add_(group["eps"] * scale / factor).reciprocal_().mul_(scale)
