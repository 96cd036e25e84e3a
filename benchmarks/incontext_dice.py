"""Dice of segmenting by examples on real tasks that no training has seen, against two floors that use no network.

    python benchmarks/incontext_dice.py --data DATA [--weights FILE] [--minutes 8] [--json FILE] [--picture FILE]

DATA holds the data sets wbc1, jsrt, isic2017, kvasir, fuseg and hippocampus_3d. Supports are those of the training
split (40; 39 of fuseg and 30 of hippocampus), queries are drawn from the test split (fixed seed), at 128 x 128 pixels,
where the Dice is taken too; hippocampus is the axial slice of each volume that shows most of it. Pictures without the
object are left out, as in the training.

For each S: `one pass` is one random draw of S supports; `ensemble` is what `genseg incontext` does: draws of S from the
2 S most similar supports, averaged, each but the first flipped, turned and scaled together with the query. Both with
the logits calibrated on the supports (`fit_offsets`), and `raw` without, at the largest S.
Floors: `mean mask`: where more than half of the supports have the object; `nearest`: the mask of the support most
similar to the query. Queries are taken in turn over the tasks until `--queries` a task or `--minutes` are reached; the
ensemble is made for the first `--ensembled` of each task.
"""

from __future__ import annotations

import argparse
import hashlib
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

from genseg_monai._atomic import whole_file
from genseg_monai.data.cases import find_cases
from genseg_monai.data.splits import read_splits
from genseg_monai.inferers.in_context import InContextSettings, each_member, mean_of
from genseg_monai.inferers.support_cases import read_supports, support_plan
from genseg_monai.inferers.support_set import SupportSet
from genseg_monai.inferers.thresholds import fit_offsets
from genseg_monai.networks.universeg_weights import load_universeg

SIZES = (1, 4, 16, 40)
FLOORS = ("mean mask", "nearest")
SHIPPED = Path(__file__).resolve().parents[1] / "bundle" / "models" / "universeg" / "model.pt"
Scores = dict[str, list[dict[str, Any]]]


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
    return _planes(splits.train, plan, SIZES[-1]), _planes([splits.test[i] for i in order], plan, queries)


def _planes(cases: list[dict[str, Any]], plan: Any, most: int) -> SupportSet:
    """Read cases until so many show the object; of a volume the plane that shows most."""
    found: list[tuple[Tensor, Tensor]] = []
    for case in cases:
        if len(found) == most:
            break
        planes = read_supports([case], plan, axis=2).planes
        best = int((planes.labels > 0).flatten(1).sum(1).argmax())
        if bool((planes.labels[best] > 0).any()):
            found.append((planes.images[best], planes.labels[best]))
    images, labels = zip(*found, strict=True)
    return SupportSet(torch.stack(images), torch.stack(labels), plan.classes)


def dice(probability: Tensor, truth: Tensor) -> float:
    """Return the Dice of two masks of which the second is not empty."""
    mask = probability > 0.5
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def score(
    network: Any, query: Tensor, truth: Tensor, supports: SupportSet, offsets: Tensor, members: int, seed: int
) -> dict[str, Any]:
    """Score one query: the floors, `one` pass for each S, the `ensemble` of 1, 2, ... members for each S."""
    nearest = int(supports.distances(query[None])[0].argmin())
    told: dict[str, Any] = {"mean mask": dice((supports.labels > 0).float().mean(0), truth), "one": {}, "ensemble": {}}
    told["nearest"] = dice((supports.labels[nearest] > 0).float(), truth)

    def grown(size: int, count: int, choice: str) -> list[Tensor]:
        settings = InContextSettings(support_size=size, ensemble=count, choice=choice, pairs_at_once=1, seed=seed)
        total, seen, found = torch.zeros_like(truth).float(), torch.zeros_like(truth).float(), []
        for objects, inside in each_member(network, query, supports, settings, offsets=offsets):
            total, seen = total + objects.sum(0), seen + inside.sum(0)
            found.append(mean_of(total, seen)[1:])
        return found

    for size in SIZES:
        [single] = grown(size, 1, "random")
        told["one"][size] = dice(single, truth)
        if members:
            told["ensemble"][size] = [dice(found, truth) for found in grown(size, members, "similar")]
    # without the offset b: the logit l = logit(p) - b is above 0 where p > sigmoid(b)
    told["raw"] = dice(single - offsets.sigmoid() + 0.5, truth)
    return told


