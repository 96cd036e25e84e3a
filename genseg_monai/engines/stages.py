"""The three stages of GenSeg as step functions. No other file takes a step of the method.

I: generator and discriminator on real pairs. II: the segmenter on real and synthetic pairs. III: the validation loss of
that segmenter moves the generator's architecture, and nothing else. Zhang et al., Nature Communications 16:6486, 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.optim import Optimizer

from genseg_monai.engines.acceleration import Forward, like_in_memory, plainly
from genseg_monai.engines.dense_step import as_they_lie
from genseg_monai.engines.players import Players
from genseg_monai.engines.random_state import capture_torch
from genseg_monai.engines.search_levels import Adversarial, SearchPoint, three_levels
from genseg_monai.engines.second_pass import SecondPass
from genseg_monai.engines.settings import LoopSettings
from genseg_monai.multilevel import Average, alone, hypergradient
from genseg_monai.multilevel.tree import detached, gradient
from genseg_monai.networks.reduction import draw, reduce_all
from genseg_monai.networks.second_order import SecondOrder

__all__ = ["Adversarial", "Observer", "SearchPoint", "architecture_step", "frozen", "generator_step", "segmenter_step"]

Observer = Callable[..., None]
"""``observe(event, **outputs)``: told once each about forward, loss and backward."""


def _unobserved(event: Any, **outputs: Any) -> None:
    """Watch nothing."""


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Ask for no gradient of ``parameters`` inside the block."""
    thawed = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)


def _step(optimizer: Optimizer, average: Average) -> None:
    """Take a step along the mean of all processes' gradients."""
    moved = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for number, slope in average({str(i): parameter.grad for i, parameter in enumerate(moved)}).items():
        moved[int(number)].grad = like_in_memory(slope, moved[int(number)])
    with as_they_lie(optimizer):
        optimizer.step()


def generator_step(
    generator: Any,
    discriminator: nn.Module,
    adversarial: Adversarial,
    generator_optimizer: Optimizer,
    discriminator_optimizer: Optimizer,
    images: Tensor,
    masks: Tensor,
    *,
    given: Tensor | None = None,
    alpha: Mapping[str, nn.Parameter] | None = None,
    point: SearchPoint | None = None,
    forward: Forward = plainly,
    average: Average = alone,
    observe: Observer = _unobserved,
) -> dict[str, Tensor]:
    """Take stage I's step: moves theta and psi only.

    Args:
        generator: masks ``B K H W [D]`` -> images ``B C H W [D]``.
        discriminator: (images, masks) -> logits; updated first, a constant for the generator's step.
        adversarial: the two losses.
        generator_optimizer: owns theta.
        discriminator_optimizer: owns psi.
        images: real images ``B C H W [D]`` in [0, 1].
        masks: one-hot masks ``B K H W [D]``.
        given: what the generator draws the images from, scenes of them for instance; by default the masks.
        alpha: the generator's architecture, held.
        point: where stage III, if it follows, finds the gradient in the kernels and its graph.
        forward: how networks are called, but for the passes that stage III differentiates again.
        average: mean over the processes that share the batch.
        observe: told about FORWARD, LOSS and BACKWARD.

    Returns:
        ``generator_loss`` and ``discriminator_loss``, detached scalars, and the ``synthetic`` images.
    """
    given = masks if given is None else given
    with frozen((alpha or {}).values()):
        if point is None:
            fake = forward(generator, given)
        else:
            # kappa(theta, alpha), and G as a function of it
            reduced = reduce_all(point.blocks, dict(generator.named_parameters()), alpha or {})
            point.kernels = detached(reduced, requires_grad=True)
            point.given["real"] = given
            with SecondOrder():
                fake = draw(generator, given, point.kernels)
        observe(IterationEvents.FORWARD_COMPLETED, synthetic=fake.detach())

        # psi <- psi - grad_psi L_D(theta, psi)
        discriminator_loss = adversarial.discriminator(
            forward(discriminator, images, masks), forward(discriminator, fake.detach(), masks)
        )
        discriminator_optimizer.zero_grad(set_to_none=True)
        discriminator_loss.backward()
        _step(discriminator_optimizer, average)
        discriminator_optimizer.zero_grad(set_to_none=True)

        # theta' = theta - eta_g P_g grad_theta L_gen(theta, alpha)
        with frozen(discriminator.parameters()):
            with nullcontext() if point is None else SecondOrder():
                judged = (forward if point is None else plainly)(discriminator, fake, masks)
            generator_loss = adversarial.generator(judged, fake, images)
            observe(IterationEvents.LOSS_COMPLETED, loss=generator_loss.detach())
            generator_optimizer.zero_grad(set_to_none=True)
            if point is None:
                generator_loss.backward()
            else:
                # grad_theta L_gen = kappa' grad_kappa L_gen
                point.slope = gradient(generator_loss, point.kernels, create_graph=True)
                torch.autograd.backward(list(reduced.values()), list(detached(point.slope).values()))
                del reduced
            observe(IterationEvents.BACKWARD_COMPLETED)
        _step(generator_optimizer, average)
        generator_optimizer.zero_grad(set_to_none=True)
    return {"generator_loss": generator_loss.detach(), "discriminator_loss": discriminator_loss.detach()}


