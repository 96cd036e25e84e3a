"""Slices to one regular grid, or the reason why not.

Coordinates inside this module are those of DICOM (LPS, millimetres); the affine that leaves it is that of NIfTI
(RAS). Facts on what other readers do wrong with tilted, missing and doubled slices: DICOM PS3.3 C.7.6.2 for the
attributes, dcm2niix (Li et al. 2016, https://doi.org/10.1016/j.jneumeth.2016.03.001) for the cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from genseg_monai.dicom.faults import SeriesError, SeriesFault

__all__ = ["Gaps", "Stack", "Tilt", "normal_of", "plane_affine", "stack_slices"]

# two positions, each rounded to 0.01 mm, differ by up to this from the true step; the rest is 1 % of the step
_ROUNDING = 0.0101
_RELATIVE = 0.01
_TILT_DEGREES = 0.1
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Tilt(StrEnum):
    """What to do with slices that are stacked at an angle to their normal."""

    REFUSE = "refuse"
    SHEAR = "shear"  # keep the pixels, tell the truth in a sheared affine
    RESAMPLE = "resample"  # shift every slice in its plane (linear), so that the grid is rectangular


class Gaps(StrEnum):
    """What to do when exactly one slice inside the stack is missing."""

    REFUSE = "refuse"
    FILL = "fill"  # the mean of its two neighbours


@dataclass(frozen=True)
class Stack:
    """A regular grid of slices.

    Attributes:
        order: the given slices, sorted along the normal.
        affine: (4, 4), voxel (column, row, slice) to RAS millimetres.
        missing: position in the output of the slice to be filled, or None.
        shifts: (slices, 2), how far each slice moves (columns, rows; in pixels) for `Tilt.RESAMPLE`, or None.
    """

    order: tuple[int, ...]
    affine: np.ndarray
    missing: int | None = None
    shifts: np.ndarray | None = None


def normal_of(orientation: np.ndarray, where: object) -> np.ndarray:
    """Return the unit normal (3,) of a plane.

    Args:
        orientation: (6,), direction cosines along a row, then along a column.
        where: what to name in an error.

    Raises:
        SeriesError: the cosines are not two perpendicular unit vectors.

    Example:
        >>> normal_of(np.array([1.0, 0, 0, 0, 1, 0]), "scan").tolist()
        [0.0, 0.0, 1.0]
    """
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not np.allclose(lengths, 1.0, atol=0.01) or abs(float(row @ column)) > 0.01:
        raise SeriesError(
            where, SeriesFault.GEOMETRY, "wanted an orientation of two perpendicular unit vectors, got others"
        )
    normal = np.cross(row / lengths[0], column / lengths[1])
    return np.asarray(normal / np.linalg.norm(normal))


def plane_affine(
    orientation: np.ndarray, spacing: tuple[float, float], origin: np.ndarray, step: np.ndarray
) -> np.ndarray:
    """Return the RAS affine (4, 4) of voxels (column, row, slice).

    Args:
        orientation: (6,) direction cosines.
        spacing: millimetres between rows, then between columns, as in PixelSpacing.
        origin: (3,) LPS position of the first voxel.
        step: (3,) LPS millimetres from one slice to the next.
    """
    lps = np.eye(4)
    lps[:3, 0] = orientation[:3] / np.linalg.norm(orientation[:3]) * spacing[1]
    lps[:3, 1] = orientation[3:] / np.linalg.norm(orientation[3:]) * spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = origin
    return np.asarray(LPS_TO_RAS @ lps)


def stack_slices(
    positions: np.ndarray,
    orientation: np.ndarray,
    spacing: tuple[float, float],
    thickness: float,
    where: object,
    *,
    tilt: Tilt = Tilt.REFUSE,
    gaps: Gaps = Gaps.REFUSE,
) -> Stack:
    """Sort parallel slices along their normal and prove that they form a grid.

    Args:
        positions: (slices, 3) LPS position of the first voxel of each slice.
        orientation: (6,) direction cosines, common to all.
        spacing: millimetres between rows, then between columns.
        thickness: step to assume where there is only one slice, in millimetres.
        where: what to name in an error.
        tilt: what to do with a tilted gantry.
        gaps: what to do with one missing slice.

    Returns:
        The order of the slices and the affine of the grid.

    Raises:
        SeriesError: two slices at one position, uneven steps, tilt, or slices that are not on one line.

    Example:
        >>> positions = np.array([[0.0, 0, 5], [0, 0, 0], [0, 0, 2.5]])
        >>> stack = stack_slices(positions, np.array([1.0, 0, 0, 0, 1, 0]), (1.0, 1.0), 2.5, "scan")
        >>> stack.order, float(stack.affine[2, 2])
        ((1, 2, 0), 2.5)
    """
    normal = normal_of(orientation, where)
    if len(positions) == 1:
        return Stack((0,), plane_affine(orientation, spacing, positions[0], normal * (thickness or 1.0)))
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    points, heights = positions[order], heights[order]
    missing = _missing_slice(heights, where, gaps)
    slots = np.arange(len(points)) if missing is None else np.delete(np.arange(len(points) + 1), missing)
    step = (points[-1] - points[0]) / slots[-1]
    offsets = points - points[0] - slots[:, None] * step  # from the straight line through first and last
    pixel = min(spacing)
    if np.abs(offsets).max() > max(2 * _ROUNDING, 0.05 * pixel, 0.05 * float(np.linalg.norm(step))):
        raise SeriesError(
            where,
            SeriesFault.GEOMETRY,
            f"wanted slices on one straight line, got one {np.abs(offsets).max():.3f} mm off; the series needs a "
            "reconstruction on a regular grid",
        )
    slant = step - (step @ normal) * normal
    angle = float(np.degrees(np.arctan2(np.linalg.norm(slant), step @ normal)))
    shifts, origin = None, points[0]
    if angle > _TILT_DEGREES and np.linalg.norm(slant) * slots[-1] > _RELATIVE * pixel:
        if tilt is Tilt.REFUSE:
            raise SeriesError(
                where,
                SeriesFault.GANTRY_TILT,
                f"wanted slices stacked along their normal, got {angle:.2f} degrees of tilt; read it with tilt=shear "
                "(sheared affine) or tilt=resample (shifted slices)",
            )
        if tilt is Tilt.RESAMPLE:
            along = np.array([slant @ orientation[:3] / spacing[1], slant @ orientation[3:] / spacing[0]])
            middle = slots[-1] / 2  # the middle slice stays, so that both ends lose as little as they can
            shifts = (np.arange(slots[-1] + 1)[:, None] - middle) * along
            origin, step = origin + middle * slant, step - slant
    affine = plane_affine(orientation, spacing, origin, step)
    return Stack(tuple(int(i) for i in order), affine, missing, shifts)


def _missing_slice(heights: np.ndarray, where: object, gaps: Gaps) -> int | None:
    """Return where one slice has to be filled in; refuse other uneven steps. `heights` are sorted, in mm."""
    steps = np.diff(heights)
    median = float(np.median(steps))
    tolerance = max(_RELATIVE * median, _ROUNDING)
    together = steps <= 0.001 + _RELATIVE * median
    if together.any():
        raise SeriesError(
            where,
            SeriesFault.SAME_POSITION,
            f"wanted one slice a position, got {int(together.sum())} of {len(heights)} at a position already taken; "
            "keep one phase, echo or acquisition",
        )
    uneven = np.flatnonzero(np.abs(steps - median) > tolerance)
    if not len(uneven):
        return None
    if gaps is Gaps.FILL and len(uneven) == 1 and abs(steps[uneven[0]] - 2 * median) <= 2 * tolerance:
        return int(uneven[0]) + 1
    raise SeriesError(
        where,
        SeriesFault.MISSING_SLICE,
        f"wanted even steps of {median:.4g} mm between {len(heights)} slices, got steps from {steps.min():.4g} to "
        f"{steps.max():.4g} mm; send the missing slices again, or read it with gaps=fill if one slice is missing",
    )
