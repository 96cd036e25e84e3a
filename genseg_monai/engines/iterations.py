"""One iteration of each phase: the stages it takes, and the batches it gives them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from genseg_monai.engines.events import StageEvents
from genseg_monai.engines.schedule import Phase
from genseg_monai.engines.shard_draws import by_shard
from genseg_monai.engines.stages import Observer, SearchPoint, architecture_step, generator_step, segmenter_step
from genseg_monai.multilevel import Estimator

if TYPE_CHECKING:
    from genseg_monai.engines.trainer import GenSegTrainer

__all__ = ["iterate"]


def iterate(
    trainer: GenSegTrainer, phase: Phase, step: int, images: Tensor, masks: Tensor, observe: Observer
) -> dict[str, Any]:
    """Take one iteration of ``phase``.

    Args:
        trainer: with its players in training mode.
        phase: which one.
        step: number of the iteration within it.
        images: real images ``B C H W [D]`` in [0, 1].
        masks: their one-hot masks ``B K H W [D]``.
        observe: told about FORWARD, LOSS and BACKWARD once each.

    Returns:
        The losses by name; ``image`` and ``label`` too where the segmenter saw augmented ones.
    """
    if phase is Phase.SEARCH:
        return _search(trainer, step, images, masks, observe)
    if phase in (Phase.WARM_UP, Phase.FINE_TUNE):
        losses = _draw(trainer, trainer.real_conditions(images, masks), observe)
        return losses | {Keys.LOSS: losses["generator_loss"]}
    return _fit(trainer, phase, step, images, masks, observe)


def _draw(
    trainer: GenSegTrainer, real: tuple[Tensor, ...], observe: Observer, point: SearchPoint | None = None
) -> dict[str, Any]:
    """Stage I, on images, their masks and what the generator draws them from."""
    players = trainer.players
    images, masks, given = real
    losses = generator_step(
        players.generator,
        players.discriminator,
        trainer.adversarial_loss,
        players.generator_optimizer,
        players.discriminator_optimizer,
        images,
        masks,
        given=given,
        alpha=players.generator.arch_parameters() if players.genotype is None else None,
        point=point,
        forward=trainer.acceleration.forward,
        average=trainer.communication.average,
        observe=observe,
    )
    trainer.announce(StageEvents.GENERATOR_STEP_COMPLETED)
    return losses


def _fit(
    trainer: GenSegTrainer, phase: Phase, step: int, images: Tensor, masks: Tensor, observe: Observer
) -> dict[str, Any]:
    """Stage II alone: of the final fit, or of a baseline, which has no synthetic pairs."""
    share = trainer.schedule.fitted(phase, step)
    drawn = phase is Phase.FINAL_FIT and trainer.settings.synthetic_after(share)
    synthetic = trainer.synthesise(images, masks) if drawn else None
    wanted = phase is Phase.AUGMENT or (phase is Phase.FINAL_FIT and trainer.settings.augment_real)
    fitted, shown = _augmented(trainer, images, masks, wanted)
    losses = segmenter_step(
        trainer.players.segmenter,
        trainer.loss_function,
        trainer.players.segmenter_optimizer,
        *fitted,
        synthetic,
        gamma=trainer.settings.gamma_after(share),
        forward=trainer.acceleration.forward,
        average=trainer.communication.average,
        observe=observe,
    )
    if phase is Phase.FINAL_FIT:
        trainer.players.follow(trainer.settings.average)
    trainer.announce(StageEvents.SEGMENTER_STEP_COMPLETED)
    return losses | shown


def _search(trainer: GenSegTrainer, step: int, images: Tensor, masks: Tensor, observe: Observer) -> dict[str, Any]:
    """Stages I, II and, when it is due, III."""
    due, players, network = trainer.settings.outer_due(step), trainer.players, trainer.network
    again = Estimator(trainer.settings.estimator).exact_in_images
    point = SearchPoint.begin(players, again=again) if due else None

    real = trainer.real_conditions(images, masks)
    losses = _draw(trainer, real, lambda event, **values: None, point)

    given, wanted = trainer.synthetic_conditions(images, masks)
    if point is None:
        with torch.no_grad():
            synthetic = (trainer.acceleration.forward(players.generator, given), wanted)
    else:
        synthetic = (point.draw_again(players.generator, given), wanted)
    fitted, shown = _augmented(trainer, images, masks, trainer.settings.augment_real)
    gamma = trainer.settings.gamma_after(trainer.schedule.fitted(Phase.SEARCH, step))
    losses |= segmenter_step(
        network,
        trainer.loss_function,
        trainer.optimizer,
        *fitted,
        synthetic,
        gamma=gamma,
        point=point,
        forward=trainer.acceleration.forward,
        average=trainer.communication.average,
        observe=observe,
    )
    players.follow(trainer.settings.average)
    trainer.announce(StageEvents.SEGMENTER_STEP_COMPLETED)

    if point is not None:
        batch = trainer.search_loader.draw(avoid=trainer.loader.drawn)
        if not trainer.acceleration.exact:
            point.synthetic_slope = None
        with trainer.acceleration.stage_three(trainer.settings.estimator):
            losses |= architecture_step(
                point,
                players,
                trainer.adversarial_loss,
                trainer.loss_function,
                real=real[:2],
                fitted=fitted,
                synthetic=synthetic,
                search=(batch[Keys.IMAGE], trainer.to_masks(batch[Keys.LABEL])),
                settings=replace(trainer.settings, gamma=gamma),
                average=trainer.communication.average,
            )
        trainer.announce(StageEvents.OUTER_STEP_COMPLETED)
    return losses | shown


def _augmented(
    trainer: GenSegTrainer, images: Tensor, masks: Tensor, wanted: bool
) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
    """Return the pairs the segmenter is to see, and, where they are augmented, what a training metric compares."""
    if not wanted or trainer.augment is None:
        return (images, masks), {}
    images, masks = by_shard(trainer.augment, (images, masks), trainer.random, trainer.loader)
    return (images, masks), {Keys.IMAGE: images, Keys.LABEL: masks.argmax(1, keepdim=True).to(torch.uint8)}
