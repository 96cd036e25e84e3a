"""What one iteration of the three-stage loop costs, beside a plain U-Net step and beside the sum of its bare passes.

    python benchmarks/step_cost.py --sizes 128 --batches 2 --widths 32,64 --threads 1 [--estimator hybrid]
        [--search-space shared] [--json FILE]
    python benchmarks/step_cost.py --spatial-dims 3 --sizes 64 --segmenter unet_small --widths 8 --outer-every 4

Setting of Zhang et al.'s public release: U-Net of 31 M weights, a mixed generator, a discriminator of 2.8 M; here every
cell of the generator is searched. CPU seconds, so that other work on the machine changes little; each setting runs in a
process of its own, whose highest resident memory (libraries and all) is the peak. The columns:

    stage I, II, III    the three steps, each with its optimiser; III as often as it is due
    iteration           their sum
    floor               the bare passes an iteration cannot do without, each measured alone in the same process:
                        I   D + collapse + G + spread + Adam of D and G
                        II  collapse + G forward + 2 S + AdamW of S
                        III [S + input-only S + G backward + spread + collapse + G + inner products + Adam of alpha]
                            / outer_every
                        S, D: forward and backward of segmenter and discriminator; G: of the generator with ready
                        kernels and of the discriminator behind it, no gradient in the latter's weights; collapse: the
                        kernels of all cells from their candidates; spread: its transpose, a gradient in the kernels
                        brought to the candidates (the second time to alpha as well); inner products: the transpose's
                        part in alpha alone. Stage III is here that of one-sided differences (one input-only S, one G),
                        the cheapest there is; what `mixed` does more to be exact is not in the floor, nor are the
                        vectors of stage III (P v, theta before its step), the data, and the loop around it all
    data %              share of drawing a batch, one-hot masks, warping them and augmenting the real pairs
    plain step          forward, backward and optimiser step of the same U-Net on one batch of the same size
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from genseg_monai.data.resident import ResidentCases, ResidentLoader
from genseg_monai.engines import GenSegTrainer, LoopSettings
from genseg_monai.engines.dense_step import as_they_lie
from genseg_monai.engines.events import StageEvents
from genseg_monai.engines.schedule import Phase
from genseg_monai.engines.stages import frozen
from genseg_monai.losses import AdversarialLoss, SegmentationLoss
from genseg_monai.networks import PatchDiscriminator, SearchableGenerator, SearchSpace, make_segmenter
from genseg_monai.networks.reduction import blocks_of, draw, reduce_all
from genseg_monai.transforms import BatchAugment

CHANNELS, CLASSES = 3, 2


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    size: int
    batch: int
    width: int
    outer_every: int
    threads: int
    estimator: str
    repeats: int
    segmenter: str = "unet"
    spatial_dims: int = 2
    discriminator_width: int = 64
    space: str = "paper"


def boxes(shape: tuple[int, ...], cases: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy images `N C H W [D]` and labels `N 1 H W [D]`; what they show does not change what a step costs."""
    labels = torch.zeros(cases, 1, *shape, dtype=torch.uint8)
    for i, label in enumerate(labels):
        label[:, i : i + shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 1
    return (0.5 * labels.float() + 0.3 * torch.rand(cases, CHANNELS, *shape)).clamp(0, 1), labels


def build(setting: Setting, pairs: tuple[torch.Tensor, torch.Tensor] | None = None, seed: int = 0) -> GenSegTrainer:
    """Return a trainer on ``pairs`` of images and labels."""
    torch.manual_seed(seed)
    dims = setting.spatial_dims
    shape = (setting.size,) * dims
    images, labels = pairs or boxes(shape, 4 * setting.batch)
    cases = ResidentCases(images, labels, [str(i) for i in range(len(labels))])
    network = make_segmenter(
        setting.segmenter, spatial_dims=dims, in_channels=CHANNELS, out_channels=CLASSES, image_size=shape
    )
    generator = SearchableGenerator(dims, CLASSES, CHANNELS, shape, base_width=setting.width, space=setting.space)
    discriminator = PatchDiscriminator(dims, CHANNELS, CLASSES, width=setting.discriminator_width)
    adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
    return GenSegTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=ResidentLoader(cases, batch_size=setting.batch, seed=seed),
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), 1e-3, fused=True),
        loss_function=SegmentationLoss(),
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=torch.optim.Adam(generator.weight_parameters().values(), fused=True, **adam),
        discriminator_optimizer=torch.optim.Adam(discriminator.parameters(), fused=True, **adam),
        arch_optimizer=torch.optim.Adam(generator.arch_parameters().values(), lr=1e-2, betas=(0.5, 0.999)),
        adversarial_loss=AdversarialLoss(),
        settings=LoopSettings(
            outer_every=setting.outer_every,
            outer_after=0,
            search_batch=setting.batch,
            estimator=setting.estimator,
            baselines=(),
        ),
        augment=BatchAugment(),
        seed=seed,
    )


