"""Slices to a grid: order, steps, tilt and rounding, against grids that are known."""

from __future__ import annotations

import numpy as np
import pytest

from genseg_monai.dicom.geometry import Gaps, Tilt, normal_of, plane_affine, stack_slices
from genseg_monai.dicom.series import SeriesError, SeriesFault

_AXIAL = np.array([1.0, 0, 0, 0, 1, 0])
_TURNED = np.array([0.8, 0.6, 0, 0.0, 0.0, -1.0])


def _positions(count: int, step: np.ndarray) -> np.ndarray:
    return np.array([5.0, -7, 11]) + np.arange(count)[:, None] * step


@pytest.mark.parametrize("orientation", [_AXIAL, _TURNED])
@pytest.mark.parametrize("direction", [1, -1])
def test_slices_are_sorted_along_the_normal(orientation: np.ndarray, direction: int) -> None:
    normal = normal_of(orientation, "x")
    positions = _positions(6, direction * 1.5 * normal)
    shuffled = np.random.default_rng(0).permutation(6)
    stack = stack_slices(positions[shuffled], orientation, (0.5, 0.7), 1, "x")
    np.testing.assert_allclose(positions[shuffled][list(stack.order)] @ normal, np.sort(positions @ normal))
    assert np.linalg.det(stack.affine[:3, :3]) == pytest.approx(0.5 * 0.7 * 1.5)
    first = positions[0 if direction == 1 else -1]
    np.testing.assert_allclose(stack.affine[:3, 3], first * [-1, -1, 1])


def test_a_single_slice_takes_the_step_the_file_claims() -> None:
    assert stack_slices(_positions(1, np.zeros(3)), _AXIAL, (1, 1), 3.0, "x").affine[2, 2] == 3
    assert stack_slices(_positions(1, np.zeros(3)), _AXIAL, (1, 1), 0.0, "x").affine[2, 2] == 1


@pytest.mark.parametrize("degrees", [0.05, 0.5, 12.0, 30.0])
def test_tilt_is_measured(degrees: float) -> None:
    step = np.array([0, 2.0 * np.tan(np.deg2rad(degrees)), 2.0])
    if degrees < 0.1:
        stack_slices(_positions(10, step), _AXIAL, (0.5, 0.5), 2, "x")
        return
    with pytest.raises(SeriesError, match=f"got {degrees:.2f} degrees") as caught:
        stack_slices(_positions(10, step), _AXIAL, (0.5, 0.5), 2, "x")
    assert caught.value.reason is SeriesFault.GANTRY_TILT
    sheared = stack_slices(_positions(10, step), _AXIAL, (0.5, 0.5), 2, "x", tilt=Tilt.SHEAR)
    np.testing.assert_allclose(sheared.affine[:3, 2], step * [-1, -1, 1])
    level = stack_slices(_positions(10, step), _AXIAL, (0.5, 0.5), 2, "x", tilt=Tilt.RESAMPLE)
    np.testing.assert_allclose(level.affine[:3, 2], [0, 0, 2])
    assert level.shifts is not None
    assert level.shifts[:, 1].sum() == pytest.approx(0)  # the middle stays where it is


def test_steps_that_creep_are_uneven_in_the_end() -> None:
    """Each step within 1 % of the next, but the stack bends away from a grid."""
    steps = 2.0 * np.concatenate([np.full(60, 0.994), np.full(60, 1.006)])
    positions = np.zeros((121, 3))
    positions[1:, 2] = np.cumsum(steps)
    with pytest.raises(SeriesError) as caught:
        stack_slices(positions, _AXIAL, (0.5, 0.5), 2, "x")
    assert caught.value.reason is SeriesFault.GEOMETRY


def test_only_one_missing_slice_is_filled() -> None:
    positions = _positions(10, np.array([0, 0, 2.0]))
    stack = stack_slices(np.delete(positions, 4, 0), _AXIAL, (1, 1), 2, "x", gaps=Gaps.FILL)
    assert stack.missing == 4
    assert stack.affine[2, 2] == pytest.approx(2)
    for lost in ([3, 4], [2, 6]):
        with pytest.raises(SeriesError) as caught:
            stack_slices(np.delete(positions, lost, 0), _AXIAL, (1, 1), 2, "x", gaps=Gaps.FILL)
        assert caught.value.reason is SeriesFault.MISSING_SLICE


def test_affine_of_a_plane() -> None:
    affine = plane_affine(_AXIAL, (0.5, 0.7), np.array([1.0, 2, 3]), np.array([0, 0, 4.0]))
    np.testing.assert_allclose(affine @ [10, 20, 1, 1], [-(1 + 7), -(2 + 10), 7, 1])
