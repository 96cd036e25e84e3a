"""Everything a run needs to continue to the bit, and how it is written: temporary file, fsync, rename.

The state holds tensors, plain numbers, strings and containers alone, so that it loads with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.engines import Trainer
from torch.optim import Optimizer

from genseg_monai._atomic import whole_file
from genseg_monai.engines.acceleration import settle_memory
from genseg_monai.engines.random_state import capture_all, restore_all
from genseg_monai.engines.schedule import Phase
from genseg_monai.engines.trainer import GenSegTrainer
from genseg_monai.errors import UserError
from genseg_monai.networks import Genotype

__all__ = ["FORMAT", "engine_state", "load_file", "load_state", "restore_engine", "save_file", "take_state"]

FORMAT = 2
"""Version of the layout below; a checkpoint of another one is refused."""

_KEYS = (
    *("network", "optimizer", "generator", "generator_optimizer", "discriminator", "discriminator_optimizer"),
    *("arch_optimizer", "initial", "baseline", "baseline_optimizer", "trained", "genotype", "phase", "schedule"),
    *("loader", "search_loader", "train_cases", "search_cases", "search_scores"),
    *("random", "random_all", "engine", "format", "data"),
)
_ENGINE = ("iteration", "epoch", "max_epochs", "epoch_length", "best_metric", "best_metric_epoch")


_PLAYERS = (
    *("network", "optimizer", "generator", "generator_optimizer"),
    *("discriminator", "discriminator_optimizer", "arch_optimizer"),
)


def take_state(trainer: GenSegTrainer) -> dict[str, Any]:
    """Return the whole state of a run between two iterations; its tensors are those of the run, not copies.

    It serves every process of the run, and all have to ask for it at the same time.
    """
    players = trainer.players
    return {
        "format": FORMAT,
        **{name: getattr(players, name).state_dict() for name in _PLAYERS},
        "initial": players.initial,
        "baseline": None if players.baseline is None else players.baseline.state_dict(),
        "baseline_optimizer": None if players.baseline is None else players.segmenter_optimizer.state_dict(),
        "trained": {str(phase): weights for phase, weights in players.trained.items()},
        "genotype": None if players.genotype is None else players.genotype.to_json(),
        "phase": None if trainer.phase is None else str(trainer.phase),
        "schedule": {str(phase): steps for phase, steps in trainer.schedule.steps.items()},
        "data": trainer.loader.cases.digest(),
        "loader": trainer.loader.state_dict(),
        "search_loader": trainer.search_loader.state_dict(),
        "train_cases": list(trainer.train_cases),
        "search_cases": list(trainer.search_cases),
        "search_scores": list(trainer.search_scores),
        "random": trainer.random.get_state(),
        "random_all": trainer.communication.gather(capture_all()),
        "engine": {name: _plain(getattr(trainer.state, name)) for name in _ENGINE},
        **({} if players.averaged is None else {"averaged": players.averaged.state_dict()}),
        **({} if trainer.pairs is None else {"pairs": trainer.pairs.state_dict()}),
    }


def load_state(trainer: GenSegTrainer, state: Mapping[str, Any]) -> None:
    """Put a fresh trainer of the same configuration where ``state`` was taken.

    Raises:
        UserError: if a part is missing, or the checkpoint belongs to another configuration or other data.
    """
    missing = [key for key in _KEYS if key not in state]
    if missing or state["format"] != FORMAT:
        raise UserError("checkpoint", f"wanted format {FORMAT} with all its parts, got one without {missing or 'it'}")
    if state["data"] != trainer.loader.cases.digest():
        raise UserError("checkpoint", "it was made with other training cases: give the same data, or start a new run")
    processes, running = len(state["random_all"]), trainer.communication.world
    if processes != running:
        raise UserError(
            "checkpoint",
            f"it was made by {processes} processes, got {running}: resume with --nproc_per_node={processes}",
        )
    players = trainer.players
    if state["genotype"] is not None and players.genotype is None:
        players.derive(Genotype.from_json(state["genotype"]))
    players.baseline = players.baseline_optimizer = None
    if state["baseline"] is not None:
        players.begin_baseline()
    parts = {name: getattr(players, name) for name in _PLAYERS}
    if players.baseline is not None:
        parts |= {"baseline": players.baseline, "baseline_optimizer": players.baseline_optimizer}
    for name, part in {**parts, "loader": trainer.loader, "search_loader": trainer.search_loader}.items():
        try:
            part.load_state_dict(state[name])
            if isinstance(part, Optimizer):
                settle_memory(part)
        except (RuntimeError, ValueError, KeyError) as problem:
            reason = str(problem).splitlines()[0]
            raise UserError("checkpoint", f"its '{name}' does not fit this configuration ({reason})") from problem
    players.initial = dict(state["initial"])
    players.trained = {Phase(name): dict(weights) for name, weights in state["trained"].items()}
    trainer.phase = None if state["phase"] is None else Phase(state["phase"])
    trainer.schedule = replace(
        trainer.schedule, steps={Phase(name): steps for name, steps in state["schedule"].items()}
    )
    players.follow_on(trainer.settings.average, state.get("averaged"))
    if trainer.pairs is not None and "pairs" in state:
        trainer.pairs.load_state_dict(state["pairs"])
    trainer.train_cases, trainer.search_cases = list(state["train_cases"]), list(state["search_cases"])
    restore_engine(trainer, state["engine"])
    trainer.search_scores = list(state["search_scores"])
    trainer.random.set_state(state["random"])
    restore_all(state["random_all"][trainer.communication.rank])


def engine_state(trainer: Trainer) -> dict[str, Any]:
    """Return where an engine stands: iteration, epoch, best metric."""
    return {name: _plain(getattr(trainer.state, name)) for name in _ENGINE}


def restore_engine(trainer: Trainer, saved: Mapping[str, Any]) -> None:
    """Put an engine where `engine_state` was taken."""
    for name, value in saved.items():
        setattr(trainer.state, name, value)
    # ignite counts an epoch when it starts; one that was left in its middle is started again
    trainer.state.epoch = trainer.state.iteration // trainer.state.epoch_length


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def save_file(content: Any, path: Path) -> None:
    """Write ``content`` so that ``path`` holds either the old or the whole new file, whatever happens."""
    # through a stream: given a path, torch writes the file's name into it, and equal contents differ
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        torch.save(content, stream)


def load_file(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read what `save_file` wrote; nothing but tensors and plain data is ever unpickled.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(str(path), "wanted a checkpoint, found no such file") from None
    except Exception as problem:
        raise UserError(
            str(path), f"not a readable checkpoint ({type(problem).__name__}): use an older one"
        ) from problem