def stages(trainer: GenSegTrainer, iterations: int, first: int) -> dict[str, float]:
    """Return the CPU seconds of each stage, averaged over ``iterations`` of the search phase."""
    spent = dict.fromkeys(("stage I", "stage II", "stage III"), 0.0)
    events = (
        StageEvents.GENERATOR_STEP_COMPLETED,
        StageEvents.SEGMENTER_STEP_COMPLETED,
        StageEvents.OUTER_STEP_COMPLETED,
    )
    clock = [0.0]

    def lap(name: str) -> None:
        now = time.process_time()
        spent[name] += now - clock[0]
        clock[0] = now

    handlers = [trainer.add_event_handler(event, lap, name) for event, name in zip(events, spent, strict=True)]
    for step in range(first, first + iterations):
        batch = trainer.loader.draw()
        clock[0] = time.process_time()
        trainer.take(Phase.SEARCH, step, batch["image"], trainer.to_masks(batch["label"]), lambda event, **values: None)
    for handler in handlers:
        handler.remove()
    return {name: seconds / iterations for name, seconds in spent.items()}


def passes(trainer: GenSegTrainer, repeats: int) -> dict[str, float]:
    """Return the CPU seconds of the bare passes of which the floor is made, and of one plain U-Net step."""
    network, generator, discriminator = trainer.network, trainer.generator, trainer.players.discriminator
    batch = trainer.loader.draw()
    images, masks = batch["image"], trainer.to_masks(batch["label"])
    theta, alpha = generator.weight_parameters(), generator.arch_parameters()
    phi, psi = list(network.parameters()), list(discriminator.parameters())
    adversarial = trainer.adversarial_loss
    blocks = blocks_of(generator)
    with torch.no_grad():
        kernels = reduce_all(blocks, theta, alpha)
    leaves = {name: value.clone().requires_grad_() for name, value in kernels.items()}

    def segment(inputs: torch.Tensor) -> torch.Tensor:
        return trainer.loss_function(network(inputs), masks)

    def whole() -> None:
        torch.autograd.grad(segment(images), phi)

    def input_only() -> None:
        inputs = images.clone().requires_grad_()
        with frozen(phi):
            torch.autograd.grad(segment(inputs), inputs)

    def judge() -> None:
        loss = adversarial.discriminator(discriminator(images, masks), discriminator(images.flip(0), masks))
        torch.autograd.grad(loss, psi)

    def draw_and_judge() -> None:
        with frozen(psi):
            fake = draw(generator, masks, leaves)
            loss = adversarial.generator(discriminator(fake, masks), fake, images)
            torch.autograd.grad(loss, list(leaves.values()))

    def forward() -> None:
        with torch.no_grad():
            draw(generator, masks, kernels)

    def backward() -> float:
        fake = draw(generator, masks, leaves)
        return _spent(lambda: torch.autograd.grad(fake.sum(), list(leaves.values())))

    def collapse() -> None:
        with torch.no_grad():
            reduce_all(blocks, theta, alpha)

    def spread(wanted: Sequence[torch.Tensor], held: Sequence[torch.nn.Parameter]) -> float:
        with frozen(held):
            reduced = reduce_all(blocks, theta, alpha)
            made = [name for name, value in reduced.items() if value.requires_grad]
            values, slopes = [reduced[name] for name in made], [kernels[name] for name in made]
            return _spent(lambda: torch.autograd.grad(values, wanted, slopes, allow_unused=True))

    def step(optimizer: torch.optim.Optimizer) -> float:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 1e-3)
        with as_they_lie(optimizer):
            spent = _spent(optimizer.step)
        optimizer.zero_grad(set_to_none=True)
        return spent

    def plain() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        segment(images).backward()
        trainer.optimizer.step()

    weights, architecture = list(theta.values()), list(alpha.values())
    timed: dict[str, Callable[[], float]] = {
        "S": lambda: _spent(whole),
        "input-only S": lambda: _spent(input_only),
        "D": lambda: _spent(judge),
        "G": lambda: _spent(draw_and_judge),
        "G forward": lambda: _spent(forward),
        "G backward": backward,
        "collapse": lambda: _spent(collapse),
        "spread": lambda: spread(weights, architecture),
        "spread to both": lambda: spread(weights + architecture, []),
        "inner products": lambda: spread(architecture, weights),
        "plain step": lambda: _spent(plain),
        "Adam S": lambda: step(trainer.optimizer),
        "Adam G": lambda: step(trainer.players.generator_optimizer),
        "Adam D": lambda: step(trainer.players.discriminator_optimizer),
        "Adam alpha": lambda: step(trainer.players.arch_optimizer),
    }
    return {name: _median(run, repeats) for name, run in timed.items()}


