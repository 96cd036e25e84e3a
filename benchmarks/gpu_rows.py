"""What `gpu.py` measures: one row of its table, the device's peak, the hypergradient's precision, the paper's setting.

Times are of CUDA events on a GPU and of the wall clock elsewhere; the same code runs on both.
"""

from __future__ import annotations

import copy
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks import step_cost
from genseg_monai.data.resident import ResidentCases, ResidentLoader
from genseg_monai.engines import (
    Acceleration,
    GenSegTrainer,
    LoopSettings,
    Phase,
    Precision,
    Shares,
    StageEvents,
    load_state,
    stages,
    take_state,
)
from genseg_monai.handlers import StopOnDivergence
from genseg_monai.losses import AdversarialLoss, SegmentationLoss
from genseg_monai.multilevel import hypergradient
from genseg_monai.networks import PatchDiscriminator, SearchableGenerator, make_segmenter
from genseg_monai.transforms import BatchAugment

EVERY = 4
"""Iterations between two steps of alpha, as in the default configuration."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    size: int
    batch: int
    width: int
    precision: str = "bfloat16"
    channels_last: bool = True
    compile: bool = False
    segmenter: str = "unet"
    features: tuple[int, ...] | None = None
    discriminator_width: int = 64
    cases: int = 40


def build(row: Row, device: torch.device, dtype: torch.dtype = torch.float32, **arguments: Any) -> GenSegTrainer:
    """Return a trainer on drawn boxes; the same row builds the same one."""
    torch.manual_seed(0)
    shape = (row.size, row.size)
    images, labels = step_cost.boxes(shape, row.cases)
    cases = ResidentCases(images.to(device, dtype), labels.to(device), [str(i) for i in range(row.cases)])
    acceleration = Acceleration(device, row.precision, channels_last=row.channels_last, compile=row.compile)
    narrow = {} if row.features is None else {"features": row.features}
    network = make_segmenter(row.segmenter, spatial_dims=2, in_channels=3, out_channels=2, image_size=shape, **narrow)
    generator = SearchableGenerator(2, 2, 3, shape, base_width=row.width)
    discriminator = PatchDiscriminator(2, 3, 2, width=row.discriminator_width, layers=3 if row.size > 64 else 2)
    for module in (network, generator, discriminator):
        module.to(device, dtype)
    fused = {"fused": acceleration.fused}
    adam = {"lr": 2e-4, "betas": (0.5, 0.999)} | fused
    settings = LoopSettings(outer_every=EVERY, outer_after=0, search_batch=row.batch, baselines=())
    given: dict[str, Any] = {"max_epochs": 1, "settings": settings, "augment": BatchAugment()}
    return GenSegTrainer(
        device=device,
        train_data_loader=ResidentLoader(cases, batch_size=row.batch, seed=0),
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), 1e-3, **fused),
        loss_function=SegmentationLoss(),
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=torch.optim.Adam(generator.weight_parameters().values(), **adam),
        discriminator_optimizer=torch.optim.Adam(discriminator.parameters(), **adam),
        arch_optimizer=torch.optim.Adam(generator.arch_parameters().values(), lr=1e-2, betas=(0.5, 0.999), **fused),
        adversarial_loss=AdversarialLoss(),
        acceleration=acceleration,
        **given | arguments,
    )


def take(trainer: GenSegTrainer, phase: Phase, step: int) -> None:
    """Take an iteration as the engine would, without handlers."""
    batch = trainer.loader.draw()
    trainer.take(phase, step, batch["image"], trainer.to_masks(batch["label"]), lambda event, **values: None)


# --- time


class Timer:
    """Marks in the queue of a GPU, or in time."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def mark(self) -> Any:
        """Return a mark of now."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, first: Any, last: Any) -> float:
        """Return the seconds between two marks."""
        if not self.cuda:
            return last - first
        last.synchronize()
        return first.elapsed_time(last) / 1000

    def of(self, run: Callable[[], Any], repeats: int = 1) -> float:
        """Return the seconds of a run, the mean of some."""
        first = self.mark()
        for _ in range(repeats):
            run()
        return self.seconds(first, self.mark()) / repeats


def peak(device: torch.device, precision: str, size: int, repeats: int = 10) -> float:
    """Return the fastest matrix product's operations a second, of square matrices of ``size``."""
    dtype = torch.bfloat16 if precision == Precision.BFLOAT16 else torch.float32
    left, right = (torch.rand(size, size, device=device, dtype=dtype) for _ in range(2))
    timer = Timer(device)
    with Acceleration(device, precision).settings_of_the_device():
        seconds = min(timer.of(lambda: left @ right, repeats) for _ in range(4))
    return 2 * size**3 / seconds


