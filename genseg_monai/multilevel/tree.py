"""Arithmetic on named tensors: the vectors of the three levels are dictionaries ``{name: tensor}``.

Functions return new tensors and keep the order of the first argument's names; one whose name ends in an underscore
overwrites its first argument instead, piece by piece, so that what it makes on the way stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import EllipsisType

import torch
from torch import Tensor

__all__ = [
    "EVERYTHING",
    "Average",
    "LazyTree",
    "Rows",
    "Tree",
    "add_scaled",
    "alone",
    "detached",
    "dot",
    "gradient",
    "multiply",
    "multiply_",
    "norm",
    "owned",
    "part",
    "pieces",
    "scale",
    "shift_",
    "vector_jacobian",
    "zeros_like",
]

Tree = dict[str, Tensor]

Average = Callable[[Tree], Tree]
"""Named tensors -> their means over all processes that work on one batch; what is given may be overwritten."""

Rows = slice | EllipsisType
EVERYTHING: Rows = ...
"""Index of a whole tensor."""

_PIECE = 2**20  # numbers worked on at once; measured on a CPU with 32 MiB of cache


class LazyTree(Mapping[str, Tensor]):
    """Tensors that are made anew each time one is asked for: a tree that need never lie in memory as a whole.

    Args:
        names: of the tensors, in their order.
        make: (name, rows) -> the rows of that tensor, a slice of its first axis or all of it.

    Example:
        >>> tree = LazyTree(["a", "bc"], lambda name, rows: torch.ones(len(name))[rows])
        >>> tree["bc"]
        tensor([1., 1.])
        >>> tree.part("bc", slice(0, 1))
        tensor([1.])
    """

    def __init__(self, names: Iterable[str], make: Callable[[str, Rows], Tensor]) -> None:
        self._names, self._make = dict.fromkeys(names), make

    def part(self, name: str, rows: Rows) -> Tensor:
        """Return some rows of a tensor."""
        if name not in self._names:
            raise KeyError(name)
        return self._make(name, rows)

    def __getitem__(self, name: str) -> Tensor:
        return self.part(name, EVERYTHING)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def part(tree: Mapping[str, Tensor], name: str, rows: Rows) -> Tensor:
    """Return some rows of a tensor, making no more than those of a `LazyTree`."""
    return tree.part(name, rows) if isinstance(tree, LazyTree) else tree[name][rows]


def pieces(tensor: Tensor) -> Iterator[Rows]:
    """Yield the rows of a tensor in pieces that fit a CPU's cache; all at once on other devices.

    Example:
        >>> [(rows.start, rows.stop) for rows in pieces(torch.zeros(6, 2**19))]
        [(0, 2), (2, 4), (4, 6)]
    """
    if tensor.device.type != "cpu" or tensor.numel() <= _PIECE:
        yield EVERYTHING
        return
    step = max(1, _PIECE * len(tensor) // tensor.numel())
    for start in range(0, len(tensor), step):
        yield slice(start, start + step)


def alone(tree: Tree) -> Tree:
    """Return the mean over one process: what is given."""
    return tree


def scale(tree: Mapping[str, Tensor], factor: float | Tensor) -> Tree:
    """Return ``factor * tree``."""
    return {name: value * factor for name, value in tree.items()}


def add_scaled(tree: Mapping[str, Tensor], direction: Mapping[str, Tensor], factor: float | Tensor = 1.0) -> Tree:
    """Return ``tree + factor * direction``; names missing from ``direction`` stay as they are."""
    return {name: value + factor * direction[name] if name in direction else value for name, value in tree.items()}


def multiply(tree: Mapping[str, Tensor], diagonal: Mapping[str, Tensor] | None) -> Tree:
    """Return the elementwise product with ``diagonal``; ``None`` stands for the identity."""
    return dict(tree) if diagonal is None else {name: value * diagonal[name] for name, value in tree.items()}


def owned(tree: Mapping[str, Tensor]) -> Tree:
    """Return the tensors, copied where they share memory (as gradients of a sum may): they may be overwritten."""
    seen: set[int] = set()
    result: Tree = {}
    for name, value in tree.items():
        shared = value.data_ptr() in seen or any(
            step == 0 and n > 1 for step, n in zip(value.stride(), value.shape, strict=True)
        )
        result[name] = value.clone(memory_format=torch.contiguous_format) if shared else value
        seen.add(value.data_ptr())
    return result


def multiply_(tree: Mapping[str, Tensor], diagonal: Mapping[str, Tensor] | None) -> None:
    """Multiply elementwise by ``diagonal``; ``None`` stands for the identity."""
    if diagonal is None:
        return
    for name, value in tree.items():
        for rows in pieces(value):
            value[rows].mul_(part(diagonal, name, rows))


def shift_(direction: Mapping[str, Tensor], tree: Mapping[str, Tensor], factor: float) -> None:
    """Put ``tree + factor * direction`` in the place of ``direction``."""
    for name, value in direction.items():
        for rows in pieces(value):
            value[rows].mul_(factor).add_(part(tree, name, rows))


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
    value: Tensor, tree: Mapping[str, Tensor], *, cotangent: Tensor | None = None, create_graph: bool = False
) -> Tree:
    """Return d ``value`` / d ``tree``; zeros where ``value`` does not depend on a tensor.

    Args:
        value: scalar, or any tensor together with a ``cotangent`` of its shape.
        tree: tensors that require a gradient.
        cotangent: the vector of the vector-Jacobian product.
        create_graph: keep the result differentiable.
    """
    given = None if cotangent is None else {"": cotangent}
    return vector_jacobian({"": value}, tree, given, create_graph=create_graph)


def vector_jacobian(
    values: Mapping[str, Tensor],
    tree: Mapping[str, Tensor],
    cotangents: Mapping[str, Tensor] | None,
    *,
    create_graph: bool = False,
) -> Tree:
    """Return d <``values``, ``cotangents``> / d ``tree``; zeros where no value depends on a tensor.

    Args:
        values: tensors.
        tree: tensors that require a gradient.
        cotangents: of the values, by their names; None if they are scalars that count once.
        create_graph: keep the result differentiable.
    """
    values = {name: value for name, value in values.items() if value.requires_grad}
    if not values or not tree:
        return zeros_like(tree)
    found = torch.autograd.grad(
        list(values.values()),
        list(tree.values()),
        grad_outputs=None if cotangents is None else [cotangents[name] for name in values],
        create_graph=create_graph,
        allow_unused=True,
    )
    return {
        name: torch.zeros_like(tree[name]) if entry is None else entry for name, entry in zip(tree, found, strict=True)
    }
