"""Does the architecture search see anything? Hypergradients of one state compared, and alpha followed against chance.

    python benchmarks/search_signal.py --data DATA --preset polyps_kvasir [--seeds 0,1] [--size 64]

Trains the generator, then all three stages for a while, and stops there. From this state:

1. The hypergradient is found again and again, each time with other batches and other warps. Printed: the mean cosine of
   two of them (0 by chance), the share of draws that agree with the majority on the sign of an entry of alpha, and what
   chance gives, and signal over noise, the length of the mean against the standard error of the mean (1 by chance).
2. The search goes on with alpha moved along the hypergradient, along a random direction by steps of the same length, or
   not at all; each several times with other batches. Printed: the loss of the segmenter on the search cases and on the
   validation cases at the end, mean and standard deviation over the repeats.
3. Where alpha went from different seeds: the cosine of the changes of softmax(alpha) between the seeds.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from monai.networks.utils import one_hot

from benchmarks.hypergradient import flat
from genseg_monai.engines import GenSegTrainer, Phase, stages
from genseg_monai.multilevel import hypergradient

PARTS = ("network", "optimizer", "generator", "generator_optimizer", "discriminator", "discriminator_optimizer",
         "arch_optimizer")  # fmt: skip
POLICIES = ("hypergradient", "random", "still")


def start(arguments: argparse.Namespace, seed: int, folder: str) -> tuple[GenSegTrainer, Any]:
    """Return a trainer on real cases, and the loader of its validation cases."""
    from monai.bundle import ConfigWorkflow

    from genseg_monai.apps.train import config_files
    from genseg_monai.apps.workflow import quiet

    quiet()
    overrides = {"size": [arguments.size] * 2, "generator_width": arguments.width, "segmenter": arguments.segmenter}
    if arguments.segmenter == "unet_small":
        overrides["network_def#features"] = [16, 16, 32, 64, 128, 16]
    begun = ConfigWorkflow(
        [str(path) for path in config_files(arguments.preset)], workflow_type="train", logging_file=False,
        dataset_dir=arguments.data, output_dir=f"{folder}/out", device="cpu", seed=seed, rehearse=False,
        baselines=[], final_scores=False, outer_every=1, outer_after=0, batch_size=arguments.batch,
        search_batch=arguments.search_batch, search_fraction=arguments.search_fraction, warp_real=arguments.warp_real,
        **overrides,
    )  # fmt: skip
    begun.initialize()
    trainer = begun.parser.get_parsed_content("train#trainer")
    # nothing is left to the handlers: no file is written
    return trainer, begun.parser.get_parsed_content("validate#dataloader")


def take(trainer: GenSegTrainer, phase: Phase, due: bool = False) -> None:
    """Take one iteration."""
    batch = trainer.loader.draw()
    step = 0 if due else 1
    trainer.settings.__dict__["outer_every"] = 1 if due else 1_000_000  # stage III at step 0 alone
    trainer.take(phase, step, batch["image"], trainer.to_masks(batch["label"]), lambda event, **values: None)


def snapshot(trainer: GenSegTrainer) -> dict[str, Any]:
    return {name: copy.deepcopy(getattr(trainer.players, name).state_dict()) for name in PARTS}


def restore(trainer: GenSegTrainer, held: dict[str, Any]) -> None:
    for name, state in held.items():
        getattr(trainer.players, name).load_state_dict(copy.deepcopy(state))


def alpha_of(trainer: GenSegTrainer) -> torch.Tensor:
    return flat({name: value.detach().clone() for name, value in trainer.generator.arch_parameters().items()})


def weights_of(trainer: GenSegTrainer) -> torch.Tensor:
    return flat(trainer.generator.arch_weights())


def redraws(trainer: GenSegTrainer, held: dict[str, Any], draws: int) -> torch.Tensor:
    """Return hypergradients of one state, `draws A`, each with batches and warps of its own."""
    found: list[torch.Tensor] = []

    def look(*levels: Any, **named: Any) -> Any:
        tree = hypergradient(*levels, **named)
        found.append(flat(tree))
        return tree

    stages.hypergradient = look
    for _ in range(draws):
        take(trainer, Phase.SEARCH, due=True)
        restore(trainer, held)
    stages.hypergradient = hypergradient
    return torch.stack(found)


def agreement(found: torch.Tensor) -> dict[str, float]:
    """Return how far draws of one vector agree."""
    directions = found / found.norm(dim=1, keepdim=True)
    count = len(found)
    cosine = (directions.sum(0).square().sum() - count) / (count * (count - 1))
    signs = ((found > 0).double().mean(0) - 0.5).abs() + 0.5
    noise = found.var(0).sum().div(count).sqrt()
    chance = 0.5 + sum(math.comb(count, k) * abs(k / count - 0.5) for k in range(count + 1)) / 2**count
    return {
        "cosine": float(cosine),
        "signs": float(signs.mean()),
        "signs by chance": chance,
        "signal/noise": float(found.mean(0).norm() / noise),
    }


@torch.no_grad()
def losses(trainer: GenSegTrainer, validation: Any) -> tuple[float, float]:
    """Return the segmenter's loss on the search cases and on the validation cases."""
    cases = trainer.loader.cases
    index = torch.tensor(trainer.search_cases)
    batches = [(cases.images[index], cases.labels[index])]
    own = [(batch["image"].as_tensor(), batch["label"].as_tensor()) for batch in validation]
    return tuple(  # type: ignore[return-value]
        statistics.mean(
            float(trainer.loss_function(trainer.network(image), one_hot(label.long(), trainer.classes, dim=1)))
            for image, label in pairs
        )
        for pairs in (batches, own)
    )


