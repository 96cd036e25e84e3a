"""What is written is read back alike, by us and by a second implementation, and is valid DICOM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from genseg_monai.dicom.annotation import label_map
from genseg_monai.dicom.codes import load_codes
from genseg_monai.dicom.segmentation import write_seg
from genseg_monai.dicom.series import Series, read_series
from genseg_monai.errors import UserError
from tests.dicom.study import LABELS, write_study
from tests.tools import dcmqi_segments, dicom_errors

CLASSES = ("background", "liver", "tumour")


@pytest.fixture(params=[False, True], ids=["straight", "oblique"])
def drawn(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Series, np.ndarray, Path]:
    study = write_study(tmp_path / "study", oblique=request.param, seg=False, rtstruct=False, phi=False)
    return read_series(study.images), study.labels, tmp_path / "out" / "seg.dcm"


@pytest.mark.parametrize("omit", [True, False])
def test_binary_round_trip(omit: bool, drawn: tuple[Series, np.ndarray, Path]) -> None:
    series, labels, path = drawn
    assert write_seg(labels, series, CLASSES, path, omit_empty_frames=omit) == path
    again, report = label_map([path], series, LABELS)
    np.testing.assert_array_equal(again, labels)
    assert not report.refused
    assert (int(pydicom.dcmread(path).NumberOfFrames) == 2 * labels.shape[2]) is not omit
    assert sorted(file.name for file in path.parent.iterdir()) == ["seg.dcm"]


def test_fractional_round_trip(drawn: tuple[Series, np.ndarray, Path]) -> None:
    series, labels, path = drawn
    probabilities = np.stack([(labels == k) * 0.6 + 0.1 for k in range(3)]).astype(np.float32)
    write_seg(probabilities, series, CLASSES, path, fractional=True)
    data = pydicom.dcmread(path)
    assert data.SegmentationType == "FRACTIONAL"
    assert data.SegmentationFractionalType == "PROBABILITY"
    assert set(np.unique(data.pixel_array)) <= {round(0.1 * 255), round(0.7 * 255), round(0.7 * 255) + 1}
    np.testing.assert_array_equal(label_map([path], series, LABELS)[0], labels)


def test_segments_are_described_and_refer_to_their_images(drawn: tuple[Series, np.ndarray, Path]) -> None:
    series, labels, path = drawn
    write_seg(labels, series, CLASSES, path)
    data = pydicom.dcmread(path)
    assert [item.SegmentLabel for item in data.SegmentSequence] == ["liver", "tumour"]
    for item in data.SegmentSequence:
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "GenSeg"
        assert len(item.RecommendedDisplayCIELabValue) == 3
        assert item.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    referred = {
        source.ReferencedSOPInstanceUID
        for frame in data.PerFrameFunctionalGroupsSequence
        for source in frame.DerivationImageSequence[0].SourceImageSequence
    }
    assert referred <= set(series.sop_instances)
    assert data.StudyInstanceUID == series.uids["study"]
    assert data.FrameOfReferenceUID == series.uids["frame_of_reference"]


def test_an_empty_mask(drawn: tuple[Series, np.ndarray, Path]) -> None:
    series, labels, path = drawn
    write_seg(np.zeros_like(labels), series, CLASSES, path)
    again, report = label_map([path], series, LABELS)
    assert not again.any()
    assert report.empty == ["liver", "tumour"]


@pytest.mark.parametrize("fractional", [False, True])
def test_dciodvfy_finds_no_error(fractional: bool, drawn: tuple[Series, np.ndarray, Path]) -> None:
    series, labels, path = drawn
    mask = np.stack([labels == k for k in range(3)]).astype(np.float32) if fractional else labels
    write_seg(mask, series, CLASSES, path, fractional=fractional)
    assert dicom_errors(path) == set()


def test_dcmqi_reads_the_same_voxels(drawn: tuple[Series, np.ndarray, Path], tmp_path: Path) -> None:
    series, labels, path = drawn
    write_seg(labels, series, CLASSES, path)
    found = dcmqi_segments(path, series.affine, tmp_path / "dcmqi")
    assert found == {name: {tuple(v) for v in np.argwhere(labels == k)} for name, k in LABELS.items()}


def test_codes_of_the_user(drawn: tuple[Series, np.ndarray, Path]) -> None:
    series, labels, path = drawn
    said = {"tumour": {"type": "4147007 SCT Mass", "region": "10200004 SCT Liver", "colour": [255, 0, 0]}}
    write_seg(labels, series, CLASSES, path, meanings=load_codes(said, CLASSES))
    liver, tumour = pydicom.dcmread(path).SegmentSequence
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Liver"
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeValue == "4147007"
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Morphologically Altered Structure"
    assert tumour.AnatomicRegionSequence[0].CodeValue == "10200004"
    lightness, a, b = tumour.RecommendedDisplayCIELabValue  # of red: 53, 80, 67
    assert (round(lightness / 655.35), round(a / 257 - 128), round(b / 257 - 128)) == (53, 80, 67)
    assert dicom_errors(path) == set()


def test_a_radiograph_needs_no_frame_of_reference(tmp_path: Path, real_data: Path) -> None:
    series = read_series(real_data / "dicom" / "dicomdir_tree" / "77654033" / "CR1" / "6154")
    mask = np.zeros(series.array.shape, np.uint8)
    mask[2:9, 5:7] = 1
    write_seg(mask, series, ("background", "lung"), tmp_path / "seg.dcm")
    held = pydicom.dcmread(tmp_path / "seg.dcm")
    assert held.ReferencedSeriesSequence[0].SeriesInstanceUID == series.uids["series"]
    np.testing.assert_array_equal(held.pixel_array.squeeze().T, mask[..., 0])


@pytest.mark.parametrize("name", ["study", "series", "frame_of_reference"])
def test_series_without_uids_are_refused(name: str, drawn: tuple[Series, np.ndarray, Path]) -> None:
    series, labels, path = drawn
    poor = replace(series, uids={**series.uids, name: ""})
    with pytest.raises(UserError, match=f"they have no {name.replace('_', '-')} UID"):
        write_seg(labels, poor, CLASSES, path)
    assert not path.exists()


def test_wrong_use_is_told(drawn: tuple[Series, np.ndarray, Path]) -> None:
    series, labels, path = drawn
    with pytest.raises(UserError, match="wanted an array of"):
        write_seg(labels[1:], series, CLASSES, path)
    with pytest.raises(UserError, match="wanted classes 0 to 1"):
        write_seg(labels, series, CLASSES[:2], path)
    with pytest.raises(UserError, match="from 0 to 1"):
        write_seg(np.full((3, *labels.shape), 2.0), series, CLASSES, path, fractional=True)
    assert not path.exists()
