"""The sections that only the report on a study has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genseg_monai.apps.reporting import record_parts
from genseg_monai.apps.reporting.charts import size_chart
from genseg_monai.apps.reporting.compare import Comparison, judge
from genseg_monai.apps.reporting.page import Chart, Code, Figures, Table, Text
from genseg_monai.apps.reporting.run_report import time_text
from genseg_monai.apps.reporting.sources import Run, arm_style, arm_title, read_json, read_rows
from genseg_monai.apps.reporting.svg import Axis, Series, legend, line_chart
from genseg_monai.apps.studies.cells import OWN_SEGMENTER, Arm
from genseg_monai.engines.schedule import Phase

__all__ = [
    "SYNTHETIC",
    "Key",
    "beside_the_verdict",
    "sample_efficiency",
    "seeds_apart",
    "study_cost",
    "study_curves",
    "study_repeat",
]

Key = tuple[str, str, int]
"""Data set, segmenter, training cases."""
SYNTHETIC = ("paper", "scenes", "styles", "no_search", "separate", "wgan")
"""The arms with synthetic pairs, beside GenSeg's own."""
_DRAWING = (Phase.WARM_UP, Phase.FINE_TUNE)
_PLATEAU = 0.02  # of validation Dice: what moved less in the last quarter has settled


def beside_the_verdict(first: Comparison, others: Sequence[Comparison], ours: str) -> list[Any]:
    """Return what the verdict leaves out: the best of the other arms with synthetic pairs, and further data sets.

    Args:
        first: what the verdict is about.
        others: the further comparisons.
        ours: the arm that is judged.
    """
    told = []
    rivals = [one for one in first.arms if one.arm in SYNTHETIC and one.arm != ours and one.test is not None]
    if rivals:
        best = max(rivals, key=lambda one: one.intervals["dice"].mean)
        told.append(f"The best of the other arms with synthetic pairs: {judge(first, best.arm).sentence}")
    told += [f"On {one.name}: {judge(one, ours).sentence}" for one in others]
    return [Text(sentence) for sentence in told]


def seeds_apart(comparison: Comparison, summary: Mapping[str, Any], key: Key) -> list[Any]:
    """Return the Dice of every training by itself, and how often a mask was empty.

    Args:
        comparison: of the arms.
        summary: of the study.
        key: of the comparison.
    """
    seeds = sorted({seed for one in comparison.arms for seed in one.by_seed}, key=int)
    places = {(one["arm"], *(one[name] for name in ("data", "segmenter", "size"))): one for one in summary["results"]}
    rows = []
    for one in comparison.arms:
        segmenter = OWN_SEGMENTER.get(Arm(one.arm), key[1])
        empty = places[one.arm, key[0], segmenter, key[2]]["empty"]
        dice = [f"{one.by_seed[seed]:.3f}" if seed in one.by_seed else "-" for seed in seeds]
        rows.append([arm_title(one.arm), *dice, *(str(empty[kind]) for kind in ("prediction", "truth", "both"))])
    head = ["arm", *(f"Dice, seed {seed}" for seed in seeds), "mask empty", "truth empty", "both empty"]
    about = (
        "Each training by itself, and how many masks of a class were empty where the truth was not, or the other way."
    )
    return [Table(head, rows, about)]


def sample_efficiency(found: Mapping[Key, Comparison], summary: Mapping[str, Any]) -> list[Any]:
    """Return the curves over the number of training cases, and what they save."""
    charts = []
    for data, segmenter in dict.fromkeys(key[:2] for key in found):
        mine = sorted((one for key, one in found.items() if key[:2] == (data, segmenter)), key=lambda one: one.size)
        if len(mine) < 2:
            continue
        series = []
        for arm in dict.fromkeys(one.arm for compared in mine for one in compared.arms):
            points = [(c.size, a.intervals["dice"]) for c in mine if (a := c.arm(arm)) is not None]
            x, dice = zip(*points, strict=True)
            mean, low, high = ([getattr(d, end) for d in dice] for end in ("mean", "low", "high"))
            banded = arm in ("genseg", mine[0].reference)  # bands of many arms hide each other
            ends = (low, high) if banded else ((), ())
            series.append(Series(arm_title(arm), x, mean, ends[0], ends[1], style=arm_style(arm)))
        about = (
            f"Mean Dice on {data} ({segmenter}) against the number of training cases; the bands are 95 % intervals of "
            f"GenSeg and of {arm_title(mine[0].reference).lower()}."
        )
        charts.append(Chart(size_chart(series, "Dice"), about, legend([(s.name, s.style) for s in series])))
    if not charts:
        return []
    rows = []
    for need in summary.get("cases_needed", ()):
        if need["arm"] == need["reference"]:
            continue
        told = {"never": "not reached", "smallest": f"{need['cases'] or 0:.0f} or fewer"}
        count = told.get(need["reached"]) or f"{need['cases']:.0f}"
        more = " or more" if need["reached"] == "smallest" else ""
        times = "" if need["times_fewer"] is None else f"{need['times_fewer']:.1f}{more}"
        goal = f"{arm_title(need['reference'])} with {need['at']} ({need['target']:.3f})"
        rows.append([f"{need['data']}, {arm_title(need['arm'])}", goal, count, times])
    table = Table(["arm", "Dice to reach", "training cases needed", "times fewer"], rows)
    return [Figures(charts), *([table] if rows else [])]


