r"""The hypergradient of GenSeg's three levels: every estimator, one signature.

Zhang et al., "Generative AI enables medical image segmentation in ultra low-data regimes", Nature Communications
16:6486, 2025 (arXiv 2408.17421). With one inner step each,

    theta' = theta - eta_g P_g grad_theta L_gen(theta, alpha)
    phi'   = phi   - eta_s P_s grad_phi [L_seg(phi; real) + gamma L_seg(phi; xhat)],   xhat = G_{theta',alpha}(A(M))

the gradient of L_val(phi') in alpha is found by five passes, none of which needs more than one level's graph:

    1. v  = grad_phi' L_val(phi')
    2. c  = d/d eps [ grad_xhat L_seg(phi + eps P_s v; xhat) ] at eps = 0
    3. (u, a1) = pull back -eta_s gamma c through xhat
    4. a2 = d/d eps [ grad_alpha L_gen(theta + eps P_g u, alpha) ] at eps = 0
    5. d L_val / d alpha = a1 - eta_g a2

Where several processes share a batch, steps 2 and 4 are linear in v and u, but bilinear in them and in the share's own
second derivatives: the mean of products is not the product of means. So v is averaged before step 2, u before step 4,
and a1 and a2 at the end.

How this differs from the public release of GenSeg: there the outer optimiser holds the segmenter's weights and the
synthetic images are detached, so alpha receives no gradient at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from enum import StrEnum

from torch import Tensor

from genseg_monai.multilevel.levels import InnerStep, ThreeLevels
from genseg_monai.multilevel.reduced import Reduced, exact_response, pull_back
from genseg_monai.multilevel.tree import (
    Average,
    Tree,
    add_scaled,
    alone,
    detached,
    dot,
    gradient,
    multiply,
    multiply_,
    norm,
    owned,
    scale,
    shift_,
    zeros_like,
)

__all__ = ["EPSILON", "Estimator", "hypergradient"]

EPSILON = 0.01
"""Length of a finite-difference step; the direction is normalised first."""


class Estimator(StrEnum):
    """How the two mixed second derivatives (steps 2 and 4) are found."""

    UNROLLED = "unrolled"
    """Autograd through both inner steps: the reference, and the most memory."""
    MIXED = "mixed"
    """Exact second derivatives by double backward."""
    FINITE_DIFFERENCE = "finite_difference"
    """Central differences, error O(eps^2)."""
    ONE_SIDED = "one_sided"
    """Forward differences, error O(eps): one pass fewer each."""
    HYBRID = "hybrid"
    """Step 2 by a forward difference, whose base point stage II has evaluated already; step 4 exact."""
    DIRECT = "direct"
    """Step 4 dropped: alpha acts through this batch's images only, not through the weights it trained."""

    @property
    def exact_in_images(self) -> bool:
        """Whether step 2 is taken by double backward."""
        return self in (Estimator.MIXED, Estimator.DIRECT)


def hypergradient(
    levels: ThreeLevels,
    estimator: Estimator | str = "mixed",
    *,
    epsilon: float = EPSILON,
    average: Average = alone,
) -> Tree:
    """Return d L_val(phi'(theta'(alpha), alpha)) / d alpha for every outer variable.

    Args:
        levels: the three levels around one iteration.
        estimator: an `Estimator` or its name.
        epsilon: length of a difference step (ignored by ``unrolled`` and ``mixed``).
        average: mean over the processes that share this iteration, each with losses of its own part of the batches.

    Returns:
        Gradients by the names of ``levels.outer``; no tensor of ``levels`` is changed.

    Raises:
        ValueError: ``unrolled`` is asked for with an ``average``: its graph ends at the process.
    """
    estimator = Estimator(estimator)
    if estimator is Estimator.UNROLLED:
        if average is not alone:
            raise ValueError("estimator: wanted one that several processes can share, got unrolled; take mixed")
        return _unrolled(levels)
    eta_g, eta_s = levels.generator.rate, levels.segmenter.rate
    of_images, of_alpha = _CROSS_DERIVATIVES[estimator]

    # v = grad_phi' L_val(phi')
    phi_reached = detached(levels.segmenter.reached, requires_grad=True)
    v = average(owned(gradient(levels.search_loss(phi_reached), phi_reached)))

    # xhat, A(M) at theta'
    shared, synthetic = levels.shared, levels.synthetic
    ready = synthetic is not None and shared is not None
    if synthetic is None or shared is None:
        shared = (detached(levels.generator.reached, requires_grad=True), detached(levels.outer, requires_grad=True))
        synthetic = levels.synthesise(*shared)
    pair = {"images": synthetic[0], "masks": synthetic[1]}
    pair = {name: tensor for name, tensor in pair.items() if tensor.requires_grad}

    # c = d/d eps [grad_xhat L_seg(phi + eps P_s v; xhat)]
    fixed = {"images": synthetic[0].detach(), "masks": synthetic[1].detach()}

    def synthetic_loss(phi: Tree, inputs: Tree) -> Tensor:
        given = {**fixed, **inputs}
        with levels.twice() if estimator.exact_in_images else nullcontext():
            return levels.synthetic_loss(phi, given["images"], given["masks"])

    multiply_(v, levels.segmenter.preconditioner)
    if estimator.exact_in_images and levels.synthetic_response is not None and ready and set(pair) == {"images"}:
        c = levels.synthetic_response(v)
    else:
        c = of_images(synthetic_loss, levels.segmenter.point, v, pair, epsilon, levels.synthetic_slope)
    del v

    # (u, a1) = pull back -eta_s gamma c through xhat = G_{theta',alpha}(A(M))
    pulled = dot(pair, scale(c, -eta_s * levels.gamma))
    step = levels.generator
    if isinstance(shared, Reduced) and of_alpha is _cross_exact:
        a1, a2 = exact_response(shared, step.point, step.reached, step.preconditioner, levels.outer, pulled, average)
        return add_scaled(a1, a2, -eta_g)
    u, a1 = _pull_back(levels, shared, pulled, average)
    u = owned(u)
    del pulled, pair, synthetic
    if of_alpha is None:
        return a1

    # a2 = d/d eps [grad_alpha L_gen(theta + eps P_g u, alpha)]
    multiply_(u, step.preconditioner)
    a2 = average(of_alpha(levels.generator_loss, step.point, u, levels.outer, epsilon))

    # d L_val / d alpha = a1 - eta_g a2
    return add_scaled(a1, a2, -eta_g)


