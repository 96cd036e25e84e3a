"""Arithmetic on named tensors: the vectors of the three levels are dictionaries ``{name: tensor}``.

All functions return new tensors and keep the order of the first argument's names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Tree", "add_scaled", "detached", "dot", "gradient", "multiply", "norm", "scale", "zeros_like"]

Tree = dict[str, Tensor]


def scale(tree: Mapping[str, Tensor], factor: float | Tensor) -> Tree:
    """Return ``factor * tree``."""
    return {name: value * factor for name, value in tree.items()}


def add_scaled(tree: Mapping[str, Tensor], direction: Mapping[str, Tensor], factor: float | Tensor = 1.0) -> Tree:
    """Return ``tree + factor * direction``; names missing from ``direction`` stay as they are."""
    return {name: value + factor * direction[name] if name in direction else value for name, value in tree.items()}


def multiply(tree: Mapping[str, Tensor], diagonal: Mapping[str, Tensor] | None) -> Tree:
    """Return the elementwise product with ``diagonal``; ``None`` stands for the identity."""
    return dict(tree) if diagonal is None else {name: value * diagonal[name] for name, value in tree.items()}


def dot(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    """Return the inner product over all names of ``left`` as a scalar tensor."""
    return torch.stack([(value * right[name]).sum() for name, value in left.items()]).sum()


def norm(tree: Mapping[str, Tensor]) -> Tensor:
    """Return the Euclidean norm of all entries together as a scalar tensor."""
    lengths: list[Tensor] = [torch.linalg.vector_norm(value) for value in tree.values()]
    return torch.stack(lengths).square().sum().sqrt()


def zeros_like(tree: Mapping[str, Tensor]) -> Tree:
    """Return zeros of the same names, shapes, types and devices."""
    return {name: torch.zeros_like(value) for name, value in tree.items()}


def detached(tree: Mapping[str, Tensor], *, requires_grad: bool = False) -> Tree:
    """Return the same storage cut off from any graph, as fresh leaves if ``requires_grad``."""
    return {name: value.detach().requires_grad_(requires_grad) for name, value in tree.items()}


def gradient(
    value: Tensor,
    tree: Mapping[str, Tensor],
    *,
    cotangent: Tensor | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Tree:
    """Return d ``value`` / d ``tree``; zeros where ``value`` does not depend on a tensor.

    Args:
        value: scalar, or any tensor together with a ``cotangent`` of its shape.
        tree: tensors that require a gradient.
        cotangent: the vector of the vector-Jacobian product.
        create_graph: keep the result differentiable.
        retain_graph: keep the graph of ``value`` for another pass.
    """
    if not value.requires_grad:
        return zeros_like(tree)
    found = torch.autograd.grad(
        value,
        list(tree.values()),
        grad_outputs=cotangent,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
    )
    return {
        name: torch.zeros_like(tree[name]) if entry is None else entry for name, entry in zip(tree, found, strict=True)
    }
