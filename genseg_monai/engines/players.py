"""The networks and optimisers of a run, and how they change from phase to phase."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genseg_monai.engines.schedule import BASELINES, Phase, Schedule
from genseg_monai.multilevel import assert_disjoint
from genseg_monai.networks import Genotype

__all__ = ["Players"]


class Players:
    """Segmenter, generator and discriminator with their optimisers; later the derived generator and the baselines.

    Args:
        network: the segmenter.
        optimizer: of the segmenter (SGD, Adam or AdamW).
        generator: a searchable generator.
        generator_optimizer: of its weights.
        arch_optimizer: of its architecture.
        discriminator: (images, masks) -> logits.
        discriminator_optimizer: of the discriminator.
        prepare: module -> itself, its weights laid out as the device likes them; of those made later too.

    Attributes:
        genotype: the architecture found; ``generator`` is a plain network from then on.
        baseline: the segmenter of the baseline in training, or None.
        trained: weights of the baselines that are ready.
        averaged: running mean of the weights and buffers of GenSeg's segmenter, None where none is kept.
        initial: weights that GenSeg's segmenter began with, as every baseline does.

    Raises:
        ValueError: when two levels share a tensor.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        optimizer: Optimizer,
        generator: Any,
        generator_optimizer: Optimizer,
        arch_optimizer: Optimizer,
        discriminator: nn.Module,
        discriminator_optimizer: Optimizer,
        prepare: Callable[[Any], Any] = lambda module: module,
    ) -> None:
        assert_disjoint(
            architecture=generator.arch_parameters(),
            generator=generator.weight_parameters(),
            discriminator=dict(discriminator.named_parameters()),
            segmenter=dict(network.named_parameters()),
        )
        self.network, self.optimizer = network, optimizer
        self.generator, self.generator_optimizer, self.arch_optimizer = generator, generator_optimizer, arch_optimizer
        self.discriminator, self.discriminator_optimizer = discriminator, discriminator_optimizer
        self._prepare = prepare
        for module in (network, generator, discriminator):
            prepare(module)
        self.genotype: Genotype | None = None
        self.baseline: nn.Module | None = None
        self.baseline_optimizer: Optimizer | None = None
        self.averaged: AveragedModel | None = None
        self.trained: dict[Phase, dict[str, Tensor]] = {}
        self.initial: dict[str, Tensor] = {}
        self.note_initial()
        self._segmenter_rate = _rate(optimizer)
        self._generator_rate = _rate(generator_optimizer)

    @property
    def segmenter(self) -> nn.Module:
        """The segmenter that learns now: GenSeg's own, or a baseline."""
        return self.baseline or self.network

    @property
    def segmenter_optimizer(self) -> Optimizer:
        """Its optimiser."""
        return self.baseline_optimizer or self.optimizer

    def train(self) -> None:
        """Put every network in training mode."""
        for module in (self.segmenter, self.generator, self.discriminator):
            module.train()

    def tensors(self) -> list[Tensor]:
        """Return every weight, architecture and buffer."""
        modules = (self.network, self.generator, self.discriminator)
        return [value for module in modules for value in module.state_dict().values()]

    def note_initial(self) -> None:
        """Keep the weights of the segmenter as those to begin with; a handler may have loaded others at the start."""
        self.initial = copy.deepcopy(self.network.state_dict())

    def set_rates(self, schedule: Schedule, phase: Phase, step: int) -> None:
        """Set the learning rates of an iteration."""
        for optimizer, rate in (
            (self.segmenter_optimizer, self._segmenter_rate * schedule.segmenter_rate(phase, step)),
            (self.generator_optimizer, self._generator_rate * schedule.generator_rate(phase, step)),
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def follow(self, keep: float) -> None:
        """Let the running mean of the segmenter's weights follow their latest update.

        Args:
            keep: d of mean <- d mean + (1 - d) weights; 0 keeps no mean.
        """
        if not keep:
            return
        if self.averaged is None:
            self.averaged = _mean_of(self.network, keep)
        self.averaged.update_parameters(self.network)

    def follow_on(self, keep: float, state: Mapping[str, Any] | None) -> None:
        """Let the running mean go on from a state of it; without one it begins anew."""
        self.averaged = None if state is None or not keep else _mean_of(self.network, keep)
        if self.averaged is not None and state is not None:
            self.averaged.load_state_dict(state)

    def kept(self) -> dict[str, Tensor]:
        """Return the weights GenSeg's segmenter would end with now: their running mean, if one is kept."""
        return (self.network if self.averaged is None else self.averaged.module).state_dict()

    def derive(self, genotype: Genotype | None = None) -> Genotype:
        """Replace the searchable generator by the plain one of ``genotype`` (the one found), weights copied."""
        self.genotype = genotype or self.generator.derive()
        self.generator = self._prepare(self.generator.discretise(self.genotype))
        self.generator_optimizer.state.clear()  # twice the candidates' weights, which nobody needs from here on
        self.generator_optimizer = _like(self.generator_optimizer, self.generator, self._generator_rate)
        return self.genotype

    def begin_baseline(self) -> None:
        """Put a segmenter with the initial weights beside GenSeg's own."""
        self.baseline = copy.deepcopy(self.network)
        self.baseline.load_state_dict(self.initial)
        self.baseline_optimizer = _like(self.optimizer, self.baseline, self._segmenter_rate)

    def end(self, phase: Phase) -> None:
        """Keep the weights of a baseline that has just been trained; GenSeg's segmenter gets their mean, if kept."""
        if phase is Phase.FINAL_FIT and self.averaged is not None:
            self.network.load_state_dict(self.kept())
            self.averaged = None
        if phase in BASELINES and self.baseline is not None:
            self.trained[phase] = copy.deepcopy(self.baseline.state_dict())
        self.baseline = self.baseline_optimizer = None


def _mean_of(network: nn.Module, keep: float) -> AveragedModel:
    """Return a running mean of weights and buffers; whole numbers, such as the labels of supports, are copied."""
    update = get_ema_multi_avg_fn(keep)

    def follow(held: Any, latest: Any, count: Any) -> None:
        if held[0].is_floating_point():
            update(held, latest, count)
            return
        for old, new in zip(held, latest, strict=True):
            old.copy_(new)

    return AveragedModel(network, multi_avg_fn=follow, use_buffers=True)


def _rate(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _like(optimizer: Optimizer, module: nn.Module, rate: float) -> Optimizer:
    """Return a fresh optimiser of the same kind and settings for the weights of ``module``."""
    accepted = inspect.signature(type(optimizer)).parameters
    settings: dict[str, Any] = {name: value for name, value in optimizer.defaults.items() if name in accepted}
    make: Any = type(optimizer)
    fresh: Optimizer = make(module.parameters(), **{**settings, "lr": rate})
    return fresh
