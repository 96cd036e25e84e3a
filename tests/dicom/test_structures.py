"""Contours of an RTSTRUCT: holes, odd entries, and what would take for ever to fill."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from genseg_monai.dicom.annotation import label_map
from genseg_monai.dicom.series import Series, SeriesFault
from genseg_monai.dicom.structures import fill_even_odd, read_structures
from tests.dicom.objects import edited
from tests.dicom.study import LABELS, Study


def _contour(points: np.ndarray, kind: str = "CLOSED_PLANAR") -> Dataset:
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    item.ContourData = [round(float(value), 5) for value in points.ravel()]
    return item


def _circle(series: Series, radius: float, depth: float, centre: tuple[float, float] = (19.6, 15.3)) -> np.ndarray:
    """Return a circle in the plane of a slice, LPS mm; the radius is in mm."""
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    spacing = np.linalg.norm(series.affine[:3, :3], axis=0)
    voxels = np.stack(
        [
            centre[0] + radius * np.cos(angle) / spacing[0],
            centre[1] + radius * np.sin(angle) / spacing[1],
            np.full_like(angle, depth),
        ],
        axis=1,
    )
    return (voxels @ series.affine[:3, :3].T + series.affine[:3, 3]) * [-1, -1, 1]


def _with_contours(study: Study, *contours: Dataset) -> Path:
    def change(data: Dataset) -> None:
        data.ROIContourSequence[0].ContourSequence = list(contours)
        del data.ROIContourSequence[1].ContourSequence  # a region that nobody drew

    return edited(study.rtstruct, change)


def test_a_hole_is_a_hole(drawn: tuple[Study, Series]) -> None:
    study, series = drawn
    outer, inner = _contour(_circle(series, 10, 3)), _contour(_circle(series, 5, 3))
    labels, report = label_map([_with_contours(study, outer, inner, outer)], series, LABELS)
    assert report.empty == ["tumour"]
    spacing = np.linalg.norm(series.affine[:3, :3], axis=0)
    x, y = np.indices((40, 32))
    distance = np.hypot((x - 19.6) * spacing[0], (y - 15.3) * spacing[1])
    np.testing.assert_array_equal(labels[:, :, 3] == 1, (distance < 10) & (distance >= 5))
    assert not np.delete(labels, 3, axis=2).any()
    area = (labels[:, :, 3] == 1).sum() * spacing[0] * spacing[1]
    assert area == pytest.approx(np.pi * 75, rel=0.03)


def test_regions_without_a_contour_take_no_volume_each(drawn: tuple[Study, Series], tmp_path: Path) -> None:
    study, series = drawn

    def change(data: Dataset) -> None:
        for number in range(10, 200):
            item = copy.deepcopy(data.StructureSetROISequence[0])
            item.ROINumber, item.ROIName = number, "liver"
            data.StructureSetROISequence.append(item)

    found = list(read_structures(edited(study.rtstruct, change), series))
    assert [region.mask is None for region in found] == [False, False, *[True] * 190]
    labels, report = label_map([study.rtstruct], series, LABELS)
    np.testing.assert_array_equal(labels, study.labels)
    assert report.voxels["liver"] == (study.labels == 1).sum()


def test_outlines_are_filled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    star = 16 + (8 + 6 * np.cos(5 * angle))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    whole = fill_even_odd([star, star / 2], (33, 30))
    monkeypatch.setattr("genseg_monai.dicom.structures._EDGES", 7)
    np.testing.assert_array_equal(fill_even_odd([star, star / 2], (33, 30)), whole)


def test_a_hatching_is_refused(drawn: tuple[Study, Series], monkeypatch: pytest.MonkeyPatch) -> None:
    """Edges from top to bottom, many of them: little to read, and more to fill than any outline."""
    study, series = drawn
    hatching = _circle(series, 10, 3)[np.arange(240) * 119 % 240]
    path = _with_contours(study, _contour(hatching))
    monkeypatch.setattr("genseg_monai.dicom.structures._CROSSINGS", 1000)
    labels, report = label_map([path, study.seg], series, LABELS)
    assert [error.reason for error in report.refused] == [SeriesFault.TOO_LARGE]
    np.testing.assert_array_equal(labels, study.labels)


def test_points_lines_and_contours_between_slices_are_counted(drawn: tuple[Study, Series]) -> None:
    study, series = drawn
    circle = _circle(series, 6, 2)
    path = _with_contours(
        study,
        _contour(circle),
        _contour(circle[:1], "POINT"),
        _contour(circle, "OPEN_PLANAR"),
        _contour(_circle(series, 6, 4.5)),  # between two slices
        _contour(_circle(series, 6, 30)),  # far off
        _contour(_circle(series, 6, 5.2)),  # nearly on the slice
    )
    labels, report = label_map([path], series, LABELS)
    assert report.skipped == 3
    assert report.outside == 1
    assert labels.any(axis=(0, 1)).tolist() == [False, False, True, False, False, True, False, False]


def test_a_contour_across_the_slices_is_not_filled(drawn: tuple[Study, Series]) -> None:
    study, series = drawn
    upright = _circle(series, 6, 0)
    voxels = np.stack([np.full(240, 10.0), 10 + 5 * np.cos(np.linspace(0, 6.28, 240)), np.linspace(1, 6, 240)], axis=1)
    upright = (voxels @ series.affine[:3, :3].T + series.affine[:3, 3]) * [-1, -1, 1]
    labels, report = label_map([_with_contours(study, _contour(upright))], series, LABELS)
    assert not labels.any()
    assert report.skipped == 1


def test_even_odd_against_a_finer_grid() -> None:
    """A star, against the same rule on pixels of a twentieth: centres inside are set, and no other."""
    angle = np.linspace(0, 4 * np.pi, 5, endpoint=False)
    star = np.stack([15.3 + 13 * np.cos(angle), 14.7 + 12 * np.sin(angle)], axis=1)
    fine = fill_even_odd([star * 20], (620, 620))
    np.testing.assert_array_equal(fill_even_odd([star], (31, 31)), fine[::20, ::20])
    assert fine.mean() * 961 == pytest.approx(fill_even_odd([star], (31, 31)).sum(), rel=0.05)


def test_polygons_that_leave_the_image() -> None:
    square = np.array([[-5.0, -5], [50, -5], [50, 3.5], [-5, 3.5]])
    filled = fill_even_odd([square], (8, 6))
    assert filled[:, :4].all()
    assert not filled[:, 4:].any()
