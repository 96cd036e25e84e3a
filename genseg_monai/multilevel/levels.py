"""Who owns which tensors: the three levels of GenSeg and one inner step of each of the two lower ones.

A level is a point, the point really reached by its optimiser, and the linear map from gradient to step that joined
them: ``reached = point - rate * P * gradient`` with P the optimiser's diagonal preconditioner, held constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genseg_monai.multilevel.tree import Tree

__all__ = ["InnerStep", "ThreeLevels", "adam_preconditioner", "assert_disjoint"]


@dataclass(frozen=True)
class InnerStep:
    """One optimiser step of a lower level.

    Attributes:
        point: weights w at which the step's gradient was taken.
        reached: weights w' after the step.
        rate: learning rate eta.
        preconditioner: diagonal P by name, ``None`` for the identity (plain gradient descent).
    """

    point: Tree
    reached: Tree
    rate: float
    preconditioner: Tree | None = None

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
    shared: tuple[Tree, Tree] | None = field(default=None)
    """The leaves (theta', outer) of that graph."""


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


def adam_preconditioner(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> Tree | None:
    """Return P of the step that ``optimizer`` has just taken: step = -rate * P * gradient + (terms without it).

    For Adam and AdamW P = [(1 - beta1) / (1 - beta1^t)] / (sqrt(vhat_t) + eps), vhat after the update (the momentum
    factor matters: without it the scale is off tenfold). For SGD P is the identity (the momentum buffer's share of the
    present gradient is 1), given as ``None``.

    Raises:
        TypeError: for any other optimiser.
        ValueError: if a parameter has not been stepped yet.
    """
    if isinstance(optimizer, torch.optim.SGD):
        return None
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        raise TypeError(f"the hypergradient knows SGD, Adam and AdamW, but the optimiser is {type(optimizer).__name__}")
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    preconditioner: Tree = {}
    for name, parameter in parameters.items():
        state, group = optimizer.state.get(parameter), groups[id(parameter)]
        if not state:
            raise ValueError(f"{name} has not been stepped by its optimiser yet")
        (beta1, beta2), t = group["betas"], float(state["step"])
        denominator = (state["exp_avg_sq"] / (1 - beta2**t)).sqrt_().add_(group["eps"])
        preconditioner[name] = denominator.reciprocal_().mul_((1 - beta1) / (1 - beta1**t))
    return preconditioner
