"""What a run leaves: the bundle folder around the trained weights, and ``run.json``, how they came about."""

from __future__ import annotations

import json
import logging
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

import genseg_monai
from genseg_monai._atomic import whole_file
from genseg_monai.engines.bundle_folder import write_bundle
from genseg_monai.engines.estimate import epochs_within, measure, parse_budget
from genseg_monai.engines.events import StageEvents
from genseg_monai.engines.schedule import BASELINES, Phase
from genseg_monai.engines.state import save_file
from genseg_monai.handlers.energy import EnergyMeter
from genseg_monai.inferers.generator_files import GeneratorShape, save_generator

__all__ = ["BundleWriter", "Forecast", "RunRecord"]

logger = logging.getLogger(__name__)

_DRAWING = (Phase.WARM_UP, Phase.SEARCH, Phase.FINE_TUNE)
_PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "nibabel", "pydicom")


class BundleWriter:
    """Write configs when the run starts and weights when they are ready; in place, both when they are ready.

    Where a bundle is trained in place its old weights may be in use meanwhile, so config and weights change together.

    ``models/model.pt`` (the segmenter), ``models/generator/generator.pt`` and ``models/baselines/NAME.pt``.

    Args:
        source: bundle folder that the run was started from.
        output_dir: the run's folder.
        config: the training's merged config.
        plan: what the data decided, as a dictionary.
        generator_shape: what the generator was built with.
        shared: entries of the training that the bundle's other configs repeat.
    """

    def __init__(
        self,
        source: str | Path,
        output_dir: str | Path,
        config: Mapping[str, Any],
        plan: Mapping[str, Any],
        generator_shape: GeneratorShape,
        shared: Mapping[str, Any] | None = None,
    ) -> None:
        self.source, self.root, self.config, self.plan = source, Path(output_dir), config, plan
        self.generator_shape, self.shared = generator_shape, dict(shared or {})

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.STARTED, self._configs_early)
        engine.add_event_handler(StageEvents.PHASE_COMPLETED, self._weights)

    def _configs_early(self, engine: Any) -> None:
        if not self._in_place:
            self._configs(engine)

    @property
    def _in_place(self) -> bool:
        return self.root.resolve() == Path(self.source).resolve()

    def _configs(self, engine: Any) -> None:
        # the length that a budget has become: without a checkpoint, a resumed run finds it here
        config = {**self.config, "max_epochs": engine.state.max_epochs}
        write_bundle(self.source, self.root, config, self.plan, self.shared)

    def _weights(self, engine: Any) -> None:
        models, players = self.root / "models", engine.players
        if engine.phase is Phase.FINAL_FIT:
            with whole_file(models / "model.pt") as weights:
                save_file(players.network.state_dict(), weights)
                if self._in_place:
                    self._configs(engine)  # what takes long is done: old weights meet new configs for a moment only
            if any(engine.schedule.steps[phase] for phase in _DRAWING):  # else nothing has trained it
                save_generator(models / "generator", players.generator, players.genotype, self.generator_shape)
            logger.info("wrote %s", models / "model.pt")
        elif engine.phase in BASELINES:
            save_file(players.trained[engine.phase], models / "baselines" / f"{engine.phase}.pt")


class Forecast:
    """Rehearse every phase, say what the run will cost, and turn a budget of minutes into epochs, once.

    A resumed run keeps the epochs of its first start.

    Args:
        budget: such as ``30m``; ``None`` keeps the epochs of the config.
        wanted: whether to rehearse at all when there is no budget.
    """

    def __init__(self, budget: str | float | None = None, *, wanted: bool = True) -> None:
        self.seconds = None if budget is None else parse_budget(budget)
        self.wanted = wanted or budget is not None

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`, after `Resume`."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Measure before the first iteration."""
        if not self.wanted or engine.state.iteration > 0:
            return
        estimate = engine.communication.gather(measure(engine, any_length=self.seconds is not None))[0]
        if self.seconds is not None:
            engine.set_epochs(epochs_within(estimate, engine, self.seconds))
        costs = ", ".join(
            f"{phase} {steps} x {estimate.seconds[phase]:.3g} s"
            for phase, steps in engine.schedule.steps.items()
            if steps
        )
        costs += f", a step of the architecture {estimate.outer:.3g} s more" if estimate.outer else ""
        total, peak = estimate.total(engine.schedule), estimate.peak_bytes / 2**30
        logger.info("expected: %.1f minutes, %.1f GiB at the peak (%s)", total / 60, peak, costs)


class RunRecord:
    """Write ``run.json``: versions, seed, command, data folder, cases, times by phase, peak memory, energy if known.

    Args:
        output_dir: the run's folder.
        dataset_dir: where the data lie, for a later resume.
        seed: of the run.
        facts: further entries.
    """

    def __init__(
        self, output_dir: str | Path, dataset_dir: str, seed: int, facts: Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.dataset_dir = Path(output_dir) / "run.json", str(dataset_dir)
        self.seed, self.facts = seed, dict(facts or {})
        self._started = time.time()
        self._phases: dict[str, float] = {}
        self._meter: EnergyMeter | None = None
        self._energy_before = 0.0  # of the starts before this one

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(StageEvents.PHASE_STARTED, self._phase_started)
        engine.add_event_handler(StageEvents.PHASE_COMPLETED, self._phase_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda trainer: self._energy())
        engine.add_event_handler(Events.COMPLETED, lambda trainer: self._write(trainer, finished=True))

    def _start(self, engine: Any) -> None:
        device = engine.state.device
        self._meter = EnergyMeter(cuda=(device.index or 0) if device.type == "cuda" else None)
        if engine.state.iteration > 0 and self.path.exists():
            held = json.loads(self.path.read_text(encoding="utf-8"))
            self._phases, self._energy_before = held.get("seconds_by_phase", {}), held.get("energy_wh") or 0.0
        self._phase_started(engine)
        self._write(engine, finished=False)

    def _phase_started(self, engine: Any) -> None:
        self._phase_clock = time.perf_counter()

    def _phase_completed(self, engine: Any) -> None:
        spent = time.perf_counter() - self._phase_clock
        self._phases[str(engine.phase)] = round(self._phases.get(str(engine.phase), 0.0) + spent, 2)
        self._write(engine, finished=False)

    def _energy(self) -> float | None:
        """Return the watt hours of all starts of the run."""
        used = self._meter.watt_hours() if self._meter is not None else None
        return None if used is None else round(self._energy_before + used, 3)

    def _write(self, engine: Any, *, finished: bool) -> None:
        device = engine.state.device
        record = {
            "genseg": genseg_monai.__version__,
            "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
            "command": sys.argv,
            "dataset_dir": os.path.abspath(self.dataset_dir) if os.path.exists(self.dataset_dir) else self.dataset_dir,
            "seed": self.seed,
            "device": str(device),
            "precision": str(engine.acceleration.precision),
            "cases": {"training": len(engine.loader.cases), "search": len(engine.search_cases)},
            "iterations": {str(phase): steps for phase, steps in engine.schedule.steps.items()},
            "settings": {name: _plain(value) for name, value in vars(engine.settings).items()},
            "seconds_by_phase": self._phases,
            "seconds": round(time.time() - self._started, 1),
            "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "peak_gpu_memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
            if device.type == "cuda"
            else None,
            "energy_wh": self._energy(),
            "finished": finished,
            **self.facts,
        }
        with whole_file(self.path) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return vars(value) if hasattr(value, "__dataclass_fields__") else value
