"""Handlers of an episodic training: its length in time, Dice on held-out synthetic tasks, and the weights it leaves."""

from __future__ import annotations

import copy
import json
import logging
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.networks.utils import eval_mode
from torch import Tensor

import genseg_monai
from genseg_monai._atomic import whole_file
from genseg_monai.data.synthetic_tasks import SyntheticSettings, draw_subjects, draw_task
from genseg_monai.engines.bundle_folder import DATASET_PLACEHOLDER, write_training
from genseg_monai.engines.episodic import load_episodic_state, take_episodic_state
from genseg_monai.engines.estimate import parse_budget
from genseg_monai.engines.state import save_file
from genseg_monai.handlers.csv_log import CsvLog
from genseg_monai.handlers.output import scalars
from genseg_monai.metrics.episodes import mean_mask, most_similar_mask, soft_dice

__all__ = ["EpisodeBudget", "EpisodeHistory", "EpisodeWeights", "HeldOutTasks"]

logger = logging.getLogger(__name__)


class EpisodeBudget:
    """Rehearse every stage, say how long the training will take, and turn a budget into epochs, once.

    A resumed run keeps the epochs of its first start.

    Args:
        budget: such as ``30m``; ``None`` keeps the epochs of the config.
        repeats: timed iterations a stage; support sizes differ, so that a few are too few.
    """

    def __init__(self, budget: str | float | None = None, *, repeats: int = 8) -> None:
        self.seconds, self.repeats = None if budget is None else parse_budget(budget), repeats

    def attach(self, engine: Engine) -> None:
        """Register with an `EpisodicTrainer`, after `Resume`."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Measure before the first iteration; everything is as it was afterwards."""
        if self.seconds is None or engine.state.iteration > 0:
            return
        state, shares = copy.deepcopy(take_episodic_state(engine)), sum(stage.share for stage in engine.stages)
        cost = 0.0
        for stage in engine.stages:
            engine.loader.use(stage)
            engine.take(engine.loader.draw())
            start = time.perf_counter()
            for _ in range(self.repeats):
                engine.take(engine.loader.draw())
            cost += stage.share / shares * (time.perf_counter() - start) / self.repeats
        load_episodic_state(engine, state)
        engine.state.max_epochs = max(1, int(self.seconds / (cost * engine.state.epoch_length)))
        logger.info("%.2f s an iteration: %d iterations fit the budget", cost, engine.total)


class HeldOutTasks:
    """Dice of the averaged network on synthetic tasks that are never trained on, beside two floors.

    Args:
        synthetic: what the tasks look like.
        size: height and width.
        tasks: how many, each with one query.
        supports: support sizes to score.
        seed: of the tasks.
        epochs: between two evaluations; one more is made at the end.
    """

    def __init__(
        self,
        synthetic: SyntheticSettings | None = None,
        *,
        size: int = 64,
        tasks: int = 24,
        supports: Sequence[int] = (4, 16),
        seed: int = 987_654_321_987,
        epochs: int = 10,
    ) -> None:
        self.synthetic, self.size, self.count = synthetic or SyntheticSettings(), size, tasks
        self.supports, self.seed, self.epochs = tuple(supports), seed, epochs
        self.scores: dict[str, float] = {}
        self._scored = 0
        self._tasks: list[tuple[Tensor, Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an `EpisodicTrainer`."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.epochs), self)
        engine.add_event_handler(Events.COMPLETED, self)

    def tasks(self) -> list[tuple[Tensor, Tensor]]:
        """Return images and labels ``N 1 H W`` of each task; the query, which shows the structure, comes first."""
        generator = torch.Generator().manual_seed(self.seed)
        while len(self._tasks) < self.count:
            task = draw_task(self.synthetic, self.size, generator)
            images, labels = draw_subjects(task, 1 + max(self.supports), generator)
            if bool(labels[0].any()):
                self._tasks.append((images, labels))
        return self._tasks

    def score(self, network: Any, device: torch.device | str = "cpu", *, mixed: bool = False) -> dict[str, float]:
        """Return the mean Dice of the network and of the floors, by name and support size."""
        found: dict[str, list[float]] = {}
        with eval_mode(network), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=mixed):
            for images, labels in self.tasks():
                images, labels = images.to(device), labels.to(device)
                for size in self.supports:
                    support = images[None, 1 : 1 + size], labels[None, 1 : 1 + size]
                    answers = {
                        "dice": (network(images[:1], *support) > 0).float(),
                        "mean_mask": mean_mask(support[1]),
                        "most_similar": most_similar_mask(images[:1], *support),
                    }
                    for name, answer in answers.items():
                        found.setdefault(f"{name}_{size}", []).append(float(soft_dice(answer, labels[:1])))
        return {name: sum(values) / len(values) for name, values in found.items()}

    def __call__(self, engine: Any) -> None:
        """Score the averaged network and log the result."""
        if self._scored == engine.state.iteration:
            return
        self._scored = engine.state.iteration
        self.scores = self.score(engine.average, engine.state.device, mixed=engine.mixed)
        told = ", ".join(f"{name} {value:.3f}" for name, value in self.scores.items())
        logger.info("held-out synthetic tasks: %s", told)


class EpisodeHistory:
    """The mean loss of every epoch, and Dice where it was measured, in ``logs/history.csv``.

    Args:
        output_dir: the run's folder.
        held_out: whose scores are written beside the losses.
    """

    def __init__(self, output_dir: str | Path, held_out: HeldOutTasks | None = None) -> None:
        self.held_out = held_out
        supports = () if held_out is None else held_out.supports
        names = [f"{name}_{size}" for name in ("dice", "mean_mask", "most_similar") for size in supports]
        self.log = CsvLog(Path(output_dir) / "logs" / "history.csv", ["phase", "loss", "rate", "seconds", *names])
        self._losses: list[float] = []
        self._started = time.perf_counter()

    def attach(self, engine: Engine) -> None:
        """Register with an `EpisodicTrainer`, after `HeldOutTasks`."""
        engine.add_event_handler(Events.STARTED, lambda trainer: self.log.cut(after=trainer.state.iteration))
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._row)

    def _note(self, engine: Any) -> None:
        self._losses.append(scalars(engine.state.output)["loss"])

    def _row(self, engine: Any) -> None:
        row: dict[str, object] = {
            "phase": engine.phase,
            "loss": sum(self._losses) / max(1, len(self._losses)),
            "rate": engine.optimizer.param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self._started, 1),
        }
        self._losses.clear()
        if self.held_out is not None:
            row |= self.held_out.scores
            self.held_out.scores = {}
        self.log.append(engine.state.iteration, row)


