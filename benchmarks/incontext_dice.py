"""Dice of segmenting by examples on real tasks that no training has seen, against two floors that use no network.

    python benchmarks/incontext_dice.py --data DATA [--weights FILE] [--minutes 8] [--json FILE] [--picture FILE]

DATA holds the data sets wbc1, jsrt, isic2017, kvasir, fuseg and hippocampus_3d. Supports are drawn from the training
split, queries from the test split (fixed seed), at 128 x 128 pixels, where the Dice is taken too; hippocampus is the
axial slice of each volume that shows most of it. Pictures without the object are left out, as in the training.

For each S: `one pass` is one random draw of S supports; `ensemble` is what `genseg incontext` does: draws of S from the
2 S most similar supports, averaged, each but the first flipped, turned and scaled together with the query.
Floors: `mean mask`: where more than half of the 40 support masks have the object; `nearest`: the mask of the support
most similar to the query. Queries are taken in turn over the tasks until `--queries` a task or `--minutes` are reached.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genseg_monai.data.cases import find_cases
from genseg_monai.data.splits import read_splits
from genseg_monai.inferers.in_context import InContextSettings, each_member, mean_of
from genseg_monai.inferers.support_cases import read_supports, support_plan
from genseg_monai.inferers.support_set import SupportSet
from genseg_monai.networks.universeg_weights import load_universeg

SIZES = (1, 4, 16, 40)
POOL = 40
SHIPPED = Path(__file__).resolve().parents[1] / "bundle" / "models" / "universeg" / "model.pt"


@dataclass(frozen=True)
class Source:
    """A task: a data set, its folder of masks, and which raw values are the object."""

    folder: str
    values: dict[int, int]
    masks: str | None = None


TASKS = {
    "wbc1 nucleus": Source("wbc1", {0: 0, 128: 0, 255: 1}),
    "wbc1 cell": Source("wbc1", {0: 0, 128: 1, 255: 1}),
    "jsrt lungs": Source("jsrt", {0: 0, 255: 1}, "masks"),
    "jsrt heart": Source("jsrt", {0: 0, 1: 0, 2: 0, 3: 1, 4: 0, 5: 0}, "masks_multiclass"),
    "jsrt clavicles": Source("jsrt", {0: 0, 1: 0, 2: 0, 3: 0, 4: 1, 5: 1}, "masks_multiclass"),
    "isic2017 lesion": Source("isic2017", {0: 0, 255: 1}),
    "kvasir polyp": Source("kvasir", {0: 0, 255: 1}),
    "fuseg wound": Source("fuseg", {0: 0, 255: 1}),
    "hippocampus": Source("hippocampus_3d", {0: 0, 1: 1, 2: 1}),
}


def read_task(root: Path, source: Source, queries: int, seed: int) -> tuple[SupportSet, SupportSet]:
    """Read the supports and the queries of a task, each showing the object."""
    splits = read_splits(root / source.folder, find_cases(root / source.folder, source.masks))
    order = np.random.default_rng(seed).permutation(len(splits.test))
    plan = support_plan(splits.train, source.values)
    supports = _planes(splits.train, plan, POOL)
    return supports, _planes([splits.test[i] for i in order], plan, queries)


def _planes(cases: list[dict[str, Any]], plan: Any, most: int) -> SupportSet:
    """Read cases until so many show the object; of a volume the plane that shows most."""
    found: list[tuple[Tensor, Tensor]] = []
    for case in cases:
        planes = read_supports([case], plan, axis=2).planes
        best = int((planes.labels > 0).flatten(1).sum(1).argmax())
        if bool((planes.labels[best] > 0).any()) and len(found) < most:
            found.append((planes.images[best], planes.labels[best]))
    images, labels = zip(*found, strict=True)
    return SupportSet(torch.stack(images), torch.stack(labels), plan.classes)


def dice(probability: Tensor, truth: Tensor) -> float:
    """Return the Dice of two masks of which the second is not empty."""
    mask = probability > 0.5
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def score_query(
    network: Any, query: Tensor, truth: Tensor, supports: SupportSet, members: int, seed: int
) -> dict[str, Any]:
    """Score one query in every way: `floors`, and for each S `one` and the Dice of 1, 2, ... members averaged."""
    nearest = int(supports.distances(query[None])[0].argmin())
    mean = (supports.labels > 0).float().mean(0)
    told: dict[str, Any] = {"mean mask": dice(mean, truth), "one": {}, "ensemble": {}}
    told["nearest"] = dice((supports.labels[nearest] > 0).float(), truth)
    for size in SIZES:
        settings = InContextSettings(support_size=size, ensemble=members, pairs_at_once=1)
        total, seen, grown = torch.zeros_like(query), torch.zeros_like(query), []
        for objects, inside in each_member(network, query, supports, settings):
            total, seen = total + objects.sum(0), seen + inside.sum(0)
            grown.append(dice(mean_of(total, seen)[1:], truth))
        told["ensemble"][size] = grown
        if size >= len(supports):
            told["one"][size] = grown[0]
            continue
        single = InContextSettings(support_size=size, ensemble=1, choice="random", seed=seed)
        [(objects, _)] = each_member(network, query, supports, single)
        told["one"][size] = dice(objects[0], truth)
    return told


def run(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the scores of each query, tasks taken in turn."""
    network = load_universeg(arguments.weights).eval()
    start, root = time.monotonic(), Path(arguments.data)
    chosen = {
        name: source for name, source in TASKS.items() if not arguments.tasks or name in arguments.tasks.split(",")
    }
    read = {name: read_task(root, source, arguments.queries, arguments.seed) for name, source in chosen.items()}
    fast = torch.autocast("cpu", dtype=torch.bfloat16) if arguments.bfloat16 else nullcontext()
    with torch.inference_mode(), fast:
        for i in range(arguments.queries):
            for name, (supports, queries) in read.items():
                if i < len(queries):
                    truth = queries.labels[i] > 0
                    yield name, score_query(network, queries.images[i], truth, supports, arguments.members, i)
            passed = (time.monotonic() - start) / 60
            print(f"{i + 1} of {arguments.queries} queries a task, {passed:.1f} min", file=sys.stderr)
            if arguments.minutes and passed * (i + 2) / (i + 1) > arguments.minutes:
                return


