"""SEG and RTSTRUCT on the grid of the images: through affines, with holes, overlaps and odd entries."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from genseg_monai.dicom.annotation import is_annotation, label_map
from genseg_monai.dicom.series import Limits, Series, SeriesFault, find_series, read_series
from genseg_monai.errors import UserError
from tests.dicom.objects import edited
from tests.dicom.study import LABELS, Study, write_study


def _seg(study: Study, pixels: np.ndarray, kind: str, path: Path, **more: Any) -> Path:
    """Write (Z, Y, X[, segments]) with highdicom."""
    import highdicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = [pydicom.dcmread(file) for file in study.images]
        code = pydicom.sr.codedict.codes.SCT
        made = highdicom.seg.Segmentation(
            images,
            pixels,
            kind,
            [
                highdicom.seg.SegmentDescription(number, name, code.Organ, code.Liver, "MANUAL")
                for name, number in LABELS.items()
            ],
            highdicom.UID(),
            1,
            highdicom.UID(),
            1,
            "maker",
            "model",
            "1",
            "1",
            **more,
        )
        made.save_as(path)
    return path


@pytest.mark.parametrize("which", ["seg", "rtstruct"])
def test_drawn_regions_come_back(which: str, drawn: tuple[Study, Series]) -> None:
    study, series = drawn
    labels, report = label_map([getattr(study, which)], series, {" LIVER ": 1, "Tumour": 2})
    np.testing.assert_array_equal(labels, study.labels)
    assert labels.dtype == np.uint8
    assert report.voxels == {name: int((study.labels == value).sum()) for name, value in LABELS.items()}
    assert (report.unknown, report.empty, report.refused) == ([], [], [])
    assert (report.overlapping, report.outside, report.skipped, report.absent) == (0, 0, 0, 0)


def test_unknown_names_are_reported(drawn: tuple[Study, Series]) -> None:
    study, series = drawn
    labels, report = label_map([study.seg], series, {"tumour": 5, "spleen": 1})
    assert report.unknown == ["liver"]
    np.testing.assert_array_equal(labels, (study.labels == 2) * 5)


def test_several_objects_and_several_names_of_one_class(drawn: tuple[Study, Series]) -> None:
    study, series = drawn
    labels, report = label_map([study.seg, study.rtstruct], series, {"liver": 4, "tumour": 4})
    np.testing.assert_array_equal(labels, (study.labels > 0) * 4)
    assert report.voxels["liver"] == 2 * (study.labels == 1).sum()
    assert report.overlapping == 0


def test_overlapping_segments(drawn: tuple[Study, Series], tmp_path: Path) -> None:
    study, series = drawn
    both = np.zeros((8, 32, 40, 2), np.uint8)
    both[2:6, 4:20, 5:30, 0] = 1
    both[3:5, 8:12, 25:35, 1] = 1
    path = _seg(study, both, "BINARY", tmp_path / "overlap.dcm")
    labels, report = label_map([path], series, LABELS)
    np.testing.assert_array_equal(labels, np.maximum(both[..., 0], both[..., 1] * 2).transpose(2, 1, 0))
    assert report.overlapping == 2 * 4 * 5
    assert report.voxels == {"liver": 4 * 16 * 25, "tumour": 2 * 4 * 10}


@pytest.mark.parametrize("omit", [True, False])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"])
def test_fractional(omit: bool, syntax: str, drawn: tuple[Study, Series], tmp_path: Path) -> None:
    study, series = drawn
    soft = np.stack([(study.labels == k) * 0.8 + (study.labels == 0) * 0.3 for k in (1, 2)], axis=-1)
    soft = soft.transpose(2, 1, 0, 3).astype(np.float32)
    path = _seg(
        study, soft, "FRACTIONAL", tmp_path / "soft.dcm", omit_empty_frames=omit, transfer_syntax_uid=syntax,
        max_fractional_value=100,
    )  # fmt: skip
    np.testing.assert_array_equal(label_map([path], series, LABELS)[0], study.labels)


def test_label_map_segmentation(drawn: tuple[Study, Series], tmp_path: Path) -> None:
    study, series = drawn
    path = _seg(study, study.labels.transpose(2, 1, 0).copy(), "LABELMAP", tmp_path / "labelmap.dcm")
    labels, report = label_map([path], series, LABELS)
    assert not report.refused
    np.testing.assert_array_equal(labels, study.labels)


def test_frames_on_another_grid(drawn: tuple[Study, Series]) -> None:
    """The same frames, moved by a part of a voxel and with larger pixels: nearest neighbour."""
    study, series = drawn

    def change(data: Dataset) -> None:
        measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.PixelSpacing = [2 * value for value in measures.PixelSpacing]

    labels, report = label_map([edited(study.seg, change)], series, LABELS)
    assert not report.refused
    x, y = (np.rint(np.arange(n) / 2).astype(int) for n in (40, 32))
    wanted = study.labels[np.ix_(x, y, np.arange(8))]
    ties = np.ix_(np.arange(40) % 2 == 0, np.arange(32) % 2 == 0, np.arange(8))  # halves may round either way
    np.testing.assert_array_equal(labels[ties], wanted[ties])
    assert (labels != wanted).mean() < 0.05


def test_a_series_with_fewer_slices_than_were_segmented(drawn: tuple[Study, Series]) -> None:
    study, _ = drawn
    series = read_series(study.images[:-2])
    for path in (study.seg, study.rtstruct):
        labels, report = label_map([path], series, LABELS)
        np.testing.assert_array_equal(labels, study.labels[:, :, :-2])
        assert report.absent == 2
        assert report.outside > 0


def _refer(path: Path, images: tuple[Path, ...], *, as_series: str = "") -> Path:
    """List more images in a SEG or RTSTRUCT: under the series it has, or under another."""

    def change(data: Dataset) -> None:
        if "ReferencedSeriesSequence" in data:
            entries, name = data.ReferencedSeriesSequence, "ReferencedInstanceSequence"
        else:
            study = data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
            entries, name = study.RTReferencedSeriesSequence, "ContourImageSequence"
        entry = copy.deepcopy(entries[0])
        entry[name].value = []
        for image in map(pydicom.dcmread, images):
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
            entry[name].value.append(item)
        if as_series:
            entry.SeriesInstanceUID = as_series
            entries.append(entry)
        else:
            entries[0][name].value.extend(entry[name].value)

    return edited(path, change)


@pytest.mark.parametrize("which", ["seg", "rtstruct"])
def test_images_of_another_series_are_not_missing_from_this_one(
    which: str, drawn: tuple[Study, Series], tmp_path: Path
) -> None:
    study, series = drawn
    other = write_study(tmp_path / "other", series=2, phi=False, seg=False, rtstruct=False)
    uid = pydicom.dcmread(other.images[0]).SeriesInstanceUID
    path = _refer(getattr(study, which), other.images, as_series=uid)
    labels, report = label_map([path], series, LABELS)
    np.testing.assert_array_equal(labels, study.labels)
    assert (report.refused, report.absent) == ([], 0)
    # its own images still are
    assert label_map([path], read_series(study.images[:-2]), LABELS)[1].absent == 2


@pytest.mark.parametrize("which", ["seg", "rtstruct"])
def test_other_stacks_of_a_series_are_not_missing_from_one(which: str, drawn: tuple[Study, Series]) -> None:
    study, _ = drawn
    path = getattr(study, which)
    second = []
    for number, file in enumerate(study.images):
        image = pydicom.dcmread(file)
        image.AcquisitionNumber = 2
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{image.SOPInstanceUID[:50]}.{number}"
        second.append(file.with_name(f"second_{number}.dcm"))
        image.save_as(second[-1])
    _refer(path, tuple(second))
    for stack in find_series(study.images[0].parent):
        labels, report = label_map([path], read_series(stack), LABELS)
        np.testing.assert_array_equal(labels, study.labels)
        assert (report.refused, report.absent) == ([], 0)


def test_objects_of_another_series_and_other_files_are_refused(drawn: tuple[Study, Series], tmp_path: Path) -> None:
    study, series = drawn
    other = write_study(tmp_path / "other", patient=2, phi=False)
    labels, report = label_map([other.seg, other.rtstruct, study.images[0]], series, LABELS)
    assert not labels.any()
    assert sorted(error.reason for error in report.refused) == [
        SeriesFault.NOT_AN_IMAGE,
        SeriesFault.SEVERAL_SERIES,
        SeriesFault.SEVERAL_SERIES,
    ]
    assert [is_annotation(path) for path in (study.seg, study.rtstruct, study.images[0])] == [True, True, False]


@pytest.mark.parametrize("which", ["seg", "rtstruct"])
def test_more_regions_than_anybody_draws_are_refused(
    which: str, drawn: tuple[Study, Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, series = drawn
    monkeypatch.setattr("genseg_monai.dicom.segments.MAX_REGIONS", 1)
    monkeypatch.setattr("genseg_monai.dicom.structures.MAX_REGIONS", 1)
    labels, report = label_map([getattr(study, which)], series, LABELS)
    assert [error.reason for error in report.refused] == [SeriesFault.TOO_LARGE]
    assert not labels.any()


def test_nothing_stays_of_a_file_that_takes_too_long(drawn: tuple[Study, Series]) -> None:
    study, series = drawn
    labels, report = label_map([study.seg], series, LABELS, Limits(drawing_seconds=-1))
    assert [error.reason for error in report.refused] == [SeriesFault.TOO_LARGE]
    assert (report.voxels, labels.any()) == ({}, False)


@pytest.mark.parametrize("number", [0, 256, -1, True, "1"])
def test_classes_are_checked(number: Any, drawn: tuple[Study, Series]) -> None:
    study, series = drawn
    with pytest.raises(UserError, match="wanted classes from 1 to 255"):
        label_map([study.seg], series, {"liver": number})
