"""`genseg predict --dicom-seg`: masks that go back to the archive the images came from."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from genseg_monai.__main__ import main
from genseg_monai.dicom.annotation import label_map
from genseg_monai.dicom.series import read_series
from tests.bundle.tiny import PLAN_2D, PLAN_3D, make_bundle
from tests.dicom.study import Study, write_study
from tests.tools import dcmqi_segments, dicom_errors

CLASSES = {"organ": 1, "lesion": 2}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "ct", PLAN_3D)


def _study(folder: Path, **kinds: object) -> Study:
    return write_study(folder, seg=False, rtstruct=False, phi=False, **kinds)


def _predict(bundle: Path, source: Path, out: Path, *more: str) -> int:
    words = ["--bundle", str(bundle), "--input", str(source), "--output", str(out), "--device", "cpu"]
    return main(["predict", *words, *more])


@pytest.mark.parametrize("oblique", [False, True])
def test_the_seg_holds_the_mask_and_refers_to_its_images(
    bundle: Path, tmp_path: Path, oblique: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _study(tmp_path / "study", oblique=oblique).images[0].parent
    assert _predict(bundle, folder, tmp_path / "out", "--dicom-seg") == 0
    assert capsys.readouterr().out == f"1 mask written to {tmp_path / 'out'}, as DICOM SEG too\n"
    seg, mask = sorted((tmp_path / "out").iterdir())
    assert (seg.name, mask.name) == (f"{folder.name}.dcm", f"{folder.name}.nii.gz")
    wanted = np.asarray(nibabel.load(mask).dataobj)
    assert {1, 2} <= set(np.unique(wanted)), "nothing to compare"
    series = read_series(folder)
    again, report = label_map([seg], series, CLASSES)
    np.testing.assert_array_equal(again, wanted)
    assert not report.refused
    held = pydicom.dcmread(seg)
    assert held.SegmentationType == "BINARY"
    assert held.StudyInstanceUID == series.uids["study"]
    [referred] = held.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == series.uids["series"]
    assert {one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence} <= set(series.sop_instances)
    assert dicom_errors(seg) == set()
    found = dcmqi_segments(seg, series.affine, tmp_path / "dcmqi")
    assert found == {name: {tuple(v) for v in np.argwhere(wanted == k)} for name, k in CLASSES.items()}


def test_probabilities_and_codes(bundle: Path, tmp_path: Path) -> None:
    folder = _study(tmp_path / "study").images[0].parent
    (tmp_path / "codes.yaml").write_text("organ: {type: 10200004 SCT Liver, colour: [200, 100, 50]}\n")
    more = ["--dicom-seg", "--fractional", "--codes", str(tmp_path / "codes.yaml")]
    assert _predict(bundle, folder, tmp_path / "out", *more) == 0
    held = pydicom.dcmread(tmp_path / "out" / f"{folder.name}.dcm")
    assert (held.SegmentationType, held.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    organ, lesion = held.SegmentSequence
    assert organ.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert lesion.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    assert len(np.unique(held.pixel_array)) > 3
    assert dicom_errors(tmp_path / "out" / f"{folder.name}.dcm") == set()


def test_probabilities_are_tempered_and_masks_are_not(bundle: Path, tmp_path: Path) -> None:
    folder = _study(tmp_path / "study").images[0].parent
    shutil.copytree(bundle, tmp_path / "tempered")
    (tmp_path / "tempered" / "models" / "calibration").mkdir()
    (tmp_path / "tempered" / "models" / "calibration" / "temperature.json").write_text('{"temperature": 0.5}')
    found = {}
    for name, one in (("plain", bundle), ("tempered", tmp_path / "tempered")):
        assert _predict(one, folder, tmp_path / name / "out", "--dicom-seg", "--fractional") == 0
        held = pydicom.dcmread(tmp_path / name / "out" / f"{folder.name}.dcm")
        found[name] = held.pixel_array.reshape(2, -1, held.Rows, held.Columns) / held.MaximumFractionalValue
    masks = [(tmp_path / name / "out" / f"{folder.name}.nii.gz") for name in found]
    np.testing.assert_array_equal(*(np.asarray(nibabel.load(path).dataobj) for path in masks))
    p = np.concatenate([1 - found["plain"].sum(0, keepdims=True), found["plain"]]).clip(0, 1)
    wanted = (p**2 / (p**2).sum(0))[1:]  # p^(1/T)
    assert np.abs(found["tempered"] - found["plain"]).max() > 0.02
    np.testing.assert_allclose(found["tempered"], wanted, atol=0.02)


def test_several_series_in_one_folder(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    studies = [_study(tmp_path / "studies", patient=n, slices=6 + n, seed=n) for n in (1, 2)]
    for study in studies:
        for path in study.images:
            shutil.copy(path, folder)
    assert _predict(bundle, folder, tmp_path / "out", "--dicom-seg") == 0
    for n, study in enumerate(studies, 1):
        series = read_series(study.images)
        mask = nibabel.load(tmp_path / "out" / f"in_{n}.nii.gz")
        again, _ = label_map([tmp_path / "out" / f"in_{n}.dcm"], series, CLASSES)
        np.testing.assert_array_equal(again, np.asarray(mask.dataobj))


def test_a_single_radiograph(tmp_path: Path, real_data: Path) -> None:
    bundle = make_bundle(tmp_path / "b", PLAN_2D)
    source = real_data / "dicom" / "dicomdir_tree" / "77654033" / "CR1" / "6154"
    assert _predict(bundle, source, tmp_path / "out", "--dicom-seg") == 0
    mask = np.asarray(nibabel.load(tmp_path / "out" / "6154.nii.gz").dataobj)
    held = pydicom.dcmread(tmp_path / "out" / "6154.dcm")
    assert 0 < (mask == 1).sum() < mask.size, "nothing to compare"
    np.testing.assert_array_equal(held.pixel_array.squeeze(), mask.squeeze() == 1)


def test_what_is_no_series_is_refused_before_the_work(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((20, 20, 9), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    assert _predict(bundle, tmp_path / "scan.nii.gz", tmp_path / "out", "--dicom-seg") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"genseg: {tmp_path / 'scan.nii.gz'}: wanted a DICOM series to write a DICOM SEG for, got")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    assert _predict(bundle, tmp_path, tmp_path / "out", "--dicom-seg") == 2
    assert "and 1 more that are none; leave out --dicom-seg" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("keyword", "name"), [("StudyInstanceUID", "study"), ("FrameOfReferenceUID", "frame-of-ref")])
def test_series_without_uids(
    bundle: Path, tmp_path: Path, keyword: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = _study(tmp_path / "study")
    for path in study.images:
        data = pydicom.dcmread(path)
        delattr(data, keyword)
        data.save_as(path)
    folder = study.images[0].parent
    assert _predict(bundle, folder, tmp_path / "out", "--dicom-seg") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"genseg: {folder}: wanted a series that a DICOM SEG can refer to, it has no {name}")
    assert not (tmp_path / "out").exists()
    assert _predict(bundle, folder, tmp_path / "out") == 0, "a mask alone needs none"


def test_broken_series_are_told_and_the_rest_goes_on(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = (_study(tmp_path / "in" / name, patient=n) for n, name in enumerate(("good", "bad"), 1))
    bad.images[3].unlink()
    for study, name in ((good, "good"), (bad, "bad")):
        study.images[0].parent.rename(tmp_path / "in" / f"{name}_series")
    assert _predict(bundle, tmp_path / "in", tmp_path / "out", "--dicom-seg") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good_series.dcm", "good_series.nii.gz"]
    assert "1 of 2 inputs failed" in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _study(tmp_path / "study").images[0].parent
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{folder.name}.dcm").write_bytes(b"mine")
    assert _predict(bundle, folder, out, "--dicom-seg") == 2
    assert "there is a mask already" in capsys.readouterr().err
    assert (out / f"{folder.name}.dcm").read_bytes() == b"mine"
    assert _predict(bundle, folder, out, "--dicom-seg", "--overwrite") == 0
    assert pydicom.dcmread(out / f"{folder.name}.dcm").Modality == "SEG"


def test_an_image_is_never_overwritten(tmp_path: Path, real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "b", PLAN_2D)
    source = tmp_path / "xray.dcm"
    shutil.copy(real_data / "dicom" / "dicomdir_tree" / "77654033" / "CR1" / "6154", source)
    before = source.read_bytes()
    assert _predict(bundle, source, tmp_path, "--dicom-seg", "--overwrite") == 2
    assert "an image is there; choose another output folder" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_wrong_use(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _study(tmp_path / "study").images[0].parent
    for more, told in [
        (["--fractional"], "--fractional: goes with --dicom-seg"),
        (["--codes", "codes.yaml"], "--codes: goes with --dicom-seg"),
        (["--dicom-seg", "--codes", str(tmp_path / "none.yaml")], f"{tmp_path / 'none.yaml'}: wanted a readable YAML"),
    ]:
        assert _predict(bundle, folder, tmp_path / "out", *more) == 2
        assert capsys.readouterr().err.startswith(f"genseg: {told}")
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "b", PLAN_3D)
    config = bundle / "configs" / "inference.yaml"
    config.write_text(config.read_text().replace("\ndicom_seg: null", "\nother: null").replace("@dicom_seg", "@other"))
    assert _predict(bundle, _study(tmp_path / "study").images[0].parent, tmp_path / "out", "--dicom-seg") == 2
    assert "has no dicom_seg" in capsys.readouterr().err
