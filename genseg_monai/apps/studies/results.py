"""The results of a study, for people and for `genseg report`.

What the folder OUT of a study holds; every file is whole or not there, and all but the cells is written anew each time.

``study.json``
    The settings: ``data``, ``test``, ``arms``, ``seeds``, ``sizes``, ``segmenters``, ``preset``, ``rates`` (factors),
    ``updates`` (of the segmenter, the same in every cell), ``epoch``, ``overrides``, ``rate_size``; beside them
    ``budget``, ``costs`` (``"ARM SEGMENTER"`` -> seconds an update; ``start``), ``created``, ``command``.
``ledger.jsonl``
    One JSON object a line: ``cell`` (its id), ``state`` (``started``, ``stopped``, ``done``, ``failed``), ``time``
    (Unix), ``device``, ``host``, ``process``; with ``done`` also ``seconds``, ``learning_rate``, ``factor``, ``dice``
    (by data set); with ``failed`` ``reason``. The last line of a cell counts.
``scores.csv``
    A row for each case, class and finished cell: ``data``, ``arm``, ``segmenter``, ``size``, ``seed``, ``case``,
    ``group``, ``class_name``, ``dice``, ``jaccard``, ``hd95``, ``surface_dice``, ``unit``, ``empty``. Scores are taken
    at the native size of a case; validation cases are not among them.
``summary.csv``
    A row for each entry of ``results`` below.
``summary.json``
    ``settings``; ``cells`` (each cell: ``id``, ``arm``, ``seed``, ``size``, ``segmenter``, ``purpose``, ``updates``,
    ``state``, ``folder``, and what the ledger says, also ``late_gain``: validation Dice of the last quarter of the run
    minus that of the quarter before, near 0 at the plateau); ``rates`` (``"ARM SEGMENTER"`` -> ``validation_dice`` by
    factor, the factor ``chosen``, ``learning_rate``); ``results`` and ``cases_needed``, see `summarise_study`.
``cells/ID/``
    One bundle run each, as `genseg train` leaves it: ``configs/``, ``models/model.pt`` (the last weights),
    ``models/generator/`` (arms that train one), ``models/search/genotype.json``, ``models/pairs/`` (arm ``wgan``),
    ``logs/history.csv`` (losses and validation Dice), ``logs/alpha.csv``, ``logs/train.log``, ``logs/cell.log``,
    ``pictures/panel_*.png``, ``run.json``; and of the study ``cell.json`` (the overrides that make the arm),
    ``splits.json`` (the cases by name), ``scores/NAME.csv`` and ``scores/NAME_summary.json`` for ``val`` and each data
    set. Cells that chose a learning rate end in ``_xFACTOR``. The arm ``incontext`` has ``scores/`` and ``cell.json``.
``locks/``, ``logs/``
    Of the processes at work.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genseg_monai._atomic import whole_file
from genseg_monai.apps.studies.cells import Cell, Purpose
from genseg_monai.apps.studies.ledger import Ledger, State
from genseg_monai.apps.studies.run_cell import cell_folder
from genseg_monai.apps.studies.settings import StudySettings
from genseg_monai.apps.studies.summary import COLUMNS, Row, summarise_study

__all__ = ["read_rows", "results_table", "write_results"]


def write_results(study: Path, settings: StudySettings) -> dict[str, Any]:
    """Write ``scores.csv``, ``summary.csv`` and ``summary.json`` of what is done so far.

    Args:
        study: its folder.
        settings: of the study.

    Returns:
        The content of ``summary.json``.
    """
    ledger = Ledger(study)
    with ledger.locked("results"):  # from reading on: the last to write has seen most
        return _write(study, settings, ledger.latest())


def _write(study: Path, settings: StudySettings, latest: dict[str, dict[str, Any]]) -> dict[str, Any]:
    cells = settings.cells()
    done = [cell for cell in cells if latest.get(cell.id, {}).get("state") == State.DONE]
    rows = list(read_rows(study, [cell for cell in done if cell.purpose is Purpose.SCORE]))
    summary: dict[str, Any] = {"settings": json.loads(json.dumps(asdict(settings)))}
    summary["cells"] = [_told(study, cell, latest.get(cell.id, {})) for cell in cells]
    summary["rates"] = _rates(settings, cells, latest)
    summary |= summarise_study(rows, settings.segmenters[0])
    _write_csv(study / "scores.csv", COLUMNS, [asdict(row) for row in rows])
    flat = [_flat(result) for result in summary["results"]]
    _write_csv(study / "summary.csv", list(flat[0]) if flat else ["data"], flat)
    with whole_file(study / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def read_rows(study: Path, cells: Sequence[Cell]) -> Iterator[Row]:
    """Yield the scores of finished cells, a row a case and class; validation cases are left out."""
    for cell in cells:
        for path in sorted((cell_folder(study, cell) / "scores").glob("*.csv")):
            if path.stem == "val":
                continue
            with path.open(newline="", encoding="utf-8") as stream:
                for row in csv.DictReader(stream):
                    yield Row(
                        path.stem, str(cell.arm), cell.segmenter, cell.size, cell.seed,
                        row["case"], row["group"], row["class_name"],
                        float(row["dice"]), float(row["jaccard"]), float(row["hd95"]), float(row["surface_dice"]),
                        row["unit"], row["empty"],
                    )  # fmt: skip


def results_table(summary: dict[str, Any]) -> str:
    """Lay out the results for reading.

    Args:
        summary: of `write_results`.
    """
    head = [
        "data",
        "trained on",
        "segmenter",
        "arm",
        "Dice [95 %]",
        "HD95",
        "surface Dice",
        "- augment [95 %]",
        "p (Holm)",
    ]
    lines = [head]
    for one in summary["results"]:
        against = one["versus_augment"]
        lines.append(
            [
                one["data"],
                str(one["size"]),
                one["segmenter"],
                one["arm"],
                _interval(one["dice"]),
                f"{one['hd95']['mean']:.1f} {one['unit']}",
                f"{one['surface_dice']['mean']:.3f}",
                _interval(against["difference"], sign="+") if against else "",
                f"{against['p_holm']:.3g}" if against else "",
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    for need in summary["cases_needed"]:
        if need["times_fewer"] is not None and need["arm"] != need["reference"]:
            most = "at most " if need["reached"] == "smallest" else ""
            told.append(
                f"{need['data']}, {need['segmenter']}: {need['arm']} reaches the Dice of {need['reference']} with "
                f"{need['at']} cases ({need['target']:.3f}) with {most}{need['cases']:.1f}"
            )
    return "\n".join(told) if len(lines) > 1 else "no cell is done yet"


def _interval(value: dict[str, float], sign: str = "") -> str:
    return f"{value['mean']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"


def _told(study: Path, cell: Cell, record: dict[str, Any]) -> dict[str, Any]:
    folder = cell_folder(study, cell)
    facts = {"id": cell.id, **asdict(cell), "state": "to do", "folder": str(folder.relative_to(study))}
    facts |= {name: value for name, value in record.items() if name != "cell"}
    return facts | {"late_gain": _late_gain(folder / "logs" / "history.csv")}


def _late_gain(history: Path) -> float | None:
    """Return how much the validation Dice still rose in the last quarter of the segmenter's run."""
    if not history.is_file():
        return None
    with history.open(newline="", encoding="utf-8") as stream:
        scores = [
            float(row["validation"])
            for row in csv.DictReader(stream)
            if row.get("validation") and row["phase"] in ("search", "final_fit")
        ]
    quarter = len(scores) // 4
    if quarter == 0:
        return None
    before, after = scores[-2 * quarter : -quarter], scores[-quarter:]
    return round(sum(after) / quarter - sum(before) / quarter, 4)


