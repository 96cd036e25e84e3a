"""Episodes: a few queries, each with a support set of its own task; from synthetic tasks, from data sets, or both.

Butoi et al., "UniverSeg", ICCV 2023, section 3.3 and algorithm 1: a task is drawn level by level (data set, subset,
modality, axis, label), so that a data set of many labels counts no more than one of few; the query's subject is drawn
first and the support from the other subjects.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.data.synthetic_tasks import SyntheticSettings, draw_subjects, draw_task
from genseg_monai.data.task import Task
from genseg_monai.errors import UserError
from genseg_monai.transforms.episode_augment import EntryAugment, TaskAugment

__all__ = ["SUPPORT_IMAGES", "SUPPORT_LABELS", "EpisodeLoader", "EpisodeStage", "choose_task", "draw_entries"]

SUPPORT_IMAGES, SUPPORT_LABELS = "support_images", "support_labels"
"""Keys of a batch beside MONAI's ``image`` and ``label``, which hold the queries."""

_LEVELS = 5
_SEED_STEP = 1_000_003
"""Between the seeds of two runs, so that their pools of tasks are not the same ones shifted."""


@dataclass(frozen=True)
class EpisodeStage:
    """A part of a training with pictures of one size.

    Args:
        share: of all iterations, in proportion to the other stages.
        size: height and width.
        support: smallest and largest support; its logarithm is drawn uniformly, so that small ones are frequent.
        entries: supports a step, over all its tasks: the number of tasks is this divided by the support size.
        tasks: most tasks a step.
        augment: share of the tasks that are augmented; a young network learns sooner what a support is without.

    Raises:
        UserError: naming the setting, what was wanted and what came.

    Example:
        >>> EpisodeStage(size=64, entries=16, tasks=8).batch(support=5)
        3
    """

    share: float = 1.0
    size: int = 128
    support: tuple[int, int] = (1, 64)
    entries: int = 16
    tasks: int = 4
    augment: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "support", tuple(self.support))
        if not 1 <= self.support[0] <= self.support[1]:
            raise UserError("support", f"wanted (smallest, largest), at least 1, got {self.support}")
        for name, least in (("size", 8), ("entries", 1), ("tasks", 1)):
            if getattr(self, name) < least:
                raise UserError(name, f"wanted at least {least}, got {getattr(self, name)}")
        if not 0 <= self.augment <= 1:
            raise UserError("augment", f"wanted a share in [0, 1], got {self.augment}")
        if not self.share > 0:
            raise UserError("share", f"wanted a share above 0, got {self.share}")

    def batch(self, support: int) -> int:
        """Return the number of tasks of a step with this support size."""
        return max(1, min(self.tasks, self.entries // support))

    def draw_support(self, generator: torch.Generator) -> int:
        """Draw a support size."""
        low, high = self.support
        drawn = torch.rand(1, generator=generator, device=generator.device).item()
        return min(high, int(math.exp(math.log(low) + drawn * (math.log(high + 1) - math.log(low)))))


class EpisodeLoader:
    """An endless iterator of episodes; its random states are part of ``state_dict``.

    Args:
        tasks: of data sets, in memory, each with two subjects or more; None or empty for none.
        synthetic: what synthetic tasks may look like; None for none.
        share: of the synthetic tasks, where there are both.
        pool: how many different synthetic tasks there are, each with subjects without end; None: every one is new.
        entry_augment: in-task augmentation; None for none.
        task_augment: task augmentation; None for none.
        stage: size of pictures and supports; a trainer gives another one with `use`.
        device: where episodes are drawn.
        seed: of everything drawn.

    Raises:
        UserError: there is nothing to draw from, or a task has a single subject.

    Example:
        >>> loader = EpisodeLoader(stage=EpisodeStage(size=32, support=(3, 3), entries=6))
        >>> batch = next(iter(loader))
        >>> batch["image"].shape, batch["support_labels"].shape
        (torch.Size([2, 1, 32, 32]), torch.Size([2, 3, 1, 32, 32]))
    """

    def __init__(
        self,
        *,
        tasks: Sequence[Task] | None = None,
        synthetic: SyntheticSettings | None = None,
        share: float = 0.5,
        pool: int | None = None,
        entry_augment: EntryAugment | None = None,
        task_augment: TaskAugment | None = None,
        stage: EpisodeStage | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        tasks = tuple(tasks or ())
        if synthetic is None and not tasks:
            synthetic = SyntheticSettings()
        if not 0 <= share <= 1:
            raise UserError("synthetic_share", f"wanted a number in [0, 1], got {share}")
        if pool is not None and pool < 1:
            raise UserError("synthetic_tasks", f"wanted at least 1 task, or none for no end of them, got {pool}")
        for task in tasks:
            if len(task.subjects) < 2:
                raise UserError(f"task {task.name}", f"wanted 2 subjects, got {len(task.subjects)}; leave it out")
        self.tasks, self.synthetic, self.pool, self.seed = tasks, synthetic, pool, seed
        self.share = 0.0 if synthetic is None else share if tasks else 1.0
        self.entry_augment, self.task_augment = entry_augment, task_augment
        self.stage = stage or EpisodeStage()
        self.random = torch.Generator(device=device).manual_seed(seed)
        self.names = torch.Generator().manual_seed(seed)
        """Where the choice of tasks comes from, on the CPU whatever the device."""

    def use(self, stage: EpisodeStage) -> None:
        """Draw episodes of this size from now on."""
        self.stage = stage

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            yield self.draw()

    def draw(self) -> dict[str, Tensor]:
        """Return a batch: ``image``, ``label`` ``B 1 H W``; ``support_images``, ``support_labels`` ``B S 1 H W``."""
        support = self.stage.draw_support(self.names)
        drawn = [self._entries(support + 1) for _ in range(self.stage.batch(support))]
        images, labels = (torch.stack(part) for part in zip(*drawn, strict=True))
        return {
            Keys.IMAGE: images[:, 0],
            Keys.LABEL: labels[:, 0],
            SUPPORT_IMAGES: images[:, 1:],
            SUPPORT_LABELS: labels[:, 1:],
        }

    def _entries(self, count: int) -> tuple[Tensor, Tensor]:
        """Return entries of one task ``N 1 H W``, the query first."""
        if torch.rand(1, generator=self.names).item() < self.share and self.synthetic is not None:
            images, labels = self._synthetic_entries(self.synthetic, count)
        else:
            images, labels = draw_entries(choose_task(self.tasks, self.names), count, self.names)
            images, labels = _at_size(images.to(self.random.device), labels.to(self.random.device), self.stage.size)
        wanted = torch.rand(1, generator=self.names).item() < self.stage.augment
        for augment in (self.entry_augment, self.task_augment):
            if augment is not None and wanted:
                images, labels = augment(images, labels, self.random)
        return images, labels

    def _synthetic_entries(self, settings: SyntheticSettings, count: int) -> tuple[Tensor, Tensor]:
        if self.pool is None:
            number = int(torch.randint(2**62, (1,), generator=self.names))
        else:
            number = self.seed * _SEED_STEP + int(torch.randint(self.pool, (1,), generator=self.names))
        task = draw_task(settings, self.stage.size, torch.Generator().manual_seed(number))
        return draw_subjects(task, count, self.random)

    def digest(self) -> str:
        """Return a hash of the tasks in memory: two runs with the same one saw the same entries."""
        found = hashlib.sha256()
        for task in self.tasks:
            found.update(repr((task.name, task.path, task.groups)).encode())
            found.update(task.images.cpu().numpy().tobytes() + task.labels.cpu().numpy().tobytes())
        return found.hexdigest()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the random states."""
        return {"random": self.random.get_state(), "names": self.names.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken."""
        self.random.set_state(state["random"])
        self.names.set_state(state["names"])


def choose_task(tasks: Sequence[Task], generator: torch.Generator) -> Task:
    """Draw a task level by level: data set, subset, modality, axis, label; each name of a level equally likely."""
    left = list(tasks)
    for level in range(_LEVELS):
        names = sorted({task.path[level] for task in left})
        name = names[int(torch.randint(len(names), (1,), generator=generator))]
        left = [task for task in left if task.path[level] == name]
    return left[int(torch.randint(len(left), (1,), generator=generator))]


def draw_entries(task: Task, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return ``count`` entries of a task ``N 1 H W``, the query first, no other of the query's subject.

    Entries of the support come without repetition as long as there are enough of them.
    """
    subjects = task.subjects
    subject = subjects[int(torch.randint(len(subjects), (1,), generator=generator))]
    own = [i for i, group in enumerate(task.groups) if group == subject]
    others = [i for i, group in enumerate(task.groups) if group != subject]
    query = own[int(torch.randint(len(own), (1,), generator=generator))]
    chosen = [query]
    while len(chosen) < count:
        order = torch.randperm(len(others), generator=generator)[: count - len(chosen)]
        chosen += [others[int(i)] for i in order]
    return task.images[chosen], task.labels[chosen]


def _at_size(images: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    if images.shape[-2:] == (size, size):
        return images, labels
    images, labels = (
        F.interpolate(part, (size, size), mode="bilinear", antialias=True, align_corners=False)
        for part in (images, labels)
    )
    return images.clamp(0, 1), (labels > 0.5).float()