def segmenter_step(
    network: nn.Module,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    images: Tensor,
    masks: Tensor,
    synthetic: tuple[Tensor, Tensor] | None = None,
    *,
    gamma: float = 1.0,
    point: SearchPoint | None = None,
    forward: Forward = plainly,
    average: Average = alone,
    observe: Observer = _unobserved,
) -> dict[str, Tensor]:
    """Take stage II's step on L_seg(real) + gamma L_seg(synthetic): moves phi only.

    Real and synthetic batches pass separately, so that norm layers never mix their statistics.

    Args:
        network: images ``B C H W [D]`` -> logits ``B K H W [D]``.
        loss_function: (logits, one-hot masks) -> scalar.
        optimizer: owns phi.
        images: real images.
        masks: their one-hot masks ``B K H W [D]``.
        synthetic: images and (soft) one-hot masks of the synthetic batch; their graph is not touched.
        gamma: weight of the synthetic term.
        point: where stage III, if it follows, finds the random states and the gradient in the synthetic images.
        forward: how the network is called.
        average: mean over the processes that share the batch; of running statistics too.
        observe: told about FORWARD, LOSS and BACKWARD.

    Returns:
        ``loss`` and ``synthetic_loss``, detached scalars.
    """
    optimizer.zero_grad(set_to_none=True)
    if point is not None:
        point.random["real"] = capture_torch(images.device)
    logits = forward(network, images)
    observe(IterationEvents.FORWARD_COMPLETED, pred=logits.detach())
    # L_seg(phi; D_train) + gamma L_seg(phi; xhat, A(M))
    real_loss = loss_function(logits, masks)
    real_loss.backward()
    losses = {"loss": real_loss.detach()}
    if synthetic is not None:
        drawn = synthetic[0].detach()
        if point is not None:
            point.random["synthetic"] = capture_torch(images.device)
            drawn.requires_grad_()
        if point is not None and point.again:
            twice = SecondPass(network, loss_function, drawn, synthetic[1].detach())
            synthetic_loss, backward, point.response = twice.loss, twice.backward, twice.response
        else:
            synthetic_loss = loss_function(forward(network, drawn), synthetic[1].detach())
            backward = lambda gamma: (gamma * synthetic_loss).backward()  # noqa: E731
        losses["synthetic_loss"] = synthetic_loss.detach()
        observe(IterationEvents.LOSS_COMPLETED, loss=losses["loss"] + gamma * losses["synthetic_loss"])
        backward(gamma)
        if point is not None and gamma > 0 and drawn.grad is not None:
            point.synthetic_slope = drawn.grad / gamma
    else:
        observe(IterationEvents.LOSS_COMPLETED, loss=losses["loss"])
    observe(IterationEvents.BACKWARD_COMPLETED)
    # phi' = phi - eta_s P_s grad_phi
    _step(optimizer, average)
    optimizer.zero_grad(set_to_none=True)
    statistics = {name: value for name, value in network.named_buffers() if value.is_floating_point()}
    for name, value in average(statistics).items():
        statistics[name].copy_(value)
    return losses


def architecture_step(
    point: SearchPoint,
    players: Players,
    adversarial: Adversarial,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    *,
    real: tuple[Tensor, ...],
    fitted: tuple[Tensor, Tensor],
    synthetic: tuple[Tensor, Tensor],
    search: tuple[Tensor, Tensor],
    settings: LoopSettings,
    average: Average = alone,
) -> dict[str, Tensor]:
    """Take stage III's step: moves alpha only, along the hypergradient of the search loss.

    Args:
        point: what stages I and II of this iteration left.
        players: networks and optimisers as stages I and II left them; psi is a constant.
        adversarial: stage I's loss.
        loss_function: stage II's loss.
        real: the batch of stage I, images and one-hot masks.
        fitted: the real batch of stage II (the same cases, augmented or not).
        synthetic: xhat with its graph to the kernels of ``point``, and A(M).
        search: images and one-hot masks of the search batch.
        settings: gamma, estimator and epsilon.
        average: mean over the processes that share the batches.

    Returns:
        ``hypergradient_norm``, a scalar.
    """
    levels = three_levels(
        point,
        players,
        adversarial,
        loss_function,
        real=real,
        fitted=fitted,
        synthetic=synthetic,
        search=search,
        gamma=settings.gamma,
    )
    with frozen(players.discriminator.parameters()):
        found = hypergradient(levels, settings.estimator, epsilon=settings.epsilon, average=average)
    for name, parameter in players.generator.arch_parameters().items():
        parameter.grad = found[name]
    players.arch_optimizer.step()
    players.arch_optimizer.zero_grad(set_to_none=True)
    return {"hypergradient_norm": torch.stack([value.norm() for value in found.values()]).norm()}