def study_curves(folder: Path, summary: Mapping[str, Any], key: Key) -> list[Any]:
    """Return the validation Dice of every training of the comparison over the updates of its segmenter."""
    series, names = [], []
    late: dict[str, list[float]] = {}
    for cell in summary["cells"]:
        if cell["purpose"] != "score" or int(cell["size"]) != key[2]:
            continue
        rows = read_rows(folder / cell["folder"] / "logs" / "history.csv")
        points = _over_updates(rows)
        if cell.get("late_gain") is not None:
            late.setdefault(cell["arm"], []).append(cell["late_gain"])
        if points:
            x, y = zip(*points, strict=True)
            style = arm_style(cell["arm"])
            series.append(Series(cell["id"], x, y, style=style, markers=False))
            if (arm_title(cell["arm"]), style) not in names:
                names.append((arm_title(cell["arm"]), style))
    if not series:
        return []
    about = "Validation Dice over the updates of the segmenter, one line a training"
    chart = line_chart(series, about, Axis("updates", 0), Axis("validation Dice"), width=640, height=300)
    blocks: list[Any] = [Figures([Chart(chart, f"{about}.", legend(names, markers=False))])]
    moved = {arm: gains for arm, gains in late.items() if max(map(abs, gains)) > _PLATEAU}
    if late:
        told = "; ".join(
            f"{arm_title(arm)} {', '.join(f'{gain:+.3f}' for gain in gains)}" for arm, gains in moved.items()
        )
        settled = f"no training moved by more than {_PLATEAU}" if not moved else f"not settled: {told}"
        blocks.append(
            Text(f"Validation Dice of the last quarter of a training less that of the quarter before: {settled}.")
        )
    return blocks


def _over_updates(rows: Sequence[Mapping[str, str]]) -> list[tuple[int, float]]:
    """Return updates of the segmenter so far and validation Dice; the generator's own iterations do not count."""
    points, updates, before = [], 0, 0
    for row in rows:
        now = int(row["iteration"])
        updates += now - before if row["phase"] not in _DRAWING else 0
        before = now
        if row.get("validation"):
            points.append((updates, float(row["validation"])))
    return points


def study_cost(folder: Path, summary: Mapping[str, Any]) -> list[Any]:
    """Return time, memory and energy by arm."""
    spent: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for cell in summary["cells"]:
        if cell["state"] == "done":
            record = folder / cell["folder"] / "run.json"
            told = read_json(record) if record.is_file() else {}
            spent.setdefault(cell["arm"], []).append((float(cell.get("seconds", 0)), told))
    rows = []
    for arm, cells in sorted(spent.items(), key=lambda item: arm_style(item[0])):
        total = sum(seconds for seconds, _ in cells)
        columns = [arm_title(arm), str(len(cells)), time_text(total / len(cells)), time_text(total)]
        for name in ("peak_memory_gib", "peak_gpu_memory_gib"):
            peak = [held[name] for _, held in cells if held.get(name) is not None]
            columns.append(f"{max(peak):.2f}" if peak else "-")
        rows.append(columns)
    records = [held for cells in spent.values() for _, held in cells if held]
    known = [held["energy_wh"] for held in records if held.get("energy_wh") is not None]
    energy = record_parts.energy_told(sum(known) if known and len(known) == len(records) else None)
    everything = sum(seconds for cells in spent.values() for seconds, _ in cells)
    devices = sorted({str(cell["device"]) for cell in summary["cells"] if cell.get("device")})
    told_all = (
        f"{time_text(everything)} in all on {', '.join(devices) or 'an unknown device'}, runs that chose learning "
    )
    head = ["arm", "trainings", "time each", "time in all", "peak memory (GiB)", "on the GPU (GiB)"]
    return [Text(f"{told_all}rates included; {energy}."), Table(head, rows)]


def study_repeat(folder: Path, summary: Mapping[str, Any], run: Run | None) -> list[Any]:
    """Return the command, the settings and the versions."""
    held = read_json(folder / "study.json") if (folder / "study.json").is_file() else {}
    settings = summary["settings"]
    blocks: list[Any] = []
    if held.get("command"):
        blocks.append(Code(record_parts.command_of(held)))
    facts = [
        ["arms, seeds", f"{', '.join(settings['arms'])}; {', '.join(map(str, settings['seeds']))}"],
        ["training cases", ", ".join(map(str, settings["sizes"]))],
        ["segmenters", ", ".join(settings["segmenters"])],
        ["updates of the segmenter in every training", str(settings["updates"])],
        ["settings changed for all arms", " ".join(f"--{k} {v}" for k, v in settings["overrides"].items()) or "none"],
    ]
    for name, rate in summary.get("rates", {}).items():
        tried = ", ".join(f"x{factor}: {dice:.3f}" for factor, dice in rate.get("validation_dice", {}).items())
        told = f"{rate.get('learning_rate')} ({'validation Dice ' + tried if tried else 'no other was tried'})"
        facts.append([f"learning rate, {name}", told])
    blocks.append(Table(["what", "value"], facts, numbers=False))
    return [*blocks, *(record_parts.repeat(run, command=False) if run is not None else [])]
