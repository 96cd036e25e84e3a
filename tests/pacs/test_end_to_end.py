"""The whole way, typed as a user types it: archive -> data set -> training -> prediction -> archive."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import yaml

from genseg_monai.__main__ import main
from genseg_monai.dicom.annotation import label_map
from genseg_monai.dicom.series import read_series
from genseg_monai.dicom.uids import Key
from tests.dicom.leaks import find_leaks
from tests.dicom.study import LABELS, write_study
from tests.pacs.orthanc import USER, WORD, Orthanc
from tests.tools import dcmqi_segments, dicom_errors

SHORT: dict[str, object] = {  # two steps of each level, of networks as small as they come
    "max_epochs": 1,
    "epoch_length": 6,
    "rehearse": False,
    "outer_after": 0,
    "baselines": "[]",
    "generator_width": 2,
    "discriminator_width": 4,
    "batch_size": 1,
    "size": "[32,32,32]",
}


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0, words[0]


@pytest.mark.slow
def test_archive_to_data_set_to_model_to_archive(
    archive: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow because it trains; its parts have tests of their own."""
    monkeypatch.setenv("GENSEG_PACS_USER", USER)
    monkeypatch.setenv("GENSEG_PACS_PASSWORD", WORD)
    settings = archive.settings()
    named = ("host", "port", "called_aet", "aet", "move_port", "dicomweb")
    (tmp_path / "pacs.yaml").write_text(yaml.safe_dump({name: getattr(settings, name) for name in named}))
    (tmp_path / "labels.yaml").write_text(yaml.safe_dump(LABELS))
    Key.create(tmp_path / "key")
    studies = [write_study(tmp_path / "hospital", patient=n, slices=8 + n, seed=n) for n in range(4)]
    new = write_study(tmp_path / "new", patient=9, slices=9, seed=9, seg=False, rtstruct=False, oblique=True)
    archive.send(tmp_path / "hospital")
    archive.send(tmp_path / "new")

    pacs, data, model, masks = ("--pacs", tmp_path / "pacs.yaml"), *(tmp_path / n for n in ("data", "model", "masks"))
    run("pacs-check", *pacs)
    labels = ("--labels", tmp_path / "labels.yaml", "--key-file", tmp_path / "key")
    run("pull", *pacs, "--out", data, "--route", "dicomweb", "--date", "20240101-20241231", "--modality", "CT", *labels)
    run("train", "--data", data, "--out", model, "--device", "cpu", *(f"--{k}={v}" for k, v in SHORT.items()))
    series = new.images[0].parent
    run("predict", "--bundle", model, "--input", series, "--output", masks, "--device", "cpu", "--dicom-seg")
    run("push", masks, *pacs, "--route", "c-store")

    secrets = {secret for study in (*studies, new) for secret in study.secrets}
    assert find_leaks(data, secrets) == []
    assert find_leaks(model, secrets) == []
    seg = tmp_path / "returned.dcm"
    seg.write_bytes(found_in(archive, masks / f"{series.name}.dcm"))
    images = read_series(series)
    mask = np.asarray(nibabel.load(masks / f"{series.name}.nii.gz").dataobj)
    assert mask.any(), "nothing to compare"
    again, report = label_map([seg], images, LABELS)
    np.testing.assert_array_equal(again, mask)
    assert (report.unknown, report.refused, report.absent) == ([], [], 0)
    held = pydicom.dcmread(seg)
    assert held.StudyInstanceUID == images.uids["study"]
    assert [one.SeriesInstanceUID for one in held.ReferencedSeriesSequence] == [images.uids["series"]]
    assert dicom_errors(seg) == set()
    voxels = dcmqi_segments(seg, images.affine, tmp_path / "dcmqi")
    wanted = {name: {tuple(v) for v in np.argwhere(mask == number)} for name, number in LABELS.items()}
    assert voxels == {name: places for name, places in wanted.items() if places}


def found_in(archive: Orthanc, sent: Path) -> bytes:
    """Return what the archive holds of an object that was sent."""
    [found] = archive.rest("/tools/lookup", "POST", str(pydicom.dcmread(sent).SOPInstanceUID).encode())
    assert found["Type"] == "Instance"
    series = archive.rest(f"/instances/{found['ID']}/series")
    assert series["MainDicomTags"]["Modality"] == "SEG"
    study = archive.rest(f"/instances/{found['ID']}/study")
    assert len(study["Series"]) == 2, "the segmentation lies in the study of its images"
    return archive.fetch(f"/instances/{found['ID']}/file")
