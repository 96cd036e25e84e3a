"""GenSeg's segmenter and its baselines on the held-out cases, side by side, when the run has ended."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from genseg_monai._atomic import whole_file
from genseg_monai.handlers.case_scores import CaseScores
from genseg_monai.metrics.cases import summarise

__all__ = ["FinalScores", "run_summary"]

logger = logging.getLogger(__name__)

_FIELDS = ("arm", "class", "cases", "dice", "dice_low", "dice_high", "jaccard", "hd95", "unit")
_TITLES = {"genseg": "GenSeg", "plain": "plain segmenter", "augment": "plain + augmentation"}


class FinalScores:
    """Score every trained segmenter on the same cases at their native size.

    Writes ``scores/ARM.csv`` (a row a case and class) and ``scores/comparison.csv`` (a row an arm and class).

    Args:
        evaluator: a MONAI evaluator whose handlers hold ``scores``.
        scores: its `CaseScores`.
        output_dir: the run's folder.
    """

    def __init__(self, evaluator: Any, scores: CaseScores, output_dir: str | Path) -> None:
        self.evaluator, self.scores, self.root = evaluator, scores, Path(output_dir)

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`, after the handlers that write the weights."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Score GenSeg, then each baseline, with the same network and evaluator."""
        network = self.evaluator.network
        arms = {"genseg": {name: value.clone() for name, value in engine.network.state_dict().items()}}
        arms |= {str(phase): weights for phase, weights in engine.players.trained.items()}
        table: list[dict[str, object]] = []
        for arm, weights in arms.items():
            network.load_state_dict(weights)
            self.scores.name = arm
            self.evaluator.run()
            if self.scores.rows:
                table += _rows(arm, summarise(self.scores.rows))
        network.load_state_dict(arms["genseg"])
        if table:
            with (
                whole_file(self.root / "scores" / "comparison.csv") as temporary,
                open(temporary, "w", newline="", encoding="utf-8") as stream,
            ):
                writer = csv.DictWriter(stream, _FIELDS)
                writer.writeheader()
                writer.writerows(table)


def _rows(arm: str, summary: dict[str, Any]) -> list[dict[str, object]]:
    named = {**summary["classes"], "mean": summary["mean"]} if len(summary["classes"]) > 1 else summary["classes"]
    return [
        {
            "arm": arm,
            "class": name,
            "cases": summary["cases"],
            "dice": f"{scores['dice']['mean']:.4f}",
            "dice_low": f"{scores['dice']['low']:.4f}",
            "dice_high": f"{scores['dice']['high']:.4f}",
            "jaccard": f"{scores['jaccard']['mean']:.4f}",
            "hd95": f"{scores['hd95']['mean']:.2f}",
            "unit": summary["unit"],
        }
        for name, scores in named.items()
    ]


def run_summary(output_dir: str | Path) -> str:
    """Return what a finished run wrote and how its segmenters compare, to be read by people."""
    root = Path(output_dir)
    lines = []
    comparison = root / "scores" / "comparison.csv"
    if comparison.exists():
        with comparison.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        lines.append(f"Held-out cases: {rows[0]['cases']}. Dice, with its 95 % bootstrap interval:")
        for row in rows:
            interval = f"[{float(row['dice_low']):.3f}, {float(row['dice_high']):.3f}]"
            distance = f"HD95 {row['hd95']} {row['unit']}"
            title = _TITLES.get(row["arm"], row["arm"])
            lines.append(f"  {title:22} {row['class']:16} {float(row['dice']):.3f} {interval}  {distance}")
    lines.append("Written:")
    for name, what in (
        ("models/model.pt", "the trained segmenter"),
        ("models/generator", "the trained generator"),
        ("models/search/genotype.json", "the architecture found"),
        ("pictures/panel_fine_tune.png", "real image, mask, synthetic image"),
        ("pictures/curves.png", "losses and validation Dice"),
        ("pictures/alpha.png", "how the architecture moved"),
        ("scores/comparison.csv", "GenSeg beside the plain segmenters"),
        ("run.json", "versions, seed, command, times"),
    ):
        if (root / name).exists():
            lines.append(f"  {root / name}  ({what})")
    return "\n".join(lines)