def _pull_back(
    levels: ThreeLevels, shared: tuple[Tree, Tree] | Reduced, pulled: Tensor, average: Average
) -> tuple[Tree, Tree]:
    """Return the gradient of ``pulled`` in theta' and in the outer variables."""
    if isinstance(shared, Reduced):
        return pull_back(shared, levels.generator.reached, levels.outer, pulled, average)
    theta, alpha = shared
    named = {f"theta:{name}": value for name, value in theta.items()} | {f"alpha:{n}": v for n, v in alpha.items()}
    found = average(gradient(pulled, named))
    return {name: found[f"theta:{name}"] for name in theta}, {name: found[f"alpha:{name}"] for name in alpha}


def _unrolled(levels: ThreeLevels) -> Tree:
    """Differentiate L_val through both inner steps at once."""
    alpha = detached(levels.outer, requires_grad=True)

    # theta' = theta - eta_g P_g grad_theta L_gen(theta, alpha)
    theta_reached = _step(levels.generator, lambda theta: levels.generator_loss(theta, alpha))
    images, masks = levels.synthesise(theta_reached, alpha)

    # phi' = phi - eta_s P_s grad_phi [L_seg(real) + gamma L_seg(synthetic)]
    phi_reached = _step(
        levels.segmenter,
        lambda phi: levels.real_loss(phi) + levels.gamma * levels.synthetic_loss(phi, images, masks),
    )
    return gradient(levels.search_loss(phi_reached), alpha)


def _step(step: InnerStep, loss: Callable[[Tree], Tensor]) -> Tree:
    """Return the end of an inner step with its graph: the value really reached, the derivative of the formula."""
    point = detached(step.point, requires_grad=True)
    slope = multiply(gradient(loss(point), point, create_graph=True), step.preconditioner)
    return {
        name: reached.detach() - step.rate * (slope[name] - slope[name].detach())
        for name, reached in step.reached.items()
    }


CrossLoss = Callable[[Tree, Tree], Tensor]
Weights = Mapping[str, Tensor]


def _cross_exact(
    loss: CrossLoss, weights: Weights, direction: Tree, inputs: Tree, epsilon: float, base: Tree | None = None
) -> Tree:
    """Return d/d eps [grad_inputs loss(weights + eps direction, inputs)] by double backward."""
    weights, inputs = detached(weights, requires_grad=True), detached(inputs, requires_grad=True)
    # <grad_w loss, direction>, whose gradient in the inputs is the mixed derivative
    slope = dot(gradient(loss(weights, inputs), weights, create_graph=True), direction)
    return gradient(slope, inputs)


def _cross_central(
    loss: CrossLoss, weights: Weights, direction: Tree, inputs: Tree, epsilon: float, base: Tree | None = None
) -> Tree:
    """Return the same by central differences, divided by 2 eps."""
    length = norm(direction)
    if length == 0:
        return zeros_like(inputs)
    step = epsilon / float(length)
    above = _input_gradient(loss, add_scaled(weights, direction, step), inputs)
    below = _input_gradient(loss, add_scaled(weights, direction, -step), inputs)
    return scale(add_scaled(above, below, -1.0), 1 / (2 * step))


def _cross_one_sided(
    loss: CrossLoss, weights: Weights, direction: Tree, inputs: Tree, epsilon: float, base: Tree | None = None
) -> Tree:
    """Return the same by forward differences, divided by eps; overwrites ``direction``.

    ``base`` is the gradient at ``weights``, where it is known already.
    """
    length = norm(direction)
    if length == 0:
        return zeros_like(inputs)
    step = epsilon / float(length)
    if base is None or base.keys() != inputs.keys():
        base = _input_gradient(loss, dict(weights), inputs)
    shift_(direction, weights, step)
    above = _input_gradient(loss, direction, inputs)
    return scale(add_scaled(above, base, -1.0), 1 / step)


def _input_gradient(loss: CrossLoss, weights: Tree, inputs: Tree) -> Tree:
    inputs = detached(inputs, requires_grad=True)
    return gradient(loss(detached(weights), inputs), inputs)


_CROSS_DERIVATIVES: dict[Estimator, tuple[Callable[..., Tree], Callable[..., Tree] | None]] = {
    Estimator.MIXED: (_cross_exact, _cross_exact),
    Estimator.FINITE_DIFFERENCE: (_cross_central, _cross_central),
    Estimator.ONE_SIDED: (_cross_one_sided, _cross_one_sided),
    Estimator.HYBRID: (_cross_one_sided, _cross_exact),
    Estimator.DIRECT: (_cross_exact, None),
}
"""How each estimator finds the mixed derivatives of steps 2 and 4."""