def floor(bare: dict[str, float], outer_every: int) -> float:
    """Return the sum of what an iteration cannot do without; see the head of this file."""
    often = ("D", "collapse", "G", "spread", "Adam D", "Adam G", "collapse", "G forward", "S", "S", "Adam S")
    outer = ("S", "input-only S", "G backward", "spread to both", "collapse", "G", "inner products", "Adam alpha")
    return sum(bare[name] for name in often) + sum(bare[name] for name in outer) / outer_every


def prepare(trainer: GenSegTrainer) -> None:
    """Do what an iteration does to its data: draw a batch, one-hot masks, warp them, augment the real pairs."""
    batch = trainer.loader.draw()
    masks = trainer.to_masks(batch["label"])
    trainer.synthetic_conditions(batch["image"], masks)
    if trainer.augment is not None:
        trainer.augment(batch["image"], masks, trainer.random)


def _spent(run: Callable[[], Any]) -> float:
    """Return the CPU seconds of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def _median(run: Callable[[], float], repeats: int) -> float:
    """Return the median of what ``repeats`` runs tell after one that does not count."""
    return statistics.median([run() for _ in range(repeats + 1)][1:])


def measure(setting: Setting) -> dict[str, Any]:
    """Measure one setting in this process."""
    torch.set_num_threads(setting.threads)
    trainer = build(setting)
    stages(trainer, setting.outer_every, 0)
    row: dict[str, Any] = stages(trainer, setting.repeats * setting.outer_every, setting.outer_every)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    bare = passes(trainer, setting.repeats)
    row["iteration"] = sum(row.values())
    row["floor"] = floor(bare, setting.outer_every)
    row["iteration/floor"] = row["iteration"] / row["floor"]
    row["iteration/plain"] = row["iteration"] / bare["plain step"]
    row["data %"] = 100 * _median(lambda: _spent(lambda: prepare(trainer)), 10) / row["iteration"]
    return asdict(setting) | row | {"peak GiB": peak / 2**30, "passes": bare, "torch": torch.__version__}


COLUMNS = (
    "stage I",
    "stage II",
    "stage III",
    "iteration",
    "floor",
    "iteration/floor",
    "iteration/plain",
    "data %",
    "peak GiB",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    integers: Callable[[str], list[int]] = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--sizes", type=integers, default=[128])
    parser.add_argument("--batches", type=integers, default=[2])
    parser.add_argument("--widths", type=integers, default=[32, 64], help="base widths of the generator")
    parser.add_argument("--outer-every", type=integers, default=[1, 4], help="iterations between two steps of alpha")
    parser.add_argument("--spatial-dims", type=int, default=2)
    parser.add_argument("--segmenter", default="unet")
    parser.add_argument("--search-space", default="paper", choices=list(SearchSpace))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--estimator", default=str(LoopSettings().estimator))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the rows to this file as well")
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.setting:
        print(json.dumps(measure(Setting(**json.loads(arguments.setting)))))
        return

    head = f"{'size':>4} {'batch':>5} {'width':>5} {'every':>5} "
    print(head + " ".join(f"{name:>{max(9, len(name))}}" for name in COLUMNS), flush=True)
    rows = []
    common = (arguments.threads, arguments.estimator, arguments.repeats, arguments.segmenter, arguments.spatial_dims)
    for size in arguments.sizes:
        for batch in arguments.batches:
            for width in arguments.widths:
                for every in arguments.outer_every:
                    row = _in_its_own_process(Setting(size, batch, width, every, *common, space=arguments.search_space))
                    cells = " ".join(f"{row[name]:>{max(9, len(name))}.2f}" for name in COLUMNS)
                    print(f"{size:>4} {batch:>5} {width:>5} {every:>5} {cells}", flush=True)
                    rows.append(row)
    for row in rows:
        bare = ", ".join(f"{name} {seconds:.2f}" for name, seconds in row["passes"].items())
        print(f"passes at size {row['size']}, batch {row['batch']}, width {row['width']}, CPU s: {bare}")
    told = f"{arguments.spatial_dims}D, {arguments.segmenter}, {arguments.search_space}, {arguments.estimator}"
    print(f"{told}, {arguments.threads} thread(s), torch {torch.__version__}; times in CPU s")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def _in_its_own_process(setting: Setting) -> dict[str, Any]:
    command = [sys.executable, __file__, "--setting", json.dumps(asdict(setting))]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
