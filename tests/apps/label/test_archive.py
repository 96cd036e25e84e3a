"""Our own app of MONAI Label with a real archive: images by DICOMweb, labels back as DICOM SEG."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch

from benchmarks.dicom_from_nifti import write_series
from genseg_monai.apps.predict import predict
from genseg_monai.networks.universeg import UniverSeg
from tests.apps.label.server import LabelServer, genseg_label, label_python, quick_bundle, running, write_cases
from tests.bundle.tiny import PLAN_3D, make_bundle
from tests.pacs.orthanc import USER, WORD, Orthanc, start_orthanc
from tests.tools import dcmqi_segments, dicom_errors

# one server for all of them, also where the tests are shared out among processes
pytestmark = pytest.mark.xdist_group("label_archive")
PLAN = PLAN_3D | {"classes": ["background", "hippocampus"], "label_values": {0: 0, 1: 1}, "size": [32, 32, 32]}
MODALITIES = ("CT", "MR", "MR", "CT", "MR", "MR")


@dataclass
class Setting:
    """A server on an archive of six series, of which first two and then five are labelled."""

    folder: Path
    archive: Orthanc
    server: LabelServer
    series: list[str]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    label_python()
    folder = tmp_path_factory.mktemp("label")
    archive = start_orthanc(folder / "orthanc")
    try:
        names = write_cases(folder / "cases", len(MODALITIES))
        series = [
            write_series(folder / "cases" / f"{name}.nii.gz", folder / "dicom" / name, modality)
            for name, modality in zip(names, MODALITIES, strict=True)
        ]
        archive.send(folder / "dicom")
        torch.manual_seed(0)
        torch.save(UniverSeg(features=(4, 4, 4, 4)).state_dict(), folder / "universeg.pt")
        trainable = quick_bundle(folder / "quick") / "configs" / "train.yaml"
        make_bundle(folder / "bundle", PLAN)
        shutil.copy(trainable, folder / "bundle" / "configs" / "train.yaml")
        words = genseg_label(
            f"http://127.0.0.1:{archive.http}/dicom-web",
            "--bundle", str(folder / "bundle"), "--weights", str(folder / "universeg.pt"),
            "--home", str(folder / "home"),
        )  # fmt: skip
        with running(words, folder, GENSEG_PACS_USER=USER, GENSEG_PACS_PASSWORD=WORD) as server:
            yield Setting(folder, archive, server, series)
    finally:
        archive.stop()


@pytest.fixture(scope="module")
def stored(setting: Setting) -> list[Path]:
    """Upload the labels of a CT and an MR series, and return the SEG objects that are in the archive then."""
    for i in range(2):
        reply = setting.server.upload(setting.series[i], setting.folder / "cases" / "truth" / f"case{i}.nii.gz")
        assert reply.status_code == 200, reply.text
    found = []
    for one in setting.archive.rest("/series"):
        told = setting.archive.rest(f"/series/{one}")
        if told["MainDicomTags"]["Modality"] == "SEG":
            [instance] = told["Instances"]
            path = setting.folder / f"{instance}.dcm"
            path.write_bytes(setting.archive.fetch(f"/instances/{instance}/file"))
            found.append(path)
    return found


def test_series_of_both_modalities_are_offered(setting: Setting) -> None:
    assert setting.server.info()["datastore"]["total"] == len(MODALITIES)
    listed = setting.server.ask("GET", "/datastore/?output=all").json()
    assert set(listed.get("objects", listed)) <= set(setting.series)


def test_the_mask_is_that_of_predict(setting: Setting) -> None:
    mask = setting.server.mask("genseg", setting.series[3], setting.folder / "mask.nii.gz")
    [image] = (setting.folder / "home" / "dicom").glob(f"*/{setting.series[3]}.nii.gz")
    out = setting.folder / "predicted"
    shutil.rmtree(out, ignore_errors=True)
    predict(bundle=str(setting.folder / "bundle"), input=str(image), output=str(out), device="cpu")
    expected = nibabel.load(out / f"{setting.series[3]}.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(mask.affine, expected.affine, atol=1e-4)
    assert np.asarray(mask.dataobj).any()


def test_a_label_becomes_a_seg_that_conforms(setting: Setting, stored: list[Path]) -> None:
    assert len(stored) == 2
    for path in stored:
        assert dicom_errors(path) == set()
        seg = pydicom.dcmread(path)
        assert str(seg.SegmentSequence[0].SegmentLabel) == "hippocampus"
        assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue == "5366008"


def test_the_seg_holds_the_voxels_of_the_label(setting: Setting, stored: list[Path]) -> None:
    by_series = {pydicom.dcmread(p).ReferencedSeriesSequence[0].SeriesInstanceUID: p for p in stored}
    for i in range(2):
        truth = nibabel.load(setting.folder / "cases" / "truth" / f"case{i}.nii.gz")
        found = dcmqi_segments(by_series[setting.series[i]], truth.affine, setting.folder / f"back{i}")
        assert found == {"hippocampus": {tuple(int(n) for n in v) for v in np.argwhere(np.asarray(truth.dataobj))}}


def test_a_stored_label_counts_at_once(setting: Setting, stored: list[Path]) -> None:
    assert setting.server.info()["datastore"]["completed"] == 2
    reply = setting.server.ask("POST", "/activelearning/disagreement", json={})
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert answer["id"] in answer["scores"]
    assert set(answer["scores"]) == set(setting.series[2:])


def test_stored_labels_are_examples_for_universeg(setting: Setting, stored: list[Path]) -> None:
    mask = setting.server.mask("universeg", setting.series[2], setting.folder / "shown.nii.gz")
    assert mask.shape == nibabel.load(setting.folder / "cases" / "case2.nii.gz").shape


def test_the_mask_can_be_had_as_dicom_seg(setting: Setting) -> None:
    params = json.dumps({"device": "cpu", "label_info": [{"name": "hippocampus"}]})
    reply = setting.server.ask(
        "POST", f"/infer/genseg?image={setting.series[3]}&output=dicom_seg", data={"params": params}
    )
    assert reply.status_code == 200, reply.text
    path = setting.folder / "answer.dcm"
    path.write_bytes(reply.content)
    assert pydicom.dcmread(path).Modality == "SEG"


def test_an_empty_label_is_refused(setting: Setting) -> None:
    image = nibabel.load(setting.folder / "cases" / "case3.nii.gz")
    empty = setting.folder / "empty.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), empty)
    reply = setting.server.upload(setting.series[3], empty)
    assert reply.status_code == 400
    assert "wanted a label with a voxel at least" in reply.json()["detail"]


def test_labels_of_the_archive_train_and_no_patient_is_named(setting: Setting, stored: list[Path]) -> None:
    """Five labels, of which one is held out; its patient stands in no log and no table."""
    for i in range(2, 5):
        truth = setting.folder / "cases" / "truth" / f"case{i}.nii.gz"
        assert setting.server.upload(setting.series[i], truth).status_code == 200
    bundle = setting.folder / "bundle"
    before = (bundle / "models" / "model.pt").read_bytes()
    status = setting.server.train(val_split=0.2, search=False)
    assert status["status"] == "DONE", status["details"][-8:]
    assert (bundle / "models" / "model.pt").read_bytes() != before
    stats = setting.server.info()["train_stats"]["genseg"]
    assert stats["cases"]["training"] == 4
    [row] = stats["cases_scored"]
    assert row["case"] in setting.series[:5]
    patients = {str(pydicom.dcmread(path).PatientID) for path in (setting.folder / "dicom").rglob("*.dcm")}
    assert len(patients) == len(MODALITIES)
    shown = [*status["details"], str(stats), (bundle / "logs" / "train.log").read_text()]
    shown += [path.read_text() for path in (bundle / "scores").rglob("*.csv")]
    shown.append(setting.server.ask("GET", "/datastore/?output=all").text)
    assert not [patient for patient in patients if any(patient in text for text in shown)]
    told = setting.server.log.read_text()
    assert not [patient for patient in patients if f"'PatientID': '{patient}'" in told]
    assert "'PatientID': '" in told, "what MONAI Label logs of an image is looked at"
    assert setting.server.mask("genseg", setting.series[5], setting.folder / "trained.nii.gz").shape
    scores = setting.server.ask("POST", "/scoring/cases?run_sync=true", json={}).json()
    assert set(scores) == set(setting.series[:5])


@pytest.fixture(scope="module")
def other(setting: Setting, stored: list[Path]) -> Iterator[LabelServer]:
    """A server of another folder, without a trained bundle."""
    words = genseg_label(
        f"http://127.0.0.1:{setting.archive.http}/dicom-web",
        "--weights", str(setting.folder / "universeg.pt"), "--home", str(setting.folder / "other"),
    )  # fmt: skip
    folder = setting.folder / "elsewhere"
    folder.mkdir()
    with running(words, folder, GENSEG_PACS_USER=USER, GENSEG_PACS_PASSWORD=WORD) as server:
        yield server


def _fetched(server: LabelServer, series: str, file: Path) -> nibabel.Nifti1Image:
    """Return the label of a series as a server has it once it has asked the archive for labels."""
    assert server.ask("POST", "/activelearning/disagreement", json={"candidates": 1}).status_code == 200
    reply = server.ask("GET", f"/datastore/label?label={series}&tag=final").raise_for_status()
    file.write_bytes(reply.content)
    return nibabel.load(file)


def _voxels(image: nibabel.Nifti1Image) -> np.ndarray:
    return nibabel.as_closest_canonical(image).get_fdata()


def test_labels_that_are_in_the_archive_already_are_taken(setting: Setting, other: LabelServer) -> None:
    """They are fetched, and put on the grid of the images."""
    for i in range(2):
        label = _fetched(other, setting.series[i], setting.folder / f"fetched{i}.nii.gz")
        [image] = (setting.folder / "home" / "dicom").glob(f"*/{setting.series[i]}.nii.gz")
        np.testing.assert_allclose(label.affine, nibabel.load(image).affine, atol=1e-4)
        truth = nibabel.load(setting.folder / "cases" / "truth" / f"case{i}.nii.gz")
        np.testing.assert_array_equal(_voxels(label), _voxels(truth))


def test_the_newest_seg_counts_and_its_names_give_the_values(setting: Setting, other: LabelServer) -> None:
    """A writer numbers the segments anew: the second class alone is segment 1."""
    truth = nibabel.load(setting.folder / "cases" / "truth" / "case0.nii.gz")
    voxels = np.asarray(truth.dataobj).copy()
    voxels[:, :8], voxels[voxels == 1] = 0, 2
    corrected = setting.folder / "corrected.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, truth.affine), corrected)
    told = [{"name": "hippocampus", "idx": 1}, {"name": "tumour", "idx": 2}]
    reply = setting.server.upload(setting.series[0], corrected, label_info=told)
    assert reply.status_code == 200, reply.text
    for _ in range(50):  # an answer of the archive is taken again for two seconds
        label = _fetched(other, setting.series[0], setting.folder / "newest.nii.gz")
        if np.asarray(label.dataobj).max() != 1:
            break
    np.testing.assert_array_equal(_voxels(label), _voxels(nibabel.load(corrected)))


def test_a_seg_that_cannot_be_read_is_left_out_and_told(
    setting: Setting, other: LabelServer, stored: list[Path]
) -> None:
    seg = pydicom.dcmread(stored[0])
    seg.SOPInstanceUID = seg.file_meta.MediaStorageSOPInstanceUID = f"{seg.SOPInstanceUID}.1"
    seg.SeriesInstanceUID = f"{seg.SeriesInstanceUID}.1"
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = setting.series[5]
    del seg.SegmentSequence
    (setting.folder / "damaged").mkdir()
    seg.save_as(setting.folder / "damaged" / "seg.dcm")
    setting.archive.send(setting.folder / "damaged")
    for _ in range(50):  # an answer of the archive is taken again for two seconds
        assert other.infer("universeg", setting.series[5]).status_code == 200
        if "left out" in other.log.read_text():
            break
    assert f"label {seg.SeriesInstanceUID} of {setting.series[5]} left out" in other.log.read_text()