def follow(trainer: GenSegTrainer, policy: str, steps: int, every: int, random: torch.Generator) -> None:
    """Go on with the search, alpha moved by `policy`."""
    for step in range(steps):
        before = {name: value.detach().clone() for name, value in trainer.generator.arch_parameters().items()}
        take(trainer, Phase.SEARCH, due=step % every == 0)
        if policy == "hypergradient":
            continue
        after = trainer.generator.arch_parameters()
        moved = flat({name: after[name].detach() - before[name] for name in before}).norm()
        chance = {name: torch.randn(value.shape, generator=random) for name, value in before.items()}
        scale = (moved / flat(chance).norm()).float() if policy == "random" else 0.0
        for name, value in after.items():
            value.data.copy_(before[name] + scale * chance[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    integers: Callable[[str], list[int]] = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--data", required=True)
    parser.add_argument("--preset")
    parser.add_argument("--seeds", type=integers, default=[0, 1])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=16, help="of the generator")
    parser.add_argument("--segmenter", default="unet_small")
    parser.add_argument("--batch", type=int, default=4, help="of real pairs, and of synthetic ones")
    parser.add_argument("--search-batch", type=int, default=4, help="cases of the search loss")
    parser.add_argument(
        "--search-fraction",
        type=float,
        default=0.25,
        help="of the training cases, kept for the search; 0: all train",
    )
    parser.add_argument("--warp-real", action="store_true", help="the generator learns from moved images")
    parser.add_argument("--warm-up", type=int, default=200, help="iterations of stage I alone")
    parser.add_argument("--search", type=int, default=80, help="iterations of all stages before the state looked at")
    parser.add_argument("--draws", type=int, default=16, help="hypergradients of that state")
    parser.add_argument("--steps", type=int, default=60, help="iterations of each continuation")
    parser.add_argument("--every", type=int, default=4, help="iterations between two steps of alpha")
    parser.add_argument("--repeats", type=int, default=3, help="continuations of each kind; 0 looks at the state alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    went: list[torch.Tensor] = []
    begun = time.process_time()
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            trainer, validation = start(arguments, seed, folder)
            trainer.loader.use(trainer.train_cases, trainer.batch_size)
            first = weights_of(trainer)
            for _ in range(arguments.warm_up):
                take(trainer, Phase.WARM_UP)
            follow(trainer, "hypergradient", arguments.search, arguments.every, torch.Generator())
            held = snapshot(trainer)
            told = agreement(redraws(trainer, held, arguments.draws))
            print(f"seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in told.items()), flush=True)
            ends: dict[str, list[tuple[float, float]]] = {policy: [] for policy in POLICIES}
            for repeat, policy in itertools.product(range(arguments.repeats), POLICIES):
                restore(trainer, held)
                random = torch.Generator().manual_seed(1000 * seed + repeat)
                # the same batches and warps for the three policies of a repeat
                trainer.random.manual_seed(1000 * seed + repeat)
                trainer.loader.use(trainer.train_cases, trainer.batch_size)
                torch.manual_seed(1000 * seed + repeat)
                follow(trainer, policy, arguments.steps, arguments.every, random)
                ends[policy].append(losses(trainer, validation))
                if policy == "hypergradient" and repeat == 0:
                    went.append(weights_of(trainer) - first)
            for policy, values in ends.items() if arguments.repeats else ():
                parts = []
                for name, column in zip(("search", "validation"), zip(*values, strict=True), strict=True):
                    spread = statistics.stdev(column) if len(column) > 1 else 0.0
                    parts.append(f"{name} loss {statistics.mean(column):.4f} +- {spread:.4f}")
                print(f"  alpha by {policy:<14} {', '.join(parts)}", flush=True)
    for (i, left), (j, right) in itertools.combinations(enumerate(went), 2):
        cosine = float(left @ right / (left.norm() * right.norm()))
        print(
            f"softmax(alpha) of seeds {arguments.seeds[i]} and {arguments.seeds[j]}: changes by "
            f"{float(left.norm()):.3f} and {float(right.norm()):.3f}, cosine {cosine:.3f}"
        )
    print(f"{time.process_time() - begun:.0f} CPU s, torch {torch.__version__}")


if __name__ == "__main__":
    main()
