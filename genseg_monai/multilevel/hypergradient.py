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

How this differs from the public release of GenSeg: there the outer optimiser holds the segmenter's weights and the
synthetic images are detached, so alpha receives no gradient at all.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from torch import Tensor

from genseg_monai.multilevel.levels import InnerStep, ThreeLevels
from genseg_monai.multilevel.tree import Tree, add_scaled, detached, dot, gradient, multiply, norm, scale, zeros_like

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
    DIRECT = "direct"
    """Step 4 dropped: alpha acts through this batch's images only, not through the weights it trained."""


def hypergradient(levels: ThreeLevels, estimator: Estimator | str = "mixed", *, epsilon: float = EPSILON) -> Tree:
    """Return d L_val(phi'(theta'(alpha), alpha)) / d alpha for every outer variable.

    Args:
        levels: the three levels around one iteration.
        estimator: an `Estimator` or its name.
        epsilon: length of a difference step (ignored by ``unrolled`` and ``mixed``).

    Returns:
        Gradients by the names of ``levels.outer``; no tensor of ``levels`` is changed.
    """
    estimator = Estimator(estimator)
    if estimator is Estimator.UNROLLED:
        return _unrolled(levels)
    cross = _CROSS_DERIVATIVE[estimator]
    eta_g, eta_s = levels.generator.rate, levels.segmenter.rate

    # v = grad_phi' L_val(phi')
    phi_reached = detached(levels.segmenter.reached, requires_grad=True)
    v = gradient(levels.search_loss(phi_reached), phi_reached)

    # xhat, A(M) at theta'
    if levels.synthetic is None or levels.shared is None:
        theta_reached = detached(levels.generator.reached, requires_grad=True)
        alpha = detached(levels.outer, requires_grad=True)
        synthetic = levels.synthesise(theta_reached, alpha)
    else:
        (theta_reached, alpha), synthetic = levels.shared, levels.synthetic
    pair = {"images": synthetic[0], "masks": synthetic[1]}
    pair = {name: tensor for name, tensor in pair.items() if tensor.requires_grad}

    # c = d/d eps [grad_xhat L_seg(phi + eps P_s v; xhat)]
    fixed = {"images": synthetic[0].detach(), "masks": synthetic[1].detach()}

    def synthetic_loss(phi: Tree, inputs: Tree) -> Tensor:
        given = {**fixed, **inputs}
        return levels.synthetic_loss(phi, given["images"], given["masks"])

    c = cross(synthetic_loss, levels.segmenter.point, multiply(v, levels.segmenter.preconditioner), pair, epsilon)
    del v

    # (u, a1) = pull back -eta_s gamma c through xhat = G_{theta',alpha}(A(M))
    pulled = dot(pair, scale(c, -eta_s * levels.gamma))
    names = [("theta", name) for name in theta_reached] + [("alpha", name) for name in alpha]
    leaves = {f"{level}:{name}": (theta_reached if level == "theta" else alpha)[name] for level, name in names}
    found = gradient(pulled, leaves)
    u = {name: found[f"theta:{name}"] for name in theta_reached}
    a1 = {name: found[f"alpha:{name}"] for name in alpha}
    del found, pulled, pair

    if estimator is Estimator.DIRECT:
        return a1

    # a2 = d/d eps [grad_alpha L_gen(theta + eps P_g u, alpha)]
    direction = multiply(u, levels.generator.preconditioner)
    del u
    a2 = cross(levels.generator_loss, levels.generator.point, direction, levels.outer, epsilon)

    # d L_val / d alpha = a1 - eta_g a2
    return add_scaled(a1, a2, -eta_g)


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


def _cross_exact(loss: CrossLoss, weights: Tree, direction: Tree, inputs: Tree, epsilon: float) -> Tree:
    """Return d/d eps [grad_inputs loss(weights + eps direction, inputs)] by double backward."""
    weights, inputs = detached(weights, requires_grad=True), detached(inputs, requires_grad=True)
    # <grad_w loss, direction>, whose gradient in the inputs is the mixed derivative
    slope = dot(gradient(loss(weights, inputs), weights, create_graph=True), direction)
    return gradient(slope, inputs)


def _cross_central(loss: CrossLoss, weights: Tree, direction: Tree, inputs: Tree, epsilon: float) -> Tree:
    """Return the same by central differences, divided by 2 eps."""
    length = norm(direction)
    if length == 0:
        return zeros_like(inputs)
    step = epsilon / float(length)
    above = _input_gradient(loss, add_scaled(weights, direction, step), inputs)
    below = _input_gradient(loss, add_scaled(weights, direction, -step), inputs)
    return scale(add_scaled(above, below, -1.0), 1 / (2 * step))


def _cross_one_sided(loss: CrossLoss, weights: Tree, direction: Tree, inputs: Tree, epsilon: float) -> Tree:
    """Return the same by forward differences, divided by eps."""
    length = norm(direction)
    if length == 0:
        return zeros_like(inputs)
    step = epsilon / float(length)
    above = _input_gradient(loss, add_scaled(weights, direction, step), inputs)
    here = _input_gradient(loss, weights, inputs)
    return scale(add_scaled(above, here, -1.0), 1 / step)


def _input_gradient(loss: CrossLoss, weights: Tree, inputs: Tree) -> Tree:
    inputs = detached(inputs, requires_grad=True)
    return gradient(loss(detached(weights), inputs), inputs)


_CROSS_DERIVATIVE = {
    Estimator.MIXED: _cross_exact,
    Estimator.FINITE_DIFFERENCE: _cross_central,
    Estimator.ONE_SIDED: _cross_one_sided,
    Estimator.DIRECT: _cross_exact,
}