def measure(row: Row, device: torch.device, repeats: int, *, bare: bool) -> dict[str, Any]:
    """Return milliseconds of the stages and of an iteration, memory, operations; with ``bare`` the floor too."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    trainer = build(row, device)
    timer, spent = Timer(device), {}
    trainer.players.train()
    for step in range(EVERY + 1):  # the memories of the optimisers, cuDNN's search, compilation
        take(trainer, Phase.SEARCH, step)
    marks: list[tuple[str, Any]] = []
    events = {
        "stage I": StageEvents.GENERATOR_STEP_COMPLETED,
        "stage II": StageEvents.SEGMENTER_STEP_COMPLETED,
        "stage III": StageEvents.OUTER_STEP_COMPLETED,
    }
    for name, event in events.items():
        trainer.add_event_handler(event, lambda name: marks.append((name, timer.mark())), name)
    count = repeats * EVERY
    for step in range(count):
        marks.append(("between", timer.mark()))
        take(trainer, Phase.SEARCH, step)
    marks.append(("end", timer.mark()))
    spent = dict.fromkeys([*events, "between"], 0.0)
    for (_, before), (name, after) in zip(marks, marks[1:], strict=False):
        spent["between" if name == "end" else name] += 1000 * timer.seconds(before, after) / count
    iteration = 1000 * timer.seconds(marks[0][1], marks[-1][1]) / count
    found: dict[str, Any] = {**{name: spent[name] for name in events}, "iteration": iteration}
    found["images/s"] = 1000 * row.batch / iteration
    if device.type == "cuda":
        found["peak GiB"] = torch.cuda.max_memory_allocated(device) / 2**30
    if not row.compile:  # a compiled graph is not seen by the counter
        found["GFLOP"] = operations(trainer) / 1e9
    if bare:
        found["floor"] = 1000 * floor(trainer, device, max(2, repeats))
        found["iteration/floor"] = iteration / found["floor"]
    if device.type == "cuda":
        found["busy"] = busy(trainer) / (EVERY * iteration / 1000)
        found["waits"] = waits(trainer)
    return found


def operations(trainer: GenSegTrainer) -> float:
    """Return the floating-point operations of an iteration, stage III counted as often as it is due."""
    counts = []
    for step in (0, 1):
        with _Operations() as counter:
            take(trainer, Phase.SEARCH, step)
        counts.append(counter.total)
    return counts[1] + (counts[0] - counts[1]) / EVERY


class _Operations(TorchDispatchMode):
    """Counts as `FlopCounterMode` does; that one follows modules by hooks, which double backward passes do not bear."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = operation(*args, **kwargs or {})
        count = flop_registry.get(operation._overloadpacket)
        if count is not None:
            self.total += count(*args, **kwargs or {}, out_val=found)
        return found


def floor(trainer: GenSegTrainer, device: torch.device, repeats: int) -> float:
    """Return the seconds of the bare passes of an iteration, as `step_cost.py` defines them, in this precision."""
    timer, half = Timer(device), trainer.acceleration.precision == Precision.BFLOAT16
    context = torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
    with _timed_by(lambda run: timer.of(run)), context, trainer.acceleration.settings_of_the_device():
        return step_cost.floor(step_cost.passes(trainer, repeats), EVERY)


