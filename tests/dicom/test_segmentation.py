"""What is written is read back alike, by us and by a second implementation, and is valid DICOM."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from genseg_monai.dicom.annotation import label_map
from genseg_monai.dicom.segmentation import write_seg
from genseg_monai.dicom.series import Series, read_series
from genseg_monai.errors import UserError
from tests.dicom.study import LABELS, write_study

pytest.importorskip("highdicom")

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
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    series, labels, path = drawn
    mask = np.stack([labels == k for k in range(3)]).astype(np.float32) if fractional else labels
    write_seg(mask, series, CLASSES, path, fractional=fractional)
    said = subprocess.run([program, str(path)], capture_output=True, text=True, check=False).stderr
    assert "Error" not in said, said


def test_dcmqi_reads_the_same_voxels(drawn: tuple[Series, np.ndarray, Path], tmp_path: Path) -> None:
    program = shutil.which("segimage2itkimage", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("dcmqi is not installed")
    import nibabel

    series, labels, path = drawn
    write_seg(labels, series, CLASSES, path)
    out = tmp_path / "dcmqi"
    out.mkdir()
    subprocess.run(
        [program, "--inputDICOM", str(path), "--outputDirectory", str(out), "-t", "nii"],
        check=True,
        capture_output=True,
    )
    names = json.loads((out / "meta.json").read_text())["segmentAttributes"]
    assert [item["SegmentLabel"] for entry in names for item in entry] == ["liver", "tumour"]
    for number in (1, 2):
        image = nibabel.load(out / f"{number}.nii.gz")
        voxels = np.argwhere(np.asarray(image.dataobj) > 0)
        world = voxels @ image.affine[:3, :3].T + image.affine[:3, 3]
        there = (world - series.affine[:3, 3]) @ np.linalg.inv(series.affine[:3, :3]).T
        assert np.abs(there - np.rint(there)).max() < 0.02
        assert {tuple(v) for v in np.rint(there).astype(int)} == {tuple(v) for v in np.argwhere(labels == number)}


def test_wrong_use_is_told(drawn: tuple[Series, np.ndarray, Path]) -> None:
    series, labels, path = drawn
    with pytest.raises(UserError, match="wanted an array of"):
        write_seg(labels[1:], series, CLASSES, path)
    with pytest.raises(UserError, match="wanted classes 0 to 1"):
        write_seg(labels, series, CLASSES[:2], path)
    with pytest.raises(UserError, match="from 0 to 1"):
        write_seg(np.full((3, *labels.shape), 2.0), series, CLASSES, path, fractional=True)
    assert not path.exists()
