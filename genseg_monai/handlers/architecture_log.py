"""The trajectory of alpha: one CSV row a stage III step, a plot at the end of the search, the genotype found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from genseg_monai._optional import require
from genseg_monai.engines.events import StageEvents
from genseg_monai.engines.schedule import Phase
from genseg_monai.handlers.csv_log import CsvLog
from genseg_monai.handlers.output import scalars

__all__ = ["ArchitectureLog", "plot_architecture"]


class ArchitectureLog:
    """Write ``logs/alpha.csv``, ``pictures/alpha.png`` and ``models/search/genotype.json`` below a folder.

    Columns of the CSV: ``CELL:CANDIDATE`` holds softmax(alpha), the share of that candidate in its cell.

    Args:
        output_dir: the run's folder.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.root = Path(output_dir)
        self.log: CsvLog | None = None
        self._due = False

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(StageEvents.PHASE_STARTED, self._first)
        engine.add_event_handler(StageEvents.OUTER_STEP_COMPLETED, self._moved)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._row)
        engine.add_event_handler(StageEvents.DERIVED, self._derived)

    def _open(self, engine: Any) -> None:
        if hasattr(engine.generator, "arch_weights"):
            self.log = CsvLog(self.root / "logs" / "alpha.csv", [*_shares(engine), "hypergradient_norm"])
            self.log.cut(after=engine.state.iteration)

    def _first(self, engine: Any) -> None:
        if engine.phase is Phase.SEARCH and self.log is not None:
            self.log.cut(after=engine.state.iteration - 1)  # a run resumed right here has written this row before
            self.log.append(engine.state.iteration, _shares(engine))

    def _moved(self, engine: Any) -> None:
        self._due = True

    def _row(self, engine: Any) -> None:
        # the norm is known when the iteration is over
        if self._due and self.log is not None:
            norm = scalars(engine.state.output)["hypergradient_norm"]
            self.log.append(engine.state.iteration, {**_shares(engine), "hypergradient_norm": norm})
        self._due = False

    def _derived(self, engine: Any) -> None:
        engine.genotype.save(self.root / "models" / "search" / "genotype.json")
        if self.log is not None and self.log.rows():
            plot_architecture(self.log.rows(), self.root / "pictures" / "alpha.png")


def _shares(engine: Any) -> dict[str, float]:
    names, shares = engine.generator.candidate_names(), engine.generator.arch_weights()
    return {
        f"{cell}:{name}": float(share) for cell in names for name, share in zip(names[cell], shares[cell], strict=True)
    }


def plot_architecture(rows: list[dict[str, str]], path: Path) -> None:
    """Draw one small plot a cell: the share of every candidate over the iterations."""
    matplotlib = require("matplotlib", "the plot of the architecture's trajectory")
    matplotlib.use("Agg")
    pyplot = require("matplotlib.pyplot", "the plot of the architecture's trajectory")
    cells: dict[str, list[str]] = {}
    for column in rows[0]:
        if ":" in column:
            cells.setdefault(column.split(":")[0], []).append(column)
    across = min(4, len(cells))
    down = -(-len(cells) // across)
    figure, axes = pyplot.subplots(down, across, figsize=(3 * across, 2.3 * down), sharex=True, squeeze=False)
    iterations = [int(row["iteration"]) for row in rows]
    for axis, (cell, columns) in zip(axes.flat, cells.items(), strict=False):
        for column in columns:
            axis.plot(iterations, [float(row[column]) for row in rows], label=column.split(":")[1])
        axis.set_title(cell, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(cells) :]:
        axis.set_visible(False)
    axes.flat[0].legend(fontsize=7)
    figure.supxlabel("iteration", fontsize=9)
    figure.supylabel("share of the candidate, softmax(alpha)", fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
