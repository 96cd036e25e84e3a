"""Standardised tasks from data sets: small pictures of one kind with one binary label, as UniverSeg is trained on.

MegaMedical (Butoi et al., "UniverSeg", ICCV 2023, section 4 and appendix B) is made so: 128 x 128 pixels in [0, 1];
of a volume, along each axis, the middle plane and the plane that shows most of the label; CT clipped to [-500, 1000]
HU, MR to percentiles; a task for each label. Differences: the aspect is kept and the rest padded; 8 bits a pixel; only
the training split of a data set is used, where it has one.

A data set is built once. It is built anew when a file of it, its splits or the settings have changed. Subjects are
numbered: no name of a case or a patient is written.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genseg_monai._atomic import whole_file
from genseg_monai.data._task_planes import PlaneSettings, cut_tasks
from genseg_monai.data.cases import data_folder
from genseg_monai.data.layouts import read_layout
from genseg_monai.data.task import Task
from genseg_monai.data.training_cases import training_cases
from genseg_monai.errors import UserError

__all__ = ["PlaneSettings", "TaskRow", "build_tasks", "read_tasks"]

logger = logging.getLogger(__name__)

_VERSION = 1  # of what is built: tasks of another version are built anew
_LISTING = "tasks.csv"
_LISTS = ("splits.json", "dataset.json", "cases.csv")


@dataclass(frozen=True)
class TaskRow:
    """A line of the listing.

    Attributes:
        name: of the task.
        dataset: where it comes from.
        subset: which planes: ``middle`` or ``largest``; empty for pictures.
        modality: as ``CT``, ``MR``, ``picture``.
        axis: ``x``, ``y``, ``z`` in RAS; empty for pictures.
        label: name of the structure.
        entries: pictures.
        subjects: patients.
        file: below the folder of the listing.
    """

    name: str
    dataset: str
    subset: str
    modality: str
    axis: str
    label: str
    entries: int
    subjects: int
    file: str


def build_tasks(
    sources: Iterable[str | Path], out: str | Path, settings: PlaneSettings | None = None, label_dir: str | None = None
) -> list[TaskRow]:
    """Turn data sets into tasks, or find them built.

    Args:
        sources: data sets in any layout `find_cases` reads, ``phantom://2d``, or folders of data sets of which one at
            least has splits.json, dataset.json or cases.csv.
        out: the folder for the tasks; ``tasks.csv`` in it lists those of all data sets built into it.
        settings: of the planes.
        label_dir: name of the folder of masks, where a data set has several.

    Returns:
        The listing of these sources.

    Raises:
        UserError: no data set, two of one name, one that cannot be used, or there is something else at its place.

    Example:
        >>> [row.label for row in build_tasks(["phantom://2d?cases=6&size=32"], tempfile.mkdtemp())]
        ['foreground']
    """
    settings, out = settings or PlaneSettings(), Path(out)
    roots = [root for source in sources for root in _data_sets(source, label_dir)]
    names = [root.name for root in roots]
    if (out / _LISTING).exists():
        _listed(out / _LISTING)  # else the file is another's
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(out, f"wanted data sets of different names, got {twice!r} twice; rename a folder")
    built = [row for root in roots for row in _built(root, out, settings, label_dir)]
    every = [row for part in sorted(out.glob(f"*/{_LISTING}")) for row in _listed(part)]
    _list(out / _LISTING, every)
    return built


def read_tasks(folder: str | Path) -> list[Task]:
    """Read the tasks of a folder.

    Args:
        folder: what `build_tasks` wrote.

    Raises:
        UserError: there are none, or a file is damaged.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> _ = build_tasks(["phantom://2d?cases=6&size=32"], folder)
        >>> [task] = read_tasks(folder)
        >>> task.images.shape, task.modality
        (torch.Size([4, 1, 128, 128]), 'picture')
    """
    folder = Path(folder)
    if not (folder / _LISTING).is_file():
        raise UserError(folder, f"wanted a folder of tasks, it has no {_LISTING}; make one with `genseg tasks`")
    tasks = []
    for row in _listed(folder / _LISTING):
        path = folder / row.file
        try:
            with np.load(path, allow_pickle=False) as held:
                images, labels, groups = held["images"], held["labels"], held["groups"]
        except Exception as error:  # a damaged file fails in many ways
            raise UserError(
                path, f"wanted a task, cannot read it ({error}); remove the folder and build again"
            ) from error
        names = (row.name, row.dataset, row.subset, row.modality, row.axis, row.label)
        pictures = torch.from_numpy(images).float().div(255)[:, None]
        tasks.append(Task(*names, pictures, torch.from_numpy(labels).float()[:, None], tuple(map(str, groups))))
    if not tasks:
        raise UserError(folder, "wanted tasks, the listing is empty; build some with `genseg tasks`")
    return tasks


def _data_sets(source: str | Path, label_dir: str | None) -> list[Path]:
    """Return the data sets at a place: itself, or the folders in it that are one and say so by a list of their own."""
    root = data_folder(source)
    below = sorted(folder for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
    if not any((root / name).is_file() for name in _LISTS):
        found = [folder for folder in below if _is_data_set(folder, label_dir)]
        if any((folder / name).is_file() for folder in found for name in _LISTS):
            return found
    read_layout(root, label_dir)
    return [root]


def _is_data_set(folder: Path, label_dir: str | None) -> bool:
    if not folder.is_dir():
        return False
    try:
        return bool(read_layout(folder, label_dir).cases)
    except UserError:
        return False


def _built(root: Path, out: Path, settings: PlaneSettings, label_dir: str | None) -> list[TaskRow]:
    """Return the listing of one data set, building it if it is not there or has changed."""
    cases = training_cases(root, label_dir)
    key, place = _key(root, cases, settings), out / root.name
    marker = place / "key"
    if marker.is_file() and marker.read_text(encoding="utf-8") == key and (place / _LISTING).is_file():
        return _listed(place / _LISTING)
    if os.path.lexists(place) and not (marker.is_file() and (place / _LISTING).is_file()):
        raise UserError(place, "wanted a place for tasks, something else is there; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft_", dir=out))
    try:
        rows = [
            _write(task, draft, root.name, number) for number, task in enumerate(cut_tasks(cases, root.name, settings))
        ]
        if not rows:
            raise UserError(root, "wanted labels that two cases or more share, found none; add cases")
        _list(draft / _LISTING, rows)
        (draft / "key").write_text(key, encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    logger.info("%s: %d tasks of %d cases", root.name, len(rows), len(cases))
    return rows


def _write(task: Task, draft: Path, dataset: str, number: int) -> TaskRow:
    """Write one task: `images` and `labels` N H W of uint8, `groups`."""
    file = f"{number:04d}.npz"
    images = task.images[:, 0].mul(255).round().to(torch.uint8).numpy()
    labels = task.labels[:, 0].to(torch.uint8).numpy()
    np.savez_compressed(draft / file, images=images, labels=labels, groups=np.array(task.groups))
    return TaskRow(task.name, *task.path, len(task), len(task.subjects), f"{dataset}/{file}")


def _key(root: Path, cases: Sequence[Mapping[str, Any]], settings: PlaneSettings) -> str:
    """Return what changes when the tasks would: the files by name, size and time, and the settings."""
    digest = hashlib.sha256(repr((_VERSION, settings)).encode())
    for case in cases:
        image = case["image"] if isinstance(case["image"], list) else [case["image"]]
        label = case["label"] if isinstance(case["label"], list) else [case["label"]]
        for path in map(Path, (*image, *label)):
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            seen = [(os.path.relpath(file, root), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
            digest.update(repr((seen, case["group"])).encode())
    return digest.hexdigest()


def _list(path: Path, rows: Sequence[TaskRow]) -> None:
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(TaskRow)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(row) for row in rows)


def _listed(path: Path) -> list[TaskRow]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [TaskRow(**(row | {name: int(row[name]) for name in ("entries", "subjects")})) for row in rows]  # type: ignore[arg-type]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(
            path, f"wanted the listing of tasks, cannot read it ({error}); remove it and build again"
        ) from error
