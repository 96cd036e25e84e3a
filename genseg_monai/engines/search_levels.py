"""The three levels of one iteration, as functions of named tensors, for the hypergradient to differentiate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.func import functional_call
from torch.optim import Optimizer

from genseg_monai.engines.players import Players
from genseg_monai.engines.random_state import RandomState, replayed
from genseg_monai.multilevel import (
    Block,
    InnerStep,
    LazyTree,
    Reduced,
    ThreeLevels,
    Tree,
    adam_point,
    adam_preconditioner,
)
from genseg_monai.multilevel.tree import detached
from genseg_monai.networks import SearchableGenerator
from genseg_monai.networks.reduction import blocks_of, draw, reduce_all
from genseg_monai.networks.second_order import SecondOrder

__all__ = ["Adversarial", "SearchPoint", "three_levels"]


class Adversarial(Protocol):
    """The losses of stage I."""

    def generator(self, fake_logits: Tensor, fake: Tensor, real: Tensor) -> Tensor:
        """Return the loss of the generator."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the loss of the discriminator."""


@dataclass
class SearchPoint:
    """What stages I and II of one iteration leave for stage III.

    Attributes:
        theta: the generator's weights before stage I.
        phi: the segmenter's weights before stage II; both are copies only where the optimiser cannot tell them.
        blocks: how theta and alpha are reduced to kernels.
        kernels: the kernels of stage I, leaves of the graph of ``slope``.
        slope: stage I's gradient in them, with its graph.
        reached: the kernels that drew the synthetic batch, leaves of its graph.
        given: what the generator was given in stage I (``real``) and for the synthetic batch (``synthetic``).
        random: torch's random states at the segmenter's passes over the real and over the synthetic batch.
        again: whether stage II is to keep its pass over the synthetic batch for stage III to differentiate it again.
        response: v -> d/d eps of stage II's gradient in the synthetic images (without gamma) at phi + eps v, if so.
        synthetic_slope: that gradient, if not.
    """

    theta: Mapping[str, Tensor]
    phi: Mapping[str, Tensor]
    blocks: list[Block]
    kernels: Tree = field(default_factory=dict)
    slope: Tree = field(default_factory=dict)
    reached: Tree = field(default_factory=dict)
    given: dict[str, Tensor] = field(default_factory=dict)
    random: dict[str, RandomState] = field(default_factory=dict)
    again: bool = False
    response: Callable[[Tree], Tree] | None = None
    synthetic_slope: Tensor | None = None

    @classmethod
    def begin(cls, players: Players, *, again: bool = False) -> SearchPoint:
        """Note where the weights stand before the steps that will move them."""
        theta, phi = players.generator.weight_parameters(), dict(players.network.named_parameters())
        before = _before(players.generator_optimizer, theta), _before(players.optimizer, phi)
        return cls(*before, blocks_of(players.generator), again=again)

    def draw_again(self, generator: SearchableGenerator, given: Tensor) -> Tensor:
        """Draw images ``B C H W [D]`` at theta' with their graph to the kernels, and keep those."""
        self.given["synthetic"] = given
        with torch.no_grad():
            kernels = reduce_all(self.blocks, generator.weight_parameters(), generator.arch_parameters())
        self.reached = detached(kernels, requires_grad=True)
        return draw(generator, given, self.reached)


def _before(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the weights as they are before the step that is to come."""
    if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        # asked for only after the step, and then taken back from it
        return LazyTree(parameters, lambda name, rows: adam_point(optimizer, {name: parameters[name]}).part(name, rows))
    return {name: value.detach().clone() for name, value in parameters.items()}


def three_levels(
    point: SearchPoint,
    players: Players,
    adversarial: Adversarial,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    *,
    real: tuple[Tensor, ...],
    fitted: tuple[Tensor, Tensor],
    synthetic: tuple[Tensor, Tensor],
    search: tuple[Tensor, Tensor],
    gamma: float,
) -> ThreeLevels:
    """Return the iteration that has just been taken as three levels, good until the next one.

    Args:
        point: what stages I and II of this iteration left.
        players: networks and optimisers as stages I and II left them; psi is a constant.
        adversarial: stage I's loss.
        loss_function: stage II's loss.
        real: the batch of stage I, images and one-hot masks.
        fitted: the real batch of stage II (the same cases, augmented or not).
        synthetic: xhat with its graph to the kernels of ``point``, and A(M).
        search: images and one-hot masks of the search batch.
        gamma: weight of the synthetic term.
    """
    generator, discriminator, network = players.generator, players.discriminator, players.network
    device = real[0].device
    theta, alpha = generator.weight_parameters(), generator.arch_parameters()
    phi: Tree = dict(network.named_parameters())

    def segment(weights: Tree, images: Tensor, masks: Tensor, batch: str = "synthetic") -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}  # neither read nor written
        with replayed(point.random[batch], device):
            return loss_function(functional_call(network, {**weights, **buffers}, (images,)), masks)

    def synthesise(weights: Tree, outer: Tree) -> tuple[Tensor, Tensor]:
        return functional_call(generator, {**weights, **outer}, (point.given["synthetic"],)), synthetic[1]

    def generator_loss(weights: Tree, outer: Tree) -> Tensor:
        images, masks = real
        fake = functional_call(generator, {**weights, **outer}, (point.given["real"],))
        return adversarial.generator(discriminator(fake, masks), fake, images)

    return ThreeLevels(
        outer=dict(alpha),
        generator=InnerStep(
            point.theta,
            theta,
            _rate(players.generator_optimizer),
            adam_preconditioner(players.generator_optimizer, theta),
        ),
        segmenter=InnerStep(point.phi, phi, _rate(players.optimizer), adam_preconditioner(players.optimizer, phi)),
        generator_loss=generator_loss,
        synthesise=synthesise,
        synthetic_loss=segment,
        real_loss=lambda weights: segment(weights, *fitted, "real"),
        search_loss=lambda weights: segment(weights, *search),
        gamma=gamma,
        synthetic=synthetic,
        shared=Reduced(point.blocks, point.kernels, point.slope, point.reached),
        synthetic_slope=None if point.synthetic_slope is None else {"images": point.synthetic_slope},
        synthetic_response=point.response,
        twice=lambda: SecondOrder(weights=False),
    )


def _rate(optimizer: Optimizer) -> float:
    rates = {float(group["lr"]) for group in optimizer.param_groups}
    if len(rates) != 1:
        raise ValueError(f"the hypergradient wants one learning rate an optimiser, got {sorted(rates)}")
    return rates.pop()
