"""`genseg tasks`: data sets as standardised tasks, to train UniverSeg on."""

from __future__ import annotations

from pathlib import Path

from genseg_monai.errors import UserError

__all__ = ["tasks"]


def tasks(
    data: str,
    *,
    out: str,
    size: int = 128,
    window: str = "-500,1000",
    label_dir: str | None = None,
) -> str:
    """Turn labelled data sets into small pictures of one label each, for a training of UniverSeg on them.

    Writes the tasks and their listing, tasks.csv. A data set is built once, and again when it has changed; run the
    command for each data set, or for a folder of data sets. Only the training split is used, where there is one, and
    no name of a case or patient is written.

    Args:
        data: a data set in any layout `train` reads, or a folder of data sets
        out: the folder for the tasks
        size: pixels on a side
        window: intensities in HU between which CT is cut, as LOWER,UPPER
        label_dir: the folder of masks, where a data set has several

    Returns:
        The tasks of these data sets.

    Raises:
        UserError: no data set, or one that cannot be used.

    Example:
        genseg tasks data_sets --out tasks
        genseg tasks liver_ct --out tasks --window=-160,240
    """
    from genseg_monai.data.task_builder import PlaneSettings, build_tasks

    try:
        lower, upper = (float(bound) for bound in window.split(","))
    except ValueError:
        raise UserError("--window", f"wanted LOWER,UPPER in HU, such as --window=-500,1000, got {window!r}") from None
    if "://" not in data and not Path(data).exists():
        raise UserError(data, "wanted a data set, there is no such file or folder")
    rows = build_tasks([data], out, PlaneSettings(size, (lower, upper)), label_dir)
    lines = [("task", "entries", "subjects"), *((row.name, str(row.entries), str(row.subjects)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*table, f"{len(rows)} tasks in {Path(out) / 'tasks.csv'}"])
