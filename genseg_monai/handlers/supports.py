"""Give an in-context segmenter the labelled images it segments by, from the training split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from genseg_monai.networks.in_context_network import InContextNetwork
from genseg_monai.networks.universeg_weights import read_universeg

__all__ = ["Supports", "choose_supports"]

logger = logging.getLogger(__name__)


def choose_supports(labels: Tensor, pool: Sequence[int], size: int, seed: int = 0) -> list[int]:
    """Return the cases to segment by: drawn at random, but so that all classes are shown, and again and again.

    Args:
        labels: `N 1 H W [D]`, class indices.
        pool: the case numbers to choose from.
        size: how many, at most.
        seed: of the draw.

    Example:
        >>> labels = torch.tensor([0, 1, 1, 1, 2]).reshape(5, 1, 1, 1)
        >>> sorted(labels[case].item() for case in choose_supports(labels, range(5), 2))
        [1, 2]
    """
    order = [pool[i] for i in torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)).tolist()]
    shows = {case: set(labels[case].unique().tolist()) - {0} for case in order}
    chosen: list[int] = []
    covered: set[int] = set()
    while order and len(chosen) < size:
        if not any(shows[case] - covered for case in order):
            covered = set()
        best = max(order, key=lambda case: len(shows[case] - covered))
        order.remove(best)
        covered |= shows[best]
        chosen.append(best)
    return chosen


class Supports:
    """Start an `InContextNetwork` from given weights, and fill it with training cases when the training begins.

    Of the training cases only those are taken that stage III does not keep to judge by; where it keeps none, it may
    judge by the supports themselves, and a warning says so. Put it after `Resume`: a run that is continued has its
    supports in its checkpoint. The supports stay in ``model.pt``, as `InContextNetwork` says.

    Args:
        network: the segmenter.
        weights: file of the weights to start from; where there is none, or one of other shapes, they are random.
        seed: of the choice of cases.
    """

    def __init__(self, network: nn.Module, weights: str | Path, *, seed: int = 0) -> None:
        if not isinstance(network, InContextNetwork):
            raise TypeError(f"wanted an InContextNetwork, got {type(network).__name__}")
        self.network, self.seed = network, seed
        self.problem = _start_from(network.network, Path(weights))

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Fill the network, unless the run is continued."""
        if engine.state.iteration:
            return
        if self.problem:
            logger.warning("universeg starts from random weights, %s", self.problem)
        cases = engine.loader.cases
        chosen = choose_supports(cases.labels, engine.train_cases, len(self.network.support_images), self.seed)
        if engine.settings.outer_every and not set(chosen).isdisjoint(engine.search_cases):
            logger.warning("stage III may judge by cases that the segmenter looks at; search_fraction keeps some apart")
        self.network.hold(cases.images[chosen], cases.labels[chosen])
        logger.info(
            "%d training cases are kept in the model as supports: share it as you would share them", len(chosen)
        )


def _start_from(network: nn.Module, path: Path) -> str | None:
    """Load what a file holds into a network that uses all of it; return why not, if not."""
    if not path.is_file():
        return f"there is no {path}"
    held = network.state_dict()
    weights = {name: value for name, value in read_universeg(path).items() if name in held}
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in held.items()}:
        return f"those of {path} are of another shape (of 2D images, as a rule)"
    network.load_state_dict(weights)
    return None