def run(arguments: argparse.Namespace, held: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the scores of each query that `held` has not got yet, tasks taken in turn."""
    start, root = time.monotonic(), Path(arguments.data)
    network = load_universeg(arguments.weights).eval()
    chosen = arguments.tasks.split(",") if arguments.tasks else list(TASKS)
    read = {name: read_task(root, TASKS[name], arguments.queries, arguments.seed) for name in chosen}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if arguments.bfloat16 else nullcontext():
        for name, (supports, _) in read.items():
            if name not in held["offsets"]:
                held["offsets"][name] = fit_offsets(network, supports, support_size=16).tolist()
        print("offsets", held["offsets"], file=sys.stderr)
        begun, first = time.monotonic(), min(len(held["scores"].get(name, [])) for name in read)
        for i in range(first, arguments.queries):
            for name, (supports, queries) in read.items():
                if len(held["scores"].get(name, [])) <= i < len(queries):
                    members = arguments.members if i < arguments.ensembled else 0
                    truth = queries.labels[i] > 0
                    yield (
                        name,
                        score(
                            network, queries.images[i], truth, supports, torch.tensor(held["offsets"][name]), members, i
                        ),
                    )
            now = time.monotonic()
            print(f"{i + 1} of {arguments.queries} queries a task, {(now - start) / 60:.1f} min", file=sys.stderr)
            if arguments.minutes and now + (now - begun) / (i + 1 - first) > start + 60 * arguments.minutes:
                return


def summary(scores: Scores) -> list[dict[str, Any]]:
    """Return one row a task and their mean, in percent: floors, one pass for each S, the gain of the ensemble."""
    rows = []
    for name, told in scores.items():
        row: dict[str, Any] = {"task": name, "queries": len(told)}
        row |= {key: 100 * np.mean([one[key] for one in told]) for key in (*FLOORS, "raw")}
        both = [one for one in told if one["ensemble"]]
        row["ensembled"] = len(both)
        for size in SIZES:
            row[f"one {size}"] = 100 * np.mean([one["one"][str(size)] for one in told])
            if both:
                row[f"gain {size}"] = 100 * np.mean(
                    [one["ensemble"][str(size)][-1] - one["one"][str(size)] for one in both]
                )
        rows.append(row)
    keys = [key for key in rows[0] if key not in ("task", "queries", "ensembled")]
    mean = {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}
    totals = {key: sum(row[key] for row in rows) for key in ("queries", "ensembled")}
    return [*rows, {"task": "mean", **totals, **mean}]


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the rows out as a Markdown table, and say how far above the better floor the mean is."""
    columns = {"task": "task", "queries": "queries", **{floor: floor for floor in FLOORS}}
    columns |= {f"one {size}": f"S = {size}" for size in SIZES} | {"raw": "S = 40, raw"}
    columns |= {"ensembled": "of these ensembled"} | {f"gain {size}": f"ens. S = {size}" for size in SIZES}
    lines = [list(columns.values()), ["---"] * len(columns)]
    for row in rows:
        cells = [row.get(key, "") for key in columns]
        signed = [f"{c:+.1f}" if k.startswith("gain") and c != "" else f"{c:.1f}" if isinstance(c, float) else str(c)
                  for k, c in zip(columns, cells, strict=True)]  # fmt: skip
        lines.append(signed)
    mean, best = rows[-1], SIZES[-1]
    floor = max(mean[name] for name in FLOORS)
    told = f"one pass {mean[f'one {best}']:.1f} ({mean[f'one {best}'] - floor:+.1f})"
    if mean["ensembled"]:
        ensemble = mean[f"one {best}"] + mean[f"gain {best}"]
        told += f", with the gain of the ensemble {ensemble:.1f} ({ensemble - floor:+.1f})"
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{text}\n\nMean over tasks at S = {best}: {told}, against the better floor of {floor:.1f}."


def draw(scores: Scores, path: str) -> None:
    """Draw the mean Dice over tasks, over S and over the size of the ensemble."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    mean = summary(scores)[-1]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    one = [mean[f"one {size}"] for size in SIZES]
    left.plot(SIZES, one, marker="o", label="one pass, random supports")
    if mean["ensembled"]:
        more = [value + mean[f"gain {size}"] for value, size in zip(one, SIZES, strict=True)]
        left.plot(SIZES, more, marker="o", label="ensemble, similar supports")
    for floor, style in zip(FLOORS, (":", "--"), strict=True):
        left.axhline(mean[floor], color="grey", linestyle=style, label=f"floor: {floor} (of 40)")
    left.set(xscale="log", xticks=SIZES, xticklabels=SIZES, xlabel="supports S", ylabel="Dice (%), mean over tasks")
    left.minorticks_off()
    for size in SIZES if mean["ensembled"] else ():
        parts = [[one["ensemble"][str(size)] for one in told if one["ensemble"]] for told in scores.values()]
        curve = 100 * np.mean([np.mean(part, axis=0) for part in parts if part], axis=0)
        right.plot(range(1, len(curve) + 1), curve, marker="o", label=f"S = {size}")
    right.set(xlabel="members of the ensemble (on the queries that have one)")
    right.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", default=str(SHIPPED))
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--ensembled", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--tasks", default="", help="names, with commas between them; all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true", help="half the time, on a CPU that has it")
    parser.add_argument("--json", help="the scores; where it has some of these weights already, the run goes on there")
    parser.add_argument("--picture")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digest = hashlib.sha256(Path(arguments.weights).read_bytes()).hexdigest()
    file = Path(arguments.json) if arguments.json else None
    held = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    if held.get("weights") != digest:
        held = {"weights": digest, "offsets": {}, "scores": {}}
    for name, told in run(arguments, held):
        # through JSON, so that what is read again is what was written
        held["scores"].setdefault(name, []).append(json.loads(json.dumps(told)))
        if file:
            with whole_file(file) as temporary:
                temporary.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    print(table(summary(held["scores"])))
    if arguments.picture:
        draw(held["scores"], arguments.picture)


if __name__ == "__main__":
    main()
