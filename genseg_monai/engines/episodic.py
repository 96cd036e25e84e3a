"""Episodic training: every step a few tasks, each with a support set, as UniverSeg learns to segment from examples.

Butoi et al., "UniverSeg", ICCV 2023, algorithm 1. The step is all that stands here; episodes come from
`genseg_monai.data.episodes`, saving, validating and logging are handlers.

How this differs: several tasks a step instead of one; a learning rate that falls along a cosine; the weights that are
kept are a running average; sizes may grow during the training, since a step at 64 x 64 costs a quarter of one at 128.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Trainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genseg_monai.data.episodes import SUPPORT_IMAGES, SUPPORT_LABELS, EpisodeLoader, EpisodeStage
from genseg_monai.engines.random_state import capture_all, restore_all
from genseg_monai.engines.state import FORMAT, engine_state, restore_engine
from genseg_monai.errors import UserError

__all__ = ["EpisodicTrainer", "load_episodic_state", "take_episodic_state"]

_PARTS = ("network", "average", "optimizer", "loader")
_KEYS = ("format", "stages", "data", "random_all", "engine", *_PARTS)
_FALL = 0.01
"""The learning rate at the end, as a share of the highest."""


class EpisodicTrainer(Trainer):
    """Train an in-context segmenter on episodes.

    Args:
        device: where everything lies.
        max_epochs: epochs of all stages together.
        epoch_length: iterations an epoch.
        train_data_loader: of the episodes.
        network: (query ``B C H W``, support images ``B S C H W``, support labels ``B S 1 H W``) -> logits ``B 1 H W``.
        optimizer: of the network.
        loss_function: (logits, labels), both ``B 1 H W`` -> scalar.
        stages: sizes of pictures and supports, one after the other; by default the loader's for the whole training.
        warm_up: iterations in which the learning rate rises to that of the optimizer; it then falls along a cosine.
        average: share of the running average that a step leaves; 0 keeps the last weights.
        clip: longest gradient of a step, a longer one is shortened to it; None takes it as it is. The network has no
            norm layers: without a bound, a single unlucky task can blow a training up.
        mixed: whether the network computes in bfloat16 where that is safe.
        train_handlers: of the training.

    What a handler may look at: ``phase`` (the size), ``average`` (the averaged network), and ``state.output`` with
    ``image``, ``label``, ``pred`` (logits) and ``loss``.

    Raises:
        UserError: a setting is out of its range.
    """

    def __init__(
        self,
        *,
        device: torch.device | str,
        max_epochs: int,
        epoch_length: int,
        train_data_loader: EpisodeLoader,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable[[Tensor, Tensor], Tensor],
        stages: Sequence[EpisodeStage] = (),
        warm_up: int = 50,
        average: float = 0.995,
        clip: float | None = 1.0,
        mixed: bool = False,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        if not 0 <= average < 1:
            raise UserError("average", f"wanted a share in [0, 1), got {average}")
        if warm_up < 0:
            raise UserError("warm_up", f"wanted a number of iterations, got {warm_up}")
        if clip is not None and not clip > 0:
            raise UserError("clip", f"wanted a length above 0, or none, got {clip}")
        self.network, self.optimizer, self.loss_function = network, optimizer, loss_function
        self.loader, self.stages = train_data_loader, tuple(stages) or (train_data_loader.stage,)
        if hasattr(network, "range_checks"):
            network.range_checks = False  # type: ignore[assignment]  # what a loader draws lies in [0, 1]
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(average))
        self.warm_up, self.clip, self.mixed = warm_up, clip, mixed
        self.highest = [float(group["lr"]) for group in optimizer.param_groups]
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            non_blocking=False,
            decollate=False,
        )
        self.add_event_handler(Events.GET_BATCH_STARTED, self._begin_iteration)
        if train_handlers is not None:
            self._register_handlers(train_handlers)

    @property
    def total(self) -> int:
        """Iterations of the whole training."""
        return int(self.state.max_epochs or 0) * int(self.state.epoch_length or 0)

    @property
    def phase(self) -> str:
        """What the present stage is called."""
        return f"{self.loader.stage.size} pixels"

    def stage_at(self, iteration: int) -> EpisodeStage:
        """Return the stage of an iteration, counted from 0."""
        shares = sum(stage.share for stage in self.stages)
        end = 0.0
        for stage in self.stages:
            end += stage.share / shares * self.total
            if iteration < end:
                return stage
        return self.stages[-1]

    def rate_at(self, iteration: int) -> float:
        """Return the learning rate of an iteration, counted from 0, as a share of the highest."""
        if iteration < self.warm_up:
            return (iteration + 1) / (self.warm_up + 1)
        done = min(1.0, (iteration - self.warm_up) / max(1, self.total - self.warm_up))
        return _FALL + (1 - _FALL) * (1 + math.cos(math.pi * done)) / 2

    def _begin_iteration(self, engine: Engine) -> None:
        self.loader.use(self.stage_at(self.state.iteration))
        for group, highest in zip(self.optimizer.param_groups, self.highest, strict=True):
            group["lr"] = highest * self.rate_at(self.state.iteration)

    def _iteration(self, engine: Any, batchdata: dict[str, Tensor]) -> dict[str, Any]:
        batch = {name: value.to(self.state.device) for name, value in batchdata.items()}
        self.network.train()
        logits, loss = self.take(batch)
        output = {Keys.IMAGE: batch[Keys.IMAGE], Keys.LABEL: batch[Keys.LABEL], Keys.PRED: logits, Keys.LOSS: loss}
        self.state.output = output
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return output

    def take(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Take one step on a batch of the loader; return logits ``B 1 H W`` and loss, detached."""
        with torch.autocast(self.state.device.type, torch.bfloat16, enabled=self.mixed):
            logits = self.network(batch[Keys.IMAGE], batch[SUPPORT_IMAGES], batch[SUPPORT_LABELS])
        loss = self.loss_function(logits.float(), batch[Keys.LABEL])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        # average <- d average + (1 - d) weights
        self.average.update_parameters(self.network)
        return logits.detach().float(), loss.detach()


def take_episodic_state(trainer: EpisodicTrainer) -> dict[str, Any]:
    """Return the whole state between two iterations; its tensors are those of the run, not copies."""
    return {
        "format": FORMAT,
        "stages": [repr(stage) for stage in trainer.stages],
        "data": trainer.loader.digest(),
        **{name: getattr(trainer, name).state_dict() for name in _PARTS},
        "random_all": capture_all(),
        "engine": engine_state(trainer),
    }


def load_episodic_state(trainer: EpisodicTrainer, state: Mapping[str, Any]) -> None:
    """Put a fresh trainer of the same configuration where ``state`` was taken.

    Raises:
        UserError: if a part is missing, or the checkpoint belongs to another configuration or other tasks.
    """
    missing = [key for key in _KEYS if key not in state]
    if missing or state["format"] != FORMAT:
        raise UserError("checkpoint", f"wanted format {FORMAT} of an episodic training, got one without {missing}")
    if state["data"] != trainer.loader.digest():
        raise UserError("checkpoint", "it was made with other tasks: give the same data, or start a new run")
    if state["stages"] != [repr(stage) for stage in trainer.stages]:
        raise UserError("checkpoint", "it was made with other stages: give the same ones, or start a new run")
    for name in _PARTS:
        try:
            getattr(trainer, name).load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as problem:
            reason = str(problem).splitlines()[0]
            raise UserError("checkpoint", f"its '{name}' does not fit this configuration ({reason})") from problem
    restore_engine(trainer, state["engine"])
    restore_all(state["random_all"])