def summary(scores: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row a task and their mean: floors, and for each S one pass and the whole ensemble, in percent."""
    rows = []
    for name, told in scores.items():
        row: dict[str, Any] = {"task": name, "queries": len(told)}
        row |= {floor: 100 * np.mean([one[floor] for one in told]) for floor in ("mean mask", "nearest")}
        for size in SIZES:
            row[f"one {size}"] = 100 * np.mean([one["one"][size] for one in told])
            row[f"ensemble {size}"] = 100 * np.mean([one["ensemble"][size][-1] for one in told])
        rows.append(row)
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key not in ("task", "queries")}
    return [*rows, {"task": "mean", "queries": sum(row["queries"] for row in rows), **mean}]


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the rows out as a Markdown table, and say how far above the better floor the mean is."""
    ways = [f"{way} {size}" for size in SIZES for way in ("one", "ensemble")]
    head = [
        "task",
        "queries",
        "mean mask",
        "nearest",
        *(f"S={w.split()[1]}{' ens.' if w[0] == 'e' else ''}" for w in ways),
    ]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        lines.append(
            [row["task"], str(row["queries"]), *(f"{row[key]:.1f}" for key in ("mean mask", "nearest", *ways))]
        )
    mean = rows[-1]
    floor = max(mean["mean mask"], mean["nearest"])
    best = SIZES[-1]
    told = ", ".join(
        f"{way} {mean[f'{key} {best}']:.1f} ({mean[f'{key} {best}'] - floor:+.1f})"
        for way, key in (("one pass", "one"), ("ensemble", "ensemble"))
    )
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{text}\n\nMean over tasks at S = {best}: {told}, against the better floor of {floor:.1f}."


def draw(scores: dict[str, list[dict[str, Any]]], path: str) -> None:
    """Draw the mean Dice over tasks, over S and over the size of the ensemble."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = summary(scores)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for way, told in (("one", "one pass, random supports"), ("ensemble", "ensemble, similar supports")):
        left.plot(SIZES, [rows[-1][f"{way} {size}"] for size in SIZES], marker="o", label=told)
    for floor, style in (("mean mask", ":"), ("nearest", "--")):
        left.axhline(rows[-1][floor], color="grey", linestyle=style, label=f"floor: {floor} (of 40)")
    left.set(xscale="log", xticks=SIZES, xticklabels=SIZES, xlabel="supports S", ylabel="Dice (%), mean over tasks")
    left.minorticks_off()
    for size in SIZES:
        grown = [np.mean([one["ensemble"][size] for one in told], axis=0) for told in scores.values()]
        mean = 100 * np.mean(grown, axis=0)
        right.plot(range(1, len(mean) + 1), mean, marker="o", label=f"S = {size}")
    right.set(xlabel="members of the ensemble")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", default=str(SHIPPED))
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--tasks", default="", help="names, with commas between them; all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true", help="half the time, on a CPU that has it")
    parser.add_argument("--json")
    parser.add_argument("--picture")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scores: dict[str, list[dict[str, Any]]] = {}
    for name, told in run(arguments):
        scores.setdefault(name, []).append(told)
    print(table(summary(scores)))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    if arguments.picture:
        draw(scores, arguments.picture)


if __name__ == "__main__":
    main()
