"""What the folder of one training holds for a report; every part may be missing."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genseg_monai.errors import UserError

__all__ = ["ARMS", "CaseResult", "Run", "arm_style", "arm_title", "read_case_scores", "read_rows", "read_run"]

ARMS = {
    "genseg": "GenSeg",
    "augment": "Augmentation",
    "plain": "Plain",
    "separate": "Separate generator",
    "no_search": "No search",
    "scenes": "GenSeg, scenes",
    "styles": "GenSeg, styles",
    "paper": "GenSeg as published",
    "incontext": "UniverSeg, in context",
    "nnunet_style": "nnU-Net style",
    "wgan": "WGAN",
    "combine": "Rotate, flip, translate",
    "copy_paste": "Copy-paste",
    "rotate": "Rotate",
    "flip": "Flip",
    "translate": "Translate",
}
"""The arms of a comparison and what they are called; the place in the list is the style of their lines."""

METRICS = ("dice", "jaccard", "hd95", "surface_dice")


@dataclass(frozen=True)
class CaseResult:
    """The scores of one case in one arm, each the mean over the classes.

    Attributes:
        case: name.
        group: patient.
        scores: by metric; those that were not measured are left out.

    Example:
        >>> CaseResult("a", "a", {"dice": 0.9}).scores["dice"]
        0.9
    """

    case: str
    group: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        root: its folder.
        record: ``run.json``.
        arms: scores by arm, those of ``scores/ARM.csv``.
        unit: of distances.
        history: rows of ``logs/history.csv``.
        alpha: rows of ``logs/alpha.csv``.
        genotype: the architecture found, None where none was searched.
        temperature: ``models/calibration/temperature.json``, or None.
        config_hash: first 16 hexadecimal digits of the SHA-256 of ``configs/train.yaml``.
        own: the arm that it trained.
    """

    root: Path
    record: dict[str, Any]
    arms: dict[str, list[CaseResult]] = field(default_factory=dict)
    unit: str = "pixel"
    history: list[dict[str, str]] = field(default_factory=list)
    alpha: list[dict[str, str]] = field(default_factory=list)
    genotype: dict[str, Any] | None = None
    temperature: dict[str, Any] | None = None
    config_hash: str = ""
    own: str = "genseg"

    @property
    def has_generator(self) -> bool:
        """Whether a generator was left."""
        return (self.root / "models" / "generator" / "generator.pt").is_file()


def arm_title(arm: str) -> str:
    """Return what an arm is called.

    Example:
        >>> arm_title("no_search"), arm_title("other_arm")
        ('No search', 'other arm')
    """
    return ARMS.get(arm, arm.replace("_", " "))


def arm_style(arm: str) -> int:
    """Return the number of an arm's colour, dash and marker: always the same for one arm."""
    known = list(ARMS)
    return known.index(arm) if arm in known else len(known)


def read_run(root: str | Path) -> Run:
    """Read what a training left.

    Args:
        root: its output folder.

    Raises:
        UserError: it is none, or a file in it cannot be read.
    """
    root = Path(root)
    if not (root / "run.json").is_file():
        raise UserError(root, "wanted the output folder of a training or a study, it has no run.json")
    arms, unit = {}, "pixel"
    for path in sorted((root / "scores").glob("*.csv")):
        rows = read_rows(path)
        if path.stem != "comparison" and rows and "case" in rows[0]:
            arms[path.stem] = read_case_scores(rows)
            unit = rows[0].get("unit") or unit
    order = list(ARMS)
    arms = {arm: arms[arm] for arm in sorted(arms, key=lambda arm: (order.index(arm) if arm in order else 99, arm))}
    config = root / "configs" / "train.yaml"
    temperature = root / "models" / "calibration" / "temperature.json"
    genotype = root / "models" / "search" / "genotype.json"
    return Run(
        root,
        read_json(root / "run.json"),
        arms,
        unit,
        read_rows(root / "logs" / "history.csv"),
        read_rows(root / "logs" / "alpha.csv"),
        read_json(genotype) if genotype.is_file() else None,
        read_json(temperature) if temperature.is_file() else None,
        hashlib.sha256(config.read_bytes()).hexdigest()[:16] if config.is_file() else "",
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, none where there is no file; a row cut short by a crash is left out."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if None not in row.values() and None not in row]


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds.

    Raises:
        UserError: it holds something else.
    """
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(path, f"wanted a JSON file, cannot read it ({error})") from error
    return held


def read_case_scores(rows: list[dict[str, str]]) -> list[CaseResult]:
    """Return the mean over the classes of each case.

    Args:
        rows: one a case and class, with ``case``, ``group`` and the metrics.
    """
    held: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        held.setdefault((row["case"], row.get("group") or row["case"]), []).append(row)
    return [CaseResult(case, group, _means(mine)) for (case, group), mine in held.items()]


def _means(rows: list[dict[str, str]]) -> dict[str, float]:
    found = {}
    for metric in METRICS:
        values = [float(row[metric]) for row in rows if row.get(metric)]
        if values and not any(math.isnan(value) for value in values):
            found[metric] = sum(values) / len(values)
    return found
