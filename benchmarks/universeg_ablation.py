"""What each part of UniverSeg's training is worth: equal short trainings, one thing left out of each.

    python benchmarks/universeg_ablation.py [--data DATA] [--iterations 600] [--size 32] [--json FILE]

Every arm is `bundle/configs/universeg_train.yaml` at one small size, from the same seed. It is scored on synthetic
tasks that none has seen, and with `--data` on the real tasks of `incontext_dice.py`, shrunk to that size; S = 16, one
pass.
The trainings are far shorter than that of the shipped weights: the table orders the parts, it does not measure them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.handlers.episodes import HeldOutTasks
from genseg_monai.metrics.episodes import mean_mask, most_similar_mask, soft_dice

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = 16

ARMS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "without task augmentation": {"task_augment#_disabled_": True},
    "without in-task augmentation": {"entry_augment#_disabled_": True},
    "without either": {"task_augment#_disabled_": True, "entry_augment#_disabled_": True},
    "100 synthetic tasks": {"synthetic_tasks": 100},
    "10 synthetic tasks": {"synthetic_tasks": 10},
    "label maps alone": {"synthetic#shaped": 0.0},
    "shapes alone": {"synthetic#shaped": 1.0},
}

Sample = tuple[Tensor, Tensor, Tensor, Tensor]
"""Query and its label ``1 1 H W``, support images and labels ``1 S 1 H W``."""


def train(overrides: dict[str, Any], iterations: int, size: int, seed: int) -> Any:
    """Train one arm and return its averaged network."""
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundle" / "configs" / "universeg_train.yaml"))
    stage = {"_target_": "genseg_monai.data.episodes.EpisodeStage", "size": size, "support": [1, SUPPORT]}
    stage |= {"entries": 24, "tasks": 8}
    given = {"stages": [stage], "max_epochs": 1, "epoch_length": iterations, "seed": seed, "train#handlers": []}
    parser.update({**given, "device": "cpu", **overrides})
    torch.manual_seed(seed)
    trainer = parser.get_parsed_content("train#trainer")
    losses: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output["loss"])))
    trainer.run()
    return trainer.average.eval(), sum(losses[-100:]) / len(losses[-100:])


def synthetic_samples(count: int, size: int) -> list[Sample]:
    """Return held-out synthetic tasks."""
    held_out = HeldOutTasks(size=size, tasks=count, supports=(SUPPORT,)).tasks()
    return [(images[:1], labels[:1], images[None, 1:], labels[None, 1:]) for images, labels in held_out]


def real_samples(data: str, queries: int, size: int) -> dict[str, list[Sample]]:
    """Return queries of the real tasks, in grey, each with the first supports of the training split."""
    sys.path.insert(0, str(Path(__file__).parent))
    from incontext_dice import TASKS, read_task

    def shrunk(images: Tensor) -> Tensor:
        grey = images.float().mean(1, keepdim=True)
        return F.interpolate(grey, (size, size), mode="bilinear", antialias=True, align_corners=False)

    found: dict[str, list[Sample]] = {}
    for name, source in TASKS.items():
        supports, asked = read_task(Path(data), source, queries, seed=0)
        images, labels = shrunk(supports.images[:SUPPORT]), shrunk((supports.labels[:SUPPORT] > 0).float())
        pairs = zip(shrunk(asked.images), shrunk((asked.labels > 0).float()) > 0.5, strict=True)
        found[name] = [(q[None], t[None].float(), images[None], (labels[None] > 0.5).float()) for q, t in pairs]
    return found


def score(answer: Any, samples: list[Sample]) -> float:
    """Return the mean Dice in percent."""
    return 100 * sum(float(soft_dice(answer(*sample), sample[1])) for sample in samples) / len(samples)


def answers_of(network: Any) -> Any:
    """Return what answers a sample with the network's mask."""
    return lambda query, truth, *support: (network(query, *support) > 0).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--tasks", type=int, default=100, help="held-out synthetic tasks")
    parser.add_argument("--queries", type=int, default=10, help="a real task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", default="", help="names, with commas between them; all if not given")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sets = {"synthetic": synthetic_samples(arguments.tasks, arguments.size)}
    if arguments.data:
        sets |= real_samples(arguments.data, arguments.queries, arguments.size)
    floors = {
        "floor: mean mask": lambda query, truth, images, labels: mean_mask(labels),
        "floor: nearest": lambda query, truth, images, labels: most_similar_mask(query, images, labels),
    }
    rows = {name: {"dice": {key: score(floor, held) for key, held in sets.items()}} for name, floor in floors.items()}
    print("| arm | loss | seconds | synthetic |" + (" real, mean |" if arguments.data else ""))
    print("|---|---|---|---|" + ("---|" if arguments.data else ""))
    arms = {name: over for name, over in ARMS.items() if not arguments.arms or name in arguments.arms.split(",")}
    for name in [*floors, *arms]:
        if name in arms:
            start = time.monotonic()
            network, loss = train(arms[name], arguments.iterations, arguments.size, arguments.seed)
            spent = time.monotonic() - start
            with torch.inference_mode():
                dice = {key: score(answers_of(network), held) for key, held in sets.items()}
            rows[name] = {"loss": loss, "seconds": spent, "dice": dice}
        row = rows[name]
        real = [value for key, value in row["dice"].items() if key != "synthetic"]
        told = f"{row['loss']:.3f} | {row['seconds']:.0f}" if "loss" in row else "|"
        cells = f"| {name} | {told} | {row['dice']['synthetic']:.1f} |"
        print(cells + (f" {sum(real) / len(real):.1f} |" if real else ""), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
