"""SEG and RTSTRUCT objects to one label map on the grid of an image series, with a report of what did not fit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.fields import Fields
from genseg_monai.dicom.header import Limits, guarded, read_raw_header
from genseg_monai.dicom.regions import Region
from genseg_monai.dicom.segments import SEGMENTATION_CLASSES, read_segments
from genseg_monai.dicom.series import Series
from genseg_monai.dicom.structures import STRUCTURE_CLASS, read_structures
from genseg_monai.errors import UserError

__all__ = ["Report", "is_annotation", "label_map"]

_CLASS, _MODALITY = 0x00080016, 0x00080060


@dataclass
class Report:
    """What became of the regions. Names are as the files have them, and may hold anything a person typed.

    Attributes:
        voxels: of each known name, before another class covers it.
        unknown: names that `labels` does not have.
        empty: known names without a voxel on this grid.
        overlapping: voxels that two classes claim; the higher class has them.
        outside: voxels and contours off the grid of the series.
        absent: images that a file refers to and the series does not have; if not 0, end slices may be missing.
        skipped: contours that enclose nothing or lie between the slices.
        refused: files that are not read, and why.
    """

    voxels: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    overlapping: int = 0
    outside: int = 0
    skipped: int = 0
    absent: int = 0
    refused: list[SeriesError] = field(default_factory=list)


def label_map(
    paths: Iterable[Path | str], series: Series, labels: Mapping[str, int], limits: Limits | None = None
) -> tuple[np.ndarray, Report]:
    """Draw the segments and regions of interest of several objects into one label map.

    Args:
        paths: SEG and RTSTRUCT files; other files, and those of another series, are refused in the report.
        series: the images, for the grid.
        labels: name -> class, 1 to 255; names are compared without regard to case and outer spaces. Several names may
            have one class. Where classes overlap, the higher one stays.
        limits: memory and time a file may take.

    Returns:
        uint8 (X, Y, Z) on the grid of the series, 0 for background; and the report.

    Raises:
        UserError: a class outside 1 to 255.
    """
    wanted = {" ".join(name.split()).casefold(): number for name, number in labels.items()}
    if any(isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 255 for n in wanted.values()):
        raise UserError("labels", f"wanted classes from 1 to 255, got {sorted(set(map(str, wanted.values())))}")
    out, report, limits = np.zeros(series.array.shape, np.uint8), Report(), limits or Limits()
    for path in sorted(Path(path) for path in paths):
        drawn, told = out.copy(), replace(report, voxels=dict(report.voxels), unknown=list(report.unknown))
        try:
            _draw_file(path, series, limits, wanted, drawn, told)
        except SeriesError as error:  # nothing of it stays: a part of the regions is a wrong label map
            report.refused.append(error)
        else:
            out, report = drawn, told
    report.unknown = sorted(set(report.unknown))
    report.empty = sorted({name for name, count in report.voxels.items() if not count})
    return out, report


def is_annotation(path: Path, limits: Limits | None = None) -> bool:
    """Tell whether a file is a SEG or an RTSTRUCT."""
    try:
        return _kind(path, limits or Limits()) != ""
    except SeriesError:
        return False


def _kind(path: Path, limits: Limits) -> str:
    with guarded(path):
        raw = read_raw_header(path, [_CLASS, _MODALITY], limits)
        fields = Fields(raw.elements, raw.little, path)
        uid, modality = fields.uid(_CLASS) or raw.meta.get(0x00020002, ""), fields.word(_MODALITY)
    if uid in SEGMENTATION_CLASSES or modality == "SEG":
        return "SEG"
    return "RTSTRUCT" if uid == STRUCTURE_CLASS or modality == "RTSTRUCT" else ""


def _regions(path: Path, series: Series, limits: Limits) -> Iterator[Region]:
    kind = _kind(path, limits)
    if not kind:
        raise SeriesError(path, SeriesFault.NOT_AN_IMAGE, "wanted a SEG or an RTSTRUCT, got another object")
    yield from (read_segments if kind == "SEG" else read_structures)(path, series, limits)


def _draw_file(
    path: Path, series: Series, limits: Limits, wanted: Mapping[str, int], out: np.ndarray, report: Report
) -> None:
    deadline = time.monotonic() + limits.drawing_seconds
    for region in _regions(path, series, limits):
        _draw(region, wanted, out, report)
        if time.monotonic() > deadline:
            raise SeriesError(
                path, SeriesFault.TOO_LARGE, f"wanted regions drawn in {limits.drawing_seconds:.0f} s, they take longer"
            )


def _draw(region: Region, wanted: Mapping[str, int], out: np.ndarray, report: Report) -> None:
    report.absent = max(report.absent, region.absent)
    number = wanted.get(" ".join(region.name.split()).casefold())
    if number is None:
        report.unknown.append(region.name)
        return
    report.voxels.setdefault(region.name, 0)
    report.outside += region.outside
    report.skipped += region.skipped
    if region.mask is None:
        return
    before = out[region.mask]
    report.voxels[region.name] += before.size
    report.overlapping += int(((before != 0) & (before != number)).sum())
    out[region.mask] = np.maximum(before, number)