class EpisodeWeights:
    """Write the averaged weights ``models/universeg/model.pt`` and, in ``run.json``, how they came about.

    Both are written with every checkpoint, so that a run that is stopped leaves what it has learnt, and with
    ``configs/train.yaml`` it can be resumed.

    Args:
        output_dir: the run's folder.
        seed: of the run.
        epochs: between two times.
        dataset_dir: the folder of tasks, where there is one.
        config: the training's merged config.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        seed: int,
        epochs: int = 10,
        dataset_dir: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.root, self.seed, self.epochs, self.config = Path(output_dir), seed, epochs, dict(config or {})
        self.dataset_dir = dataset_dir
        self._spent, self._clock = 0.0, 0.0

    def attach(self, engine: Engine) -> None:
        """Register with an `EpisodicTrainer`."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.epochs), lambda trainer: self._write(trainer, False))
        engine.add_event_handler(Events.COMPLETED, lambda trainer: self._write(trainer, True))

    @property
    def record(self) -> Path:
        """Where the run is described."""
        return self.root / "run.json"

    def _start(self, engine: Any) -> None:
        self._clock = time.perf_counter()
        if engine.state.iteration > 0 and self.record.exists():
            self._spent = float(json.loads(self.record.read_text(encoding="utf-8"))["seconds"])
        # the length that a budget has become; the data stay where they are
        held = {"max_epochs": engine.state.max_epochs, "dataset_dir": self.dataset_dir and DATASET_PLACEHOLDER}
        write_training(self.root, {**self.config, **held})
        self._describe(engine, finished=False)

    def _write(self, engine: Any, finished: bool) -> None:
        weights = {
            name: value.detach().cpu().contiguous() for name, value in engine.average.module.state_dict().items()
        }
        save_file(weights, self.root / "models" / "universeg" / "model.pt")
        self._describe(engine, finished)

    def _describe(self, engine: Any, finished: bool) -> None:
        versions = {name: metadata.version(name) for name in ("torch", "monai", "pytorch-ignite")}
        record = {
            "genseg": genseg_monai.__version__,
            "versions": {"python": platform.python_version(), **versions},
            "command": sys.argv,
            "dataset_dir": self.dataset_dir,
            "seed": self.seed,
            "device": str(engine.state.device),
            "threads": torch.get_num_threads(),
            "iterations": engine.state.iteration,
            "planned_iterations": engine.total,
            "tasks": len(engine.loader.tasks),
            "stages": [repr(stage) for stage in engine.stages],
            "seconds": round(self._spent + time.perf_counter() - self._clock, 1),
            "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "finished": finished,
        }
        with whole_file(self.record) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
