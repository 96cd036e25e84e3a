"""An episodic trainer so small that a whole run takes a second."""

from __future__ import annotations

from typing import Any

import torch
from monai.losses import DiceCELoss

from genseg_monai.data.episodes import EpisodeLoader, EpisodeStage
from genseg_monai.data.task import Task
from genseg_monai.engines.episodic import EpisodicTrainer
from genseg_monai.networks.universeg import UniverSeg

__all__ = ["STAGES", "make_episodic", "make_tasks"]

STAGES = (
    EpisodeStage(share=2, size=8, support=(1, 3), entries=4, tasks=2),
    EpisodeStage(share=1, size=16, support=(2, 4), entries=4, tasks=2),
)
"""Of 12 iterations, 8 and 4."""


def make_tasks(count: int = 2, size: int = 16) -> list[Task]:
    """Draw tasks: bright squares, or dark ones, or those in the left half."""
    generator = torch.Generator().manual_seed(0)
    tasks = []
    for number in range(count):
        labels = torch.zeros(6, 1, size, size)
        for i, (row, column) in enumerate(torch.randint(1, size // 2, (6, 2), generator=generator).tolist()):
            labels[i, :, row : row + size // 3, column : column + size // 3] = 1
        sign = 1 if number % 2 == 0 else -1
        images = (0.5 + 0.3 * sign * (labels - 0.5) + 0.05 * torch.rand(labels.shape, generator=generator)).clamp(0, 1)
        tasks.append(
            Task(f"task {number}", f"set {number}", "", "picture", "", "square", images, labels, tuple("abcdef"))
        )
    return tasks


def make_episodic(
    *, seed: int = 0, features: tuple[int, ...] = (4, 4), lr: float = 1e-2, **given: Any
) -> EpisodicTrainer:
    """Build a trainer of 12 iterations; the same arguments build the same one to the bit.

    Args:
        seed: of the weights and the episodes.
        features: of the network.
        lr: highest learning rate.
        **given: arguments of `EpisodicTrainer`, and ``loader``, those of `EpisodeLoader`.
    """
    torch.manual_seed(seed)
    network = UniverSeg(features=features)
    loader = EpisodeLoader(**{"seed": seed, **given.pop("loader", {})})
    return EpisodicTrainer(
        **{
            "device": "cpu",
            "max_epochs": 3,
            "epoch_length": 4,
            "train_data_loader": loader,
            "network": network,
            "optimizer": torch.optim.Adam(network.parameters(), lr),
            "loss_function": DiceCELoss(sigmoid=True),
            "stages": STAGES,
            "warm_up": 2,
            "average": 0.9,
            **given,
        }
    )
