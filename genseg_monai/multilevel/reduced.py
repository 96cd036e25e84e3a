"""The generator seen through fewer numbers: its collapsed kernels.

Where theta and alpha act through kappa(theta, alpha) alone, block by block (a block is a cell of the generator), and
kappa is linear in theta, then second derivatives need only be taken in kappa:

    L_gen(theta, alpha) = l(kappa(theta, alpha)),   g = grad l,   H = Hessian of l,   both at kappa(theta, alpha)
    xi = pull back of the synthetic batch's cotangent to kappa(theta', alpha)
    (u, a1) = pull back of xi through kappa at (theta', alpha)
    a2 = d/d alpha [ <g, kappa(P_g u, alpha)> + <H kappa(P_g u), kappa(theta, alpha)> ]

The candidates of a generator hold three times as many weights as its kernels; no more than one block of vectors as long
as theta (u, P_g u, theta before the step) is ever held. Stage I has l and g already, with their graph.

Several processes that share a batch average xi, from which u and a1 follow linearly, and a2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from genseg_monai.multilevel.tree import (
    EVERYTHING,
    Average,
    LazyTree,
    Rows,
    Tree,
    alone,
    detached,
    gradient,
    multiply,
    part,
    pieces,
    vector_jacobian,
    zeros_like,
)

__all__ = ["Block", "Reduced", "exact_response", "pull_back"]


@dataclass(frozen=True)
class Block:
    """A part of theta and what it is reduced to.

    Attributes:
        names: of its weights.
        outer: names of the outer variables it depends on.
        reduce: ``(weights by these names, outer) -> kappa``, linear in the weights; names of kappa are the block's own.
        by_rows: whether each row (of the first axis) of kappa needs the same rows of the weights alone.
    """

    names: tuple[str, ...]
    outer: tuple[str, ...]
    reduce: Callable[[Tree, Tree], Tree]
    by_rows: bool = False

    def of(self, theta: Mapping[str, Tensor], rows: Rows = EVERYTHING) -> Tree:
        """Return the block's weights."""
        return {name: part(theta, name, rows) for name in self.names}

    def alpha(self, outer: Mapping[str, Tensor]) -> Tree:
        """Return the block's outer variables as fresh leaves."""
        return {name: outer[name].detach().requires_grad_() for name in self.outer}

    def pieces(self, theta: Mapping[str, Tensor]) -> Iterator[Rows]:
        """Yield rows of the block that fit a CPU's cache together with what is done to them."""
        return pieces(max(self.of(theta).values(), key=Tensor.numel)) if self.by_rows else iter([EVERYTHING])


@dataclass(frozen=True)
class Reduced:
    """What stages I and II computed on the way, with the graphs; each can be asked once.

    Attributes:
        blocks: together all of theta; outer variables act on the generator through them alone.
        point: kappa(theta, alpha), leaves of the graph of ``slope``.
        slope: g = grad l at ``point``, from stage I.
        reached: kappa(theta', alpha), leaves of the synthetic batch's graph.
    """

    blocks: Sequence[Block]
    point: Tree
    slope: Tree
    reached: Tree


def pull_back(
    reduced: Reduced, theta_reached: Mapping[str, Tensor], outer: Tree, pulled: Tensor, average: Average = alone
) -> tuple[Tree, Tree]:
    """Return the gradient of ``pulled`` in theta' and in the outer variables: u and a1."""
    xi = average(gradient(pulled, reduced.reached))
    u, a1 = Tree(), zeros_like(outer)
    for block in reduced.blocks:
        u |= _pull_back(block, block.of(theta_reached), outer, xi, a1)
    return u, a1


def _pull_back(block: Block, weights: Tree, outer: Tree, cotangents: Mapping[str, Tensor], total: Tree) -> Tree:
    """Return the gradient of <kappa, cotangents> in the weights, and add that in the outer variables to ``total``."""
    weights, alpha = detached(weights, requires_grad=True), block.alpha(outer)
    found = vector_jacobian(block.reduce(weights, alpha), weights | alpha, cotangents)
    for name in alpha:
        total[name] += found[name]
    return {name: found[name] for name in weights}


def exact_response(
    reduced: Reduced,
    point: Mapping[str, Tensor],
    theta_reached: Mapping[str, Tensor],
    preconditioner: Mapping[str, Tensor] | None,
    outer: Tree,
    pulled: Tensor,
    average: Average = alone,
) -> tuple[Tree, Tree]:
    """Return a1 and a2.

    Args:
        reduced: what stages I and II left.
        point: theta.
        theta_reached: theta'.
        preconditioner: P_g.
        outer: alpha.
        pulled: scalar, linear in the synthetic batch, whose gradient in it is the cotangent to pull back.
        average: mean over the processes that share the iteration.
    """
    xi = average(gradient(pulled, reduced.reached))
    a1, a2 = zeros_like(outer), zeros_like(outer)
    slope = detached(reduced.slope)
    for block in reduced.blocks:
        for rows in block.pieces(theta_reached):
            # P_g u, with u = xi pulled back through kappa
            u = _pull_back(block, block.of(theta_reached, rows), outer, _rows(xi, rows), a1)
            if preconditioner is not None:
                u = multiply(u, block.of(preconditioner, rows))
            # <g, kappa(P_g u, alpha)>
            alpha = block.alpha(outer)
            kernels = block.reduce(u, alpha)
            for name, found in vector_jacobian(kernels, alpha, _rows(slope, rows)).items():
                a2[name] += found
            for name, kernel in kernels.items():
                xi[name][rows] = kernel.detach()

    # H kappa(P_g u), the latter having taken the place of xi
    curved = vector_jacobian(reduced.slope, reduced.point, xi)
    del xi
    for block in reduced.blocks:
        for rows in block.pieces(theta_reached):
            # <H kappa(P_g u), kappa(theta, alpha)>
            alpha = block.alpha(outer)
            kernels = block.reduce(block.of(point, rows), alpha)
            for name, found in vector_jacobian(kernels, alpha, _rows(curved, rows)).items():
                a2[name] += found
    return a1, average(a2)


def _rows(tree: Tree, rows: Rows) -> Mapping[str, Tensor]:
    """Return some rows of each tensor, taken when asked for."""
    return LazyTree(tree, lambda name, _: tree[name][rows])
