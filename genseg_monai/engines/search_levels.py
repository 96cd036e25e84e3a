"""The three levels of one iteration, as functions of named tensors, for the hypergradient to differentiate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.func import functional_call
from torch.optim import Optimizer

from genseg_monai.engines.players import Players
from genseg_monai.engines.random_state import capture_torch, replayed
from genseg_monai.multilevel import InnerStep, ThreeLevels, Tree, adam_preconditioner

__all__ = ["Adversarial", "SearchPoint", "three_levels"]


class Adversarial(Protocol):
    """The losses of stage I."""

    def generator(self, fake_logits: Tensor, fake: Tensor, real: Tensor) -> Tensor:
        """Return the loss of the generator."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the loss of the discriminator."""


@dataclass(frozen=True)
class SearchPoint:
    """Where stages I and II started from: copies of theta and phi, and the random state of the segmenter's passes."""

    theta: Tree
    phi: Tree
    random: tuple[Tensor, Tensor | None]

    @classmethod
    def take(cls, theta: Mapping[str, Tensor], phi: Mapping[str, Tensor], device: torch.device) -> SearchPoint:
        """Copy the weights before the step that will move them."""
        theta, phi = ({n: v.detach().clone() for n, v in tree.items()} for tree in (theta, phi))
        return cls(theta, phi, capture_torch(device))


def three_levels(
    point: SearchPoint,
    players: Players,
    adversarial: Adversarial,
    loss_function: Callable[[Tensor, Tensor], Tensor],
    *,
    real: tuple[Tensor, Tensor],
    fitted: tuple[Tensor, Tensor],
    synthetic: tuple[Tensor, Tensor],
    search: tuple[Tensor, Tensor],
    gamma: float,
) -> ThreeLevels:
    """Return the iteration that has just been taken as three levels.

    Args:
        point: the weights before stages I and II of this iteration.
        players: networks and optimisers as stages I and II left them; psi is a constant.
        adversarial: stage I's loss.
        loss_function: stage II's loss.
        real: the batch of stage I, images and one-hot masks.
        fitted: the real batch of stage II (the same cases, augmented or not).
        synthetic: xhat with its graph to theta' and alpha, and A(M).
        search: images and one-hot masks of the search batch.
        gamma: weight of the synthetic term.
    """
    generator, discriminator, network = players.generator, players.discriminator, players.network
    device = real[0].device
    theta, alpha = generator.weight_parameters(), generator.arch_parameters()
    phi: Tree = dict(network.named_parameters())

    def segment(weights: Tree, images: Tensor, masks: Tensor) -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}  # neither read nor written
        with replayed(point.random, device):
            return loss_function(functional_call(network, {**weights, **buffers}, (images,)), masks)

    def synthesise(weights: Tree, outer: Tree) -> tuple[Tensor, Tensor]:
        return functional_call(generator, {**weights, **outer}, (synthetic[1],)), synthetic[1]

    def generator_loss(weights: Tree, outer: Tree) -> Tensor:
        images, masks = real
        fake = functional_call(generator, {**weights, **outer}, (masks,))
        return adversarial.generator(discriminator(fake, masks), fake, images)

    return ThreeLevels(
        outer=dict(alpha),
        generator=InnerStep(
            point.theta,
            dict(theta),
            _rate(players.generator_optimizer),
            adam_preconditioner(players.generator_optimizer, theta),
        ),
        segmenter=InnerStep(point.phi, phi, _rate(players.optimizer), adam_preconditioner(players.optimizer, phi)),
        generator_loss=generator_loss,
        synthesise=synthesise,
        synthetic_loss=segment,
        real_loss=lambda weights: segment(weights, *fitted),
        search_loss=lambda weights: segment(weights, *search),
        gamma=gamma,
        synthetic=synthetic,
        shared=(dict(theta), dict(alpha)),
    )


def _rate(optimizer: Optimizer) -> float:
    rates = {float(group["lr"]) for group in optimizer.param_groups}
    if len(rates) != 1:
        raise ValueError(f"the hypergradient wants one learning rate an optimiser, got {sorted(rates)}")
    return rates.pop()
