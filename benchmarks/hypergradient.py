"""Which estimator of the hypergradient: its cost, and how far it agrees with the exact one, over the step length.

    python benchmarks/hypergradient.py [--segmenter unet] [--width 32] [--size 128] [--batch 2] [--threads 1]

Trains the three stages on drawn ultrasound pictures for a while, then finds the hypergradient of the same iterations
with every estimator. Printed are CPU seconds (the smallest), and against ``mixed`` (exact) the cosine over all of alpha
and the ratio of the lengths, as mean and worst over the iterations looked at.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

from benchmarks.step_cost import Setting, build
from genseg_monai.data.phantom import draw_phantom
from genseg_monai.engines import Phase, stages
from genseg_monai.multilevel import Estimator, ThreeLevels, hypergradient
from genseg_monai.multilevel.tree import Tree

LENGTHS = (1.0, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4)


def pictures(size: int, cases: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return drawn images `N 3 H W` and labels `N 1 H W`."""
    with tempfile.TemporaryDirectory() as name:
        folder = draw_phantom(name, cases=cases, size=size)
        files = sorted((folder / "images").iterdir())
        images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        labels = np.stack([np.asarray(Image.open(folder / "masks" / file.name).convert("L")) for file in files])
    return torch.tensor(images).movedim(-1, 1).float() / 255, torch.tensor(labels > 0).unsqueeze(1).byte()


class Recorder:
    """Stands in for `hypergradient` in stage III and asks every estimator about the same iteration.

    Args:
        columns: (estimator, length of a difference step).
    """

    def __init__(self, columns: list[tuple[Estimator, float]]) -> None:
        self.columns, self.looking = columns, False
        self.seconds: dict[tuple[Estimator, float], list[float]] = {column: [] for column in columns}
        self.cosines: dict[tuple[Estimator, float], list[float]] = {column: [] for column in columns}
        self.ratios: dict[tuple[Estimator, float], list[float]] = {column: [] for column in columns}

    def __call__(self, levels: ThreeLevels, *settings: Any, **named: Any) -> Tree:
        """Return what `hypergradient` returns."""
        if self.looking:
            exact = flat(hypergradient(replace(levels, synthetic=None, shared=None), "mixed"))
            for column in self.columns:
                start = time.process_time()
                # without the shared graphs, so that every estimator can be asked
                found = flat(hypergradient(replace(levels, synthetic=None, shared=None), column[0], epsilon=column[1]))
                self.seconds[column].append(time.process_time() - start)
                self.cosines[column].append(float(found @ exact / (found.norm() * exact.norm())))
                self.ratios[column].append(float(found.norm() / exact.norm()))
        return hypergradient(levels, *settings, **named)


def flat(tree: Tree) -> torch.Tensor:
    """Return all entries as one vector."""
    return torch.cat([value.flatten() for value in tree.values()]).double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--segmenter", default="unet")
    parser.add_argument("--width", type=int, default=32, help="of the generator")
    parser.add_argument("--discriminator-width", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=20, help="iterations before the first look")
    parser.add_argument("--looks", type=int, default=3, help="iterations looked at")
    parser.add_argument("--between", type=int, default=5, help="iterations between two looks")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    setting = Setting(
        arguments.size,
        arguments.batch,
        arguments.width,
        outer_every=1,
        threads=arguments.threads,
        estimator="mixed",
        repeats=1,
        segmenter=arguments.segmenter,
        discriminator_width=arguments.discriminator_width,
    )
    trainer = build(setting, pictures(arguments.size, 12))
    differences = (Estimator.FINITE_DIFFERENCE, Estimator.ONE_SIDED, Estimator.HYBRID)
    columns = [(Estimator.MIXED, 0.0), (Estimator.DIRECT, 0.0)]
    recorder = Recorder(columns + [(estimator, length) for estimator in differences for length in LENGTHS])
    stages.hypergradient = recorder
    for iteration in range(arguments.warm_up + arguments.looks * arguments.between):
        late = iteration - arguments.warm_up
        recorder.looking = late >= 0 and late % arguments.between == 0
        batch = trainer.loader.draw()
        masks = trainer.to_masks(batch["label"])
        trainer.take(Phase.SEARCH, 0, batch["image"], masks, lambda event, **values: None)

    print(f"{'estimator':<18} {'epsilon':>8} {'CPU s':>7} {'cosine':>8} {'worst':>8} {'length':>8} {'farthest':>8}")
    for column in recorder.columns:
        name, length = column
        farthest = max(recorder.ratios[column], key=lambda ratio: abs(ratio - 1))
        print(
            f"{name:<18} {f'{length:g}' if length else '-':>8} {min(recorder.seconds[column]):>7.2f} "
            f"{statistics.mean(recorder.cosines[column]):>8.4f} {min(recorder.cosines[column]):>8.4f} "
            f"{statistics.mean(recorder.ratios[column]):>8.4f} {farthest:>8.4f}"
        )
    count = sum(parameter.numel() for parameter in trainer.network.parameters()) / 1e6
    print(
        f"\nsegmenter {arguments.segmenter} ({count:.1f} M), generator width {arguments.width}, {arguments.size} "
        f"pixels, batch {arguments.batch}; {arguments.looks} looks after {arguments.warm_up}; torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
