"""A CSV file that grows row by row and, after a resume, forgets what the lost part of the run had written."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["CsvLog"]


class CsvLog:
    """Rows keyed by an increasing ``iteration`` in the first column.

    Args:
        path: of the file; its folder is made when the first row comes.
        columns: of the head line, beside ``iteration``.

    Example:
        >>> import tempfile
        >>> log = CsvLog(Path(tempfile.mkdtemp()) / "loss.csv", ["loss"])
        >>> log.append(1, {"loss": 0.5}); log.append(2, {"loss": 0.25})
        >>> log.cut(after=1)
        >>> log.rows()
        [{'iteration': '1', 'loss': '0.5'}]
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, ["iteration", *columns]

    def append(self, iteration: int, values: Mapping[str, object]) -> None:
        """Write one row; a value that is missing stays empty."""
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self.columns, restval="")
            if new:
                writer.writeheader()
            writer.writerow({"iteration": iteration, **values})

    def rows(self) -> list[dict[str, str]]:
        """Return all rows, none if the file does not exist; a line cut short by a crash is left out."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as stream:
            return [row for row in csv.DictReader(stream) if None not in row.values() and row["iteration"].isdigit()]

    def cut(self, after: int) -> None:
        """Drop the rows beyond iteration ``after``: those of a run that was lost, or of another one before."""
        kept = [row for row in self.rows() if int(row["iteration"]) <= after]
        if not self.path.exists():
            return
        temporary = self.path.with_name(f".{self.path.name}.cut")
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self.columns)
            writer.writeheader()
            writer.writerows({name: row.get(name, "") for name in self.columns} for row in kept)
        os.replace(temporary, self.path)
