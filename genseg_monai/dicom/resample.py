"""Masks on another grid than the images, brought onto it by nearest neighbour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.geometry import LPS_TO_RAS, normal_of, plane_affine
from genseg_monai.dicom.image import Slice
from genseg_monai.dicom.series import Series

__all__ = ["nearest"]


def nearest(frames: Sequence[tuple[Slice, np.ndarray]], series: Series) -> np.ndarray:
    """Resample parallel frames of one grid, of which empty ones may be missing.

    Args:
        frames: planes and their masks (rows, columns), all of one size and orientation.
        series: whose grid is wanted.

    Returns:
        bool (X, Y, Z). A voxel is set where its centre lies in a set pixel of the frame whose slab it lies in.

    Raises:
        SeriesError: frames without a position, or not parallel.
    """
    first, mask = frames[0]
    if any(plane.position is None or plane.orientation is None or plane.spacing is None for plane, _ in frames):
        raise SeriesError(first.path, SeriesFault.NO_POSITION, "wanted a position of every frame, got none for one")
    positions = np.array([plane.position for plane, _ in frames])
    orientations = np.array([plane.orientation for plane, _ in frames])
    assert first.orientation is not None
    assert first.spacing is not None
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise SeriesError(first.path, SeriesFault.MIXED_ORIENTATION, "wanted parallel frames, got several orientations")
    normal = normal_of(first.orientation, first.path)
    heights = positions @ normal
    order = np.argsort(heights)
    gaps = np.diff(heights[order])
    thickness = float(gaps[gaps > 0.01].min(initial=np.inf)) if len(gaps) else np.inf
    thickness = min(thickness, first.step) if first.step > 0.01 else thickness
    thickness = thickness if np.isfinite(thickness) else 1.0
    grid = LPS_TO_RAS @ plane_affine(first.orientation, first.spacing, positions[order[0]], normal)
    to_frame = np.linalg.inv(grid) @ LPS_TO_RAS @ series.affine
    out = np.zeros(series.array.shape, bool)
    levels = heights[order] - heights.min()
    stack = np.stack([frames[i][1] for i in order])
    across, down = np.indices(series.array.shape[:2])
    size = int(across.size)
    for index in range(series.array.shape[2]):
        flat = np.column_stack([across.ravel(), down.ravel(), np.full(size, index)])
        places: np.ndarray = flat @ to_frame[:3, :3].T + to_frame[:3, 3]
        at = np.abs(np.subtract.outer(places[:, 2], levels)).argmin(axis=1)
        close = np.abs(levels[at] - places[:, 2]) <= thickness / 2 + 1e-6
        column, row = np.rint(places[:, 0]).astype(np.int64), np.rint(places[:, 1]).astype(np.int64)
        inside = close & (column >= 0) & (row >= 0) & (column < mask.shape[1]) & (row < mask.shape[0])
        hit = np.zeros(len(flat), bool)
        hit[inside] = stack[at[inside], row[inside], column[inside]]
        out[:, :, index] = hit.reshape(out.shape[:2])
    return out