def _rates(settings: StudySettings, cells: Sequence[Cell], latest: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for cell in cells:
        record = latest.get(cell.id, {})
        if record.get("state") != State.DONE or not cell.updates:
            continue
        entry = found.setdefault(f"{cell.arm} {cell.segmenter}", {"validation_dice": {}, "chosen": None})
        if cell.purpose is Purpose.RATE:
            entry["validation_dice"][f"{cell.factor:g}"] = record["dice"]["val"]
        else:
            entry |= {"chosen": record["factor"], "learning_rate": record["learning_rate"]}
    return found


def _flat(result: dict[str, Any]) -> dict[str, Any]:
    """Return one level of names: ``dice``, ``dice_low``, ..."""
    flat: dict[str, Any] = {}
    for name, value in result.items():
        if name in ("classes", "seeds", "dice_by_seed"):
            continue
        if isinstance(value, dict) and "mean" in value:
            flat |= {name: _number(value["mean"])} | {f"{name}_{end}": _number(value[end]) for end in ("low", "high")}
        elif name == "empty":
            flat |= {f"empty_{kind}": count for kind, count in value.items()}
        elif name == "versus_augment":
            against = value or {}
            apart = against.get("difference") or {}
            flat |= {f"against_augment{end}": _number(apart.get(key)) for end, key in
                     (("", "mean"), ("_low", "low"), ("_high", "high"))}  # fmt: skip
            flat |= {key: _number(against.get(key)) for key in ("p", "p_holm", "wins", "losses", "ties")}
        else:
            flat[name] = value
    return flat | {"seeds": len(result["seeds"])}


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.6g}"


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
