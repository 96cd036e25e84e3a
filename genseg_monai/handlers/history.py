"""Losses and validation Dice over the run: ``logs/history.csv`` an epoch, ``pictures/curves.png`` at the end."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor

from genseg_monai._optional import require
from genseg_monai.engines.schedule import Phase
from genseg_monai.handlers.csv_log import CsvLog
from genseg_monai.handlers.output import entries, read

__all__ = ["History", "plot_history"]

LOSSES = ("loss", "synthetic_loss", "generator_loss", "discriminator_loss", "hypergradient_norm")


class History:
    """Average the losses of every epoch and keep them beside the last validation score.

    Args:
        output_dir: the run's folder.
        evaluator: engine whose ``state.metrics`` is written under ``validation``; ``None`` for none.
    """

    def __init__(self, output_dir: str | Path, evaluator: Any = None) -> None:
        self.root, self.evaluator = Path(output_dir), evaluator
        self.log = CsvLog(self.root / "logs" / "history.csv", ["phase", *LOSSES, "validation"])
        self._values: dict[str, list[float | Tensor]] = defaultdict(list)
        self._learnt = False  # whether GenSeg's own segmenter has learnt in this epoch

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`, after the ValidationHandler."""
        engine.add_event_handler(Events.STARTED, lambda trainer: self.log.cut(after=trainer.state.iteration))
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._row)
        engine.add_event_handler(Events.COMPLETED, self._draw)

    def _note(self, engine: Any) -> None:
        self._learnt |= engine.phase in (Phase.SEARCH, Phase.FINAL_FIT)
        for name, value in entries(engine.state.output).items():
            # where only the generator learns, `loss` is its own once more
            if name in LOSSES and (name != "loss" or engine.phase not in (Phase.WARM_UP, Phase.FINE_TUNE)):
                self._values[name].append(value)

    def _row(self, engine: Any) -> None:
        row: dict[str, object] = {}
        for name, noted in self._values.items():
            row[name] = sum(read(dict(enumerate(noted))).values()) / len(noted)
        self._values.clear()
        # the validated segmenter stands still while the generator or a baseline is trained
        if self.evaluator is not None and self._learnt:
            validation = self.evaluator.state
            if validation.metrics and validation.epoch == engine.state.epoch:
                row["validation"] = float(validation.metrics[validation.key_metric_name])
        self._learnt = False
        self.log.append(engine.state.iteration, {"phase": engine.phase, **row})

    def _draw(self, engine: Any) -> None:
        if rows := self.log.rows():
            plot_history(rows, self.root / "pictures" / "curves.png")


def plot_history(rows: list[dict[str, str]], path: Path) -> None:
    """Draw losses above, validation Dice below, the phases shaded."""
    matplotlib = require("matplotlib", "the training curves")
    matplotlib.use("Agg")
    pyplot = require("matplotlib.pyplot", "the training curves")
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(8, 5.5), sharex=True)
    x = [int(row["iteration"]) for row in rows]

    def draw(axis: Any, name: str, style: str = "-") -> None:
        points = [(i, float(row[name])) for i, row in zip(x, rows, strict=True) if row.get(name)]
        if points:
            axis.plot(*zip(*points, strict=True), style, label=name.replace("_", " "), markersize=3, linewidth=1.3)

    for name in LOSSES[:-1]:
        draw(upper, name)
    upper.set_yscale("log")
    draw(lower, "validation", "o-")
    phases = [row["phase"] for row in rows]
    starts = [0, *(x[i - 1] for i in range(1, len(rows)) if phases[i] != phases[i - 1]), x[-1]]
    for number, (start, end) in enumerate(zip(starts, starts[1:], strict=False)):
        for axis in (upper, lower):
            axis.axvspan(start, end, color="0.93" if number % 2 else "1.0", zorder=0)
        name = phases[next(i for i, value in enumerate(x) if value > start)].replace("_", " ")
        upper.text((start + end) / 2, 1.02, name, transform=upper.get_xaxis_transform(), ha="center", fontsize=8)
    upper.set_ylabel("loss")
    upper.legend(fontsize=8)
    lower.set_ylabel("Dice on validation cases")
    lower.set_ylim(0, 1)
    lower.set_xlabel("iteration")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