@contextmanager
def _timed_by(clock: Callable[[Callable[[], Any]], float]) -> Iterator[None]:
    """Let the passes of `step_cost.py` be timed by another clock than that of the CPU's work."""
    before, step_cost._spent = step_cost._spent, clock
    try:
        yield
    finally:
        step_cost._spent = before


def busy(trainer: GenSegTrainer) -> float:
    """Return the seconds in which a GPU works on kernels in ``EVERY`` iterations; if few, launching them is slow."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for step in range(EVERY):
            take(trainer, Phase.SEARCH, step)
        torch.cuda.synchronize()
    return sum(entry.self_device_time_total for entry in seen.key_averages()) / 1e6


def waits(trainer: GenSegTrainer) -> float:
    """Return how often an iteration waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for step in range(EVERY):
                take(trainer, Phase.SEARCH, step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen) / EVERY


# --- the hypergradient


def agreement(
    row: Row, device: torch.device, precisions: list[str], warm: int, estimator: str
) -> dict[str, dict[str, float]]:
    """Return cosine and length of one iteration's hypergradient against float64, from the same state, by precision."""
    trainer = build(row, device, augment=None)  # whose noise is drawn anew in another type
    for step in range(1, 1 + warm):
        take(trainer, Phase.SEARCH, 1 + step % (EVERY - 1))  # never one of stage III
    state = copy.deepcopy(take_state(trainer))
    del trainer
    exact = _hypergradient(replace(row, precision="float32"), device, torch.float64, state, estimator)
    found = {}
    for precision in precisions:
        other = _hypergradient(replace(row, precision=precision), device, torch.float32, state, estimator)
        cosine = float(other @ exact / (other.norm() * exact.norm()))
        found[precision] = {"cosine": cosine, "length": float(other.norm() / exact.norm())}
    return found


def _hypergradient(
    row: Row, device: torch.device, dtype: torch.dtype, state: dict[str, Any], estimator: str
) -> torch.Tensor:
    caught: list[torch.Tensor] = []

    def recorder(*levels: Any, **named: Any) -> Any:
        gradients = hypergradient(*levels, **named)
        caught.append(torch.cat([value.detach().double().flatten() for value in gradients.values()]))
        return gradients

    settings = LoopSettings(outer_every=EVERY, outer_after=0, search_batch=row.batch, estimator=estimator, epsilon=0.1)
    trainer = build(row, device, dtype, settings=settings, augment=None)
    load_state(trainer, copy.deepcopy(state) | {"data": trainer.loader.cases.digest()})
    stages.hypergradient = recorder  # type: ignore[attr-defined]
    try:
        take(trainer, Phase.SEARCH, 0)
    finally:
        stages.hypergradient = hypergradient  # type: ignore[attr-defined]
    return caught[0]


# --- a whole run


def phases(row: Row, device: torch.device, repeats: int) -> dict[str, float]:
    """Return the seconds of an iteration by phase, stage III as often as it is due."""
    trainer, timer, found = build(row, device), Timer(device), {}
    for phase in (Phase.WARM_UP, Phase.SEARCH, Phase.FINE_TUNE, Phase.FINAL_FIT):
        trainer.enter(phase)
        for step in range(EVERY + 1):
            take(trainer, phase, step)
        first = timer.mark()
        for step in range(repeats * EVERY):
            take(trainer, phase, step)
        found[str(phase)] = timer.seconds(first, timer.mark()) / (repeats * EVERY)
    return found


def short_run(row: Row, device: torch.device, iterations: int, folder: Path) -> dict[str, Any]:
    """Run all phases through the engine for so many iterations; return its wall seconds and its schedule."""
    handlers = [StopOnDivergence(folder, every=10)]
    arguments: dict[str, Any] = {"epoch_length": iterations, "train_handlers": handlers}
    settings = LoopSettings(Shares(), (), outer_every=EVERY, outer_after=2, search_batch=row.batch)
    trainer = build(row, device, settings=settings, **arguments)
    start = time.perf_counter()
    trainer.run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "steps": {str(phase): n for phase, n in trainer.schedule.steps.items()}}
