"""RTSTRUCT contours to regions on the grid of an image series.

All closed contours of one slice are filled together by the even-odd rule at pixel centres, so that an inner contour
is a hole (DICOM PS3.3 C.8.8.6.3: XOR). A contour belongs to the slice nearest along the normal of the images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.fields import Fields
from genseg_monai.dicom.header import Limits, guarded, read_raw_header
from genseg_monai.dicom.regions import MAX_REGIONS, Region, belongs, count_absent, voxels_of
from genseg_monai.dicom.series import Series

__all__ = ["STRUCTURE_CLASS", "fill_even_odd", "read_structures"]

STRUCTURE_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_ROIS, _ROI_NUMBER, _ROI_NAME, _ROI_FRAME = 0x30060020, 0x30060022, 0x30060026, 0x30060024
_CONTOURED, _REFERENCED_ROI, _CONTOURS = 0x30060039, 0x30060084, 0x30060040
_TYPE, _DATA, _IMAGES, _INSTANCE = 0x30060042, 0x30060050, 0x30060016, 0x00081155
_FRAMES, _FRAME, _STUDIES, _SERIES, _SERIES_UID = 0x30060010, 0x00200052, 0x30060012, 0x30060014, 0x0020000E
_TAGS = [0x00080016, 0x00080018, 0x00080060, 0x0020000D, _SERIES_UID, _FRAME, _ROIS, _CONTOURED, _FRAMES]
_OFF_PLANE = 0.3  # of the distance between slices
_EDGES = 4096  # filled together: memory is bounded by them times the rows
_CROSSINGS = 100_000_000  # of outlines and rows, in one region: seconds
_CLOSED = frozenset({"CLOSED_PLANAR", "CLOSED_PLANAR_XOR", "CLOSEDPLANAR_XOR"})


def read_structures(path: Path, series: Series, limits: Limits | None = None) -> Iterator[Region]:
    """Yield the regions of interest of an RTSTRUCT on the grid of a series.

    Args:
        path: the file; nothing it says is trusted.
        series: the images it was drawn on.
        limits: what reading it may cost.

    Raises:
        SeriesError: it cannot be read, or was not drawn on this series.
    """
    with guarded(path):
        raw = read_raw_header(path, _TAGS, limits or Limits())
        fields = Fields(raw.elements, raw.little, path)
        names = {item.count(_ROI_NUMBER, 0): item for item in fields.items(_ROIS)}
        if not names:
            raise SeriesError(path, SeriesFault.UNREADABLE, "wanted a structure set with regions, got none")
        if len(names) > MAX_REGIONS:
            raise SeriesError(path, SeriesFault.TOO_LARGE, f"wanted at most {MAX_REGIONS} regions, got {len(names)}")
        frames = {item.uid(_ROI_FRAME) for item in names.values()} | {
            item.uid(_FRAME) for item in fields.items(_FRAMES)
        }
        contoured = {item.count(_REFERENCED_ROI, 0): item.items(_CONTOURS) for item in fields.items(_CONTOURED)}
        referred = _referred_series(fields)
        lines = [line for lines in contoured.values() for line in lines]
        images = {image.uid(_INSTANCE) for entry in (*referred, *lines) for image in entry.items(_IMAGES)} - {""}
        if not _drawn_on(series, {entry.uid(_SERIES_UID) for entry in referred} - {""}, frames, images):
            raise SeriesError(
                path, SeriesFault.SEVERAL_SERIES, "wanted structures of this series, got those of another"
            )
        absent = count_absent(series, referred, _IMAGES, images)
        found = [(item.name(_ROI_NAME), _polygons(contoured.get(number, []))) for number, item in names.items()]
    for name, (polygons, skipped) in found:
        if sum(_crossings(polygon, series) for polygon in polygons) > _CROSSINGS:
            raise SeriesError(path, SeriesFault.TOO_LARGE, "wanted contours that outline something, got a hatching")
        mask, outside, between = _fill(polygons, series)
        yield Region(name, mask, outside, skipped + between, absent)


def _referred_series(fields: Fields) -> list[Fields]:
    return [
        entry for frame in fields.items(_FRAMES) for study in frame.items(_STUDIES) for entry in study.items(_SERIES)
    ]


def _drawn_on(series: Series, of_series: set[str], frames: set[str], images: set[str]) -> bool:
    if of_series and series.uids.get("series"):
        return series.uids["series"] in of_series
    return any(belongs(series, frame, images) for frame in frames or {""})


def _polygons(lines: Sequence[Fields]) -> tuple[list[np.ndarray], int]:
    """Return closed contours (N, 3) in LPS mm, each once, and how many others there were."""
    found: dict[bytes, np.ndarray] = {}
    skipped = 0
    for line in lines:
        numbers = np.array(line.numbers(_DATA))
        if line.word(_TYPE) not in _CLOSED or len(numbers) < 9 or len(numbers) % 3:
            skipped += 1
            continue
        found[numbers.tobytes()] = numbers.reshape(-1, 3)  # the same contour twice would undo itself
    return list(found.values()), skipped


def _crossings(polygon: np.ndarray, series: Series) -> float:
    """Return about how often an outline crosses a row of pixels: the work it takes to be filled."""
    rows = voxels_of(series, polygon)[:, 1].clip(0, series.array.shape[1])
    return float(np.abs(np.diff(rows)).sum())


def _fill(polygons: Sequence[np.ndarray], series: Series) -> tuple[np.ndarray | None, int, int]:
    """Return the mask (X, Y, Z), contours off the grid, and contours between slices or across them."""
    size = series.array.shape
    outside = between = 0
    of_slice: dict[int, list[np.ndarray]] = defaultdict(list)
    for polygon in polygons:
        points = voxels_of(series, polygon)
        depth = round(float(points[:, 2].mean()))
        if np.abs(points[:, 2] - depth).max() > _OFF_PLANE and size[2] > 1:
            between += 1
        elif 0 <= depth < size[2] or size[2] == 1:
            of_slice[min(max(depth, 0), size[2] - 1)].append(points[:, :2])
        else:
            outside += 1
    if not of_slice:
        return None, outside, between
    mask = np.zeros(size, bool)
    for depth, outlines in of_slice.items():
        mask[:, :, depth] = fill_even_odd(outlines, (size[0], size[1]))
    return mask, outside, between


def fill_even_odd(outlines: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Fill closed polygons together, by the even-odd rule at pixel centres.

    Args:
        outlines: each (N, 2), pixel coordinates (x, y); whole numbers are centres.
        shape: (X, Y) of the result.

    Returns:
        bool (X, Y).

    Example:
        >>> square = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])
        >>> int(fill_even_odd([square], (4, 4)).sum())
        4
    """
    toggles = np.zeros((shape[0] + 1, shape[1]), np.int32)
    pairs = ((points, np.roll(points, -1, axis=0)) for points in outlines)
    for start, end in ((a[k : k + _EDGES], b[k : k + _EDGES]) for a, b in pairs for k in range(0, len(a), _EDGES)):
        low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
        # an edge crosses the rows y with low <= y < high: each vertex counts once
        first = np.clip(np.ceil(low), 0, shape[1]).astype(np.int64)
        count = np.clip(np.ceil(high), 0, shape[1]).astype(np.int64) - first
        edge = np.repeat(np.arange(len(start)), count)
        y = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
        x = start[edge, 0] + (y - start[edge, 1]) * slope
        # every pixel at or right of the crossing changes sides
        np.add.at(toggles.reshape(-1), np.clip(np.ceil(x), 0, shape[0]).astype(np.int64) * shape[1] + y, 1)
    return np.asarray(np.cumsum(toggles[:-1], axis=0) % 2 == 1)
