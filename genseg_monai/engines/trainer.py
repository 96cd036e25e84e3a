"""GenSeg's trainer: one MONAI engine, six phases, three stages.

Zhang et al., "Generative AI enables medical image segmentation in ultra low-data regimes", Nature Communications
16:6486, 2025. The steps themselves stand in `genseg_monai.engines.stages`, and which of them an iteration takes in
`genseg_monai.engines.iterations`; saving, logging, drawing and stopping are handlers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.engines import Trainer
from monai.engines.utils import IterationEvents, default_metric_cmp_fn, default_prepare_batch
from monai.inferers import Inferer, SimpleInferer
from monai.networks.utils import eval_mode, one_hot
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer

from genseg_monai.data.resident import ResidentLoader
from genseg_monai.engines.acceleration import Acceleration
from genseg_monai.engines.communication import Communication
from genseg_monai.engines.conditions import Conditions, kind_of
from genseg_monai.engines.events import StageEvents
from genseg_monai.engines.iterations import iterate
from genseg_monai.engines.players import Players
from genseg_monai.engines.schedule import BASELINES, Phase, Schedule
from genseg_monai.engines.search_cases import divide_cases
from genseg_monai.engines.settings import LoopSettings
from genseg_monai.engines.shard_draws import by_shard
from genseg_monai.engines.stages import Adversarial, Observer
from genseg_monai.transforms import WarpRanges

__all__ = ["GenSegTrainer"]

logger = logging.getLogger(__name__)


class GenSegTrainer(Trainer):
    """Train generator, architecture and segmenter together, then the segmenter's final fit and its baselines.

    Args:
        device: where everything lies.
        max_epochs: epochs of all phases together.
        train_data_loader: the labelled cases; image ``B C H W [D]`` in [0, 1], label ``B 1 H W [D]`` class indices.
        network: the segmenter, image -> logits ``B K H W [D]``.
        optimizer: of the segmenter (SGD, Adam or AdamW).
        loss_function: (logits, one-hot masks) -> scalar.
        generator: a searchable generator, masks ``B K H W [D]`` -> images in [0, 1].
        discriminator: (images, masks) -> logits.
        generator_optimizer: of the generator's weights.
        discriminator_optimizer: of the discriminator.
        arch_optimizer: of the generator's architecture.
        adversarial_loss: with ``generator`` and ``discriminator``.
        settings: of the loop.
        warp_ranges: of the mask augmentation.
        augment: (images, masks, random generator) -> (images, masks), for real pairs.
        search_cases: case numbers that stage III keeps during the search; drawn by patient when not given.
        seed: of the draws of this trainer.
        epoch_length: iterations an epoch.
        inferer: how the segmenter is called for ``pred`` in a phase that does not train it.
        communication: with the other processes of this training; the loader's shards are theirs.
        acceleration: how networks run on the device; by default what suits it.

    The other arguments are those of `monai.engines.Trainer`. What a handler may look at: ``phase``, ``players``,
    ``genotype``, ``train_cases`` and ``search_cases`` (case numbers), and ``state.output`` with ``image``, ``label``,
    ``pred``, ``loss``, ``synthetic`` and the losses by name. A handler may set ``pairs``, a `ResidentLoader` of ready
    synthetic pairs: the final fit then draws those instead of asking the generator.

    Raises:
        UserError: when the cases cannot be split, or a setting is out of its range.
        ValueError: when two levels share a tensor.
    """

    def __init__(
        self,
        *,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: ResidentLoader,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable[[Tensor, Tensor], Tensor],
        generator: Any,
        discriminator: nn.Module,
        generator_optimizer: Optimizer,
        discriminator_optimizer: Optimizer,
        arch_optimizer: Optimizer,
        adversarial_loss: Adversarial,
        settings: LoopSettings | None = None,
        warp_ranges: WarpRanges | None = None,
        augment: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]] | None = None,
        search_cases: Sequence[int] | None = None,
        seed: int = 0,
        epoch_length: int = 50,
        inferer: Inferer | None = None,
        communication: Communication | None = None,
        acceleration: Acceleration | None = None,
        non_blocking: bool = False,
        prepare_batch: Callable[..., Any] = default_prepare_batch,
        postprocessing: Callable[..., Any] | None = None,
        key_train_metric: dict[str, Metric] | None = None,
        additional_metrics: dict[str, Metric] | None = None,
        metric_cmp_fn: Callable[..., Any] = default_metric_cmp_fn,
        train_handlers: Sequence[Any] | None = None,
        decollate: bool = True,
    ) -> None:
        self.settings, self.communication = settings or LoopSettings(), communication or Communication()
        self.communication.check(train_data_loader, self.settings)
        self.acceleration = acceleration or Acceleration(device)
        self.schedule = Schedule.from_total(max_epochs * epoch_length, self.settings.shares, self.settings.baselines)
        self.players = Players(
            network=network,
            optimizer=optimizer,
            generator=generator,
            generator_optimizer=generator_optimizer,
            arch_optimizer=arch_optimizer,
            discriminator=discriminator,
            discriminator_optimizer=discriminator_optimizer,
            prepare=self.acceleration.prepare,
        )
        self.network, self.optimizer = network, optimizer
        self.loss_function, self.adversarial_loss = loss_function, adversarial_loss
        self.augment = augment
        how = self.settings
        self.conditions = Conditions(
            how.synthesis, warp_ranges or WarpRanges(), augment, place=how.place, warp_real=how.warp_real
        )
        kind_of(generator, self.conditions.synthesis)
        self.inferer = inferer or SimpleInferer()
        self.random = torch.Generator().manual_seed(seed)  # a draw on a GPU would be waited for
        self.classes = int(generator.in_channels)
        self.phase: Phase | None = None
        self.pairs: ResidentLoader | None = None
        self.rehearsing = False
        self.search_scores: list[float] = []
        self.loader = train_data_loader
        self.batch_size = train_data_loader.batch_size
        self.train_cases, self.search_cases = divide_cases(self.loader, self.schedule, self.settings, search_cases)
        self.search_loader = train_data_loader.over(
            self.search_cases, batch_size=min(self.settings.search_batch, len(self.search_cases)), seed=seed + 1
        )
        self._wants_predictions = postprocessing is not None or key_train_metric is not None
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            non_blocking=non_blocking,
            prepare_batch=prepare_batch,
            postprocessing=postprocessing,
            key_metric=key_train_metric,
            additional_metrics=additional_metrics,
            metric_cmp_fn=metric_cmp_fn,
            event_names=[StageEvents],
            decollate=decollate,
        )
        self.add_event_handler(Events.STARTED, self._agree)
        self.add_event_handler(Events.GET_BATCH_STARTED, self._begin_iteration)
        self.add_event_handler(Events.COMPLETED, self._finish)
        if train_handlers is not None:
            self._register_handlers(train_handlers)

    @property
    def generator(self) -> Any:
        """The searchable generator, or the derived one after the search."""
        return self.players.generator

    @property
    def genotype(self) -> Any:
        """The architecture found, None before."""
        return self.players.genotype

    def set_epochs(self, max_epochs: int) -> None:
        """Give the whole run another length, before it starts."""
        self.state.max_epochs = max_epochs
        total = max_epochs * self.state.epoch_length
        self.schedule = Schedule.from_total(total, self.settings.shares, self.settings.baselines)

    def end_search(self) -> None:
        """Go on to the next phase with the next iteration."""
        _, step = self.schedule.locate(self.state.iteration - 1)
        self.schedule = self.schedule.shortened(step + 1)

    def _agree(self, engine: Engine) -> None:
        self.communication.agree("data set", "the training cases", self.loader.cases.digest())

    def _begin_iteration(self, engine: Engine) -> None:
        if self.state.iteration >= self.schedule.total:  # the search ended early, and so does the run
            self.terminate()
            return
        phase, step = self.schedule.locate(self.state.iteration)
        if self.state.iteration == 0:
            self.communication.share(self.players.tensors())
            self.players.note_initial()
        if phase is not self.phase:
            self.enter(phase)
        self.players.set_rates(self.schedule, phase, step)
        self.size_batch(phase, step)

    def size_batch(self, phase: Phase, step: int) -> None:
        """Let the next batch be as large as this iteration wants it: real pairs take the place of synthetic ones."""
        if phase is Phase.FINAL_FIT and self.settings.synthetic:
            drawn = self.settings.synthetic_after(self.schedule.fitted(phase, step))
            self.loader.batch_size = self.batch_size if drawn else 2 * self.batch_size

    def enter(self, phase: Phase) -> None:
        """Leave the present phase for another one: other cases, and where it is due another generator or segmenter."""
        self._leave()
        self.phase = phase
        everyone = list(range(len(self.loader.cases)))
        if phase in (Phase.WARM_UP, Phase.SEARCH):
            self.loader.use(self.train_cases, self.batch_size)
        elif phase in BASELINES:
            # as many images an update as GenSeg's real and synthetic ones together
            self.loader.use(everyone, 2 * self.batch_size)
            self.players.begin_baseline()
        else:
            self.loader.use(everyone, self.batch_size)
            if self.genotype is None:
                self.players.derive()
                self.announce(StageEvents.DERIVED)
        self.announce(StageEvents.PHASE_STARTED)

    def _leave(self) -> None:
        if self.phase is not None:
            self.players.end(self.phase)
            self.announce(StageEvents.PHASE_COMPLETED)

    def _finish(self, engine: Engine) -> None:
        if self.state.iteration >= self.schedule.total:
            self._leave()
            self.phase = None

    def announce(self, event: Any) -> None:
        """Fire an event, unless this is only a rehearsal."""
        if not self.rehearsing:
            self.fire_event(event)

    def _iteration(self, engine: Any, batchdata: dict[str, Tensor]) -> Any:
        images, labels = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        output: dict[str, Any] = {Keys.IMAGE: images, Keys.LABEL: labels}
        self.state.output = output

        def observe(event: Any, **values: Tensor) -> None:
            output.update(values)
            self.fire_event(event)

        phase, step = self.schedule.locate(self.state.iteration - 1)
        output |= self.take(phase, step, images, self.to_masks(labels), observe)
        # what all processes log, and decide by
        output |= self.communication.average({n: v for n, v in output.items() if isinstance(v, Tensor) and v.ndim == 0})
        if Keys.PRED not in output and self._wants_predictions:
            with eval_mode(self.network):
                output[Keys.PRED] = self.acceleration.inferer(self.inferer)(images, self.network)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        # decollation and postprocessing have put something else there
        return self.state.output

    def take(self, phase: Phase, step: int, images: Tensor, masks: Tensor, observe: Observer) -> dict[str, Any]:
        """Take one iteration of ``phase`` on images ``B C H W [D]`` and masks ``B K H W [D]``; return its output."""
        self.players.train()
        with self.acceleration.settings_of_the_device():
            return iterate(self, phase, step, images, masks, observe)

    def to_masks(self, labels: Tensor) -> Tensor:
        """Return one-hot masks ``B K H W [D]`` of class indices ``B 1 H W [D]``."""
        return one_hot(labels.long(), self.classes, dtype=self.loader.cases.dtype, dim=1)

    def synthesise(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return synthetic images ``B C H W [D]`` and their masks ``B K H W [D]``; no gradient passes."""
        if self.pairs is not None:
            batch = self.pairs.draw()
            return batch[Keys.IMAGE], self.to_masks(batch[Keys.LABEL])
        given, wanted = self.synthetic_conditions(images, masks)
        with torch.no_grad():
            return self.acceleration.forward(self.generator, given), wanted

    def real_conditions(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Return stage I's images, masks and what the generator is to draw them from, see `Conditions.of_real`."""
        return by_shard(self.conditions.of_real, (images, masks), self.random, self.loader)

    def synthetic_conditions(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Return what the generator is given, and the masks A(M) it is to show, see `Conditions.of_synthetic`."""
        return by_shard(self.conditions.of_synthetic, (images, masks), self.random, self.loader)
