"""From a real archive to a data set: all routes alike, and no identifier anywhere."""

from __future__ import annotations

import gzip
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pydicom
import pytest

from genseg_monai.dicom.audit import verify_audit
from genseg_monai.dicom.uids import Key
from genseg_monai.errors import UserError
from genseg_monai.pacs.dicomweb import WebArchive
from genseg_monai.pacs.dimse import DimseArchive
from genseg_monai.pacs.pull import look, pull
from genseg_monai.pacs.records import Query
from genseg_monai.pacs.rules import Rule, Rules
from tests.dicom.enhanced import make_enhanced
from tests.dicom.study import LABELS, Study, write_study
from tests.pacs.orthanc import Orthanc
from tests.pacs.pulling import KEY, YEAR, lines, run, tree


def test_all_routes_give_the_same_data_set(archive: Orthanc, studies: list[Study], tmp_path: Path) -> None:
    archive.send(studies[0].folder)
    done = {route: run(archive, tmp_path / route, route) for route in ("c-get", "c-move", "dicomweb")}
    trees = {route: tree(tmp_path / route) for route in done}
    for held in trees.values():
        # made of the sizes of the raw files, which hold another group 2 on each route
        del held[".genseg/done.jsonl"]
    assert trees["c-get"] == trees["c-move"] == trees["dicomweb"]
    for route, result in done.items():
        out = tmp_path / route
        assert (result.labelled, result.unlabelled, result.failed) == (3, 0, {})
        assert result.choice.passed == 4  # the shorter series of the first patient lost
        assert not list(tmp_path.glob(".*.spool"))
        assert verify_audit(out / "audit.jsonl", KEY) == (True, "")
        assert sum(line["new"] for line in lines(out, "retrieved")) == 8 + 9 + 7 + len(lines(out, "retrieved")) - 3
    # the volumes are those that were drawn
    out = tmp_path / "c-get"
    found = {np.asarray(nib.load(path).dataobj).shape[2]: path for path in (out / "imagesTr").iterdir()}
    assert sorted(found) == [7, 8, 9]
    for study in studies[:3]:
        path = found[study.volume.shape[2]]
        image, label = nib.load(path), nib.load(out / "labelsTr" / path.name)
        np.testing.assert_array_equal(np.asarray(image.dataobj), study.volume)
        np.testing.assert_allclose(image.affine, study.affine, atol=1e-4)
        if study.seg:
            np.testing.assert_array_equal(np.asarray(label.dataobj), study.labels)
        assert set(np.unique(np.asarray(label.dataobj))) == {0, 1, 2}


def test_the_data_set_is_what_train_reads(archive: Orthanc, studies: list[Study], tmp_path: Path) -> None:
    from genseg_monai.data import find_cases

    archive.send(studies[0].folder)
    run(archive, tmp_path / "out")
    cases = find_cases(tmp_path / "out")
    assert len(cases) == 3
    assert all(Path(case["image"]).is_file() and Path(case["label"]).is_file() for case in cases)
    assert len({case["group"] for case in cases}) == 3


@pytest.mark.parametrize("route", ["c-get", "dicomweb"])
def test_no_identifier_is_left(
    archive: Orthanc, studies: list[Study], tmp_path: Path, route: str, caplog: pytest.LogCaptureFixture
) -> None:
    archive.send(studies[0].folder)
    caplog.set_level("DEBUG")
    out = tmp_path / "out"
    result = run(archive, out, route)
    secrets = {s.encode() for study in studies for s in study.secrets}
    secrets |= {s.encode("utf-16-le") for s in secrets for s in [s.decode()]}
    for path in out.rglob("*"):
        assert not any(s.decode("latin-1") in str(path.relative_to(out)) for s in secrets)
        if path.is_file():
            content = path.read_bytes()
            content += gzip.decompress(content) if path.suffix == ".gz" else b""
            assert not [s for s in secrets if s in content], path
    told = (caplog.text + repr(result)).encode()
    assert not [s for s in secrets if s in told]


def test_dry_run_only_reports(archive: Orthanc, studies: list[Study], tmp_path: Path) -> None:
    archive.send(studies[0].folder)
    before = tree(tmp_path)
    with DimseArchive(archive.settings()) as peer:
        choice = look(peer, YEAR, Rules("all", (Rule(modality="CT", orientation="axial", thickness=(0, 3)),), "all"))
    assert tree(tmp_path) == before
    # the second patient's series is oblique by 20 degrees: axial within 30
    assert (choice.studies, choice.passed) == (3, 4)
    assert choice.seen == {"CT": 4, "SEG": 3, "RTSTRUCT": 4}
    assert sum(len(one.images.instances) for one in choice.wanted) == 8 + 9 + 7 + 5


@pytest.mark.parametrize("route", ["c-get", "c-move", "dicomweb"])
def test_rules_that_need_headers(archive: Orthanc, studies: list[Study], route: str, monkeypatch) -> None:
    """An archive that tells nothing of its instances: one of each series is looked at instead."""
    archive.send(studies[0].folder)
    settings = archive.settings()
    thin, thick = (
        Rules("all", (Rule(thickness=r, orientation="axial", image_type=("ORIGINAL",)),)) for r in ((2, 3), (4, 9))
    )
    with WebArchive(settings) if route == "dicomweb" else DimseArchive(settings, route) as peer:
        monkeypatch.setattr(type(peer), "facts", lambda *_: {})
        assert look(peer, YEAR, thin).passed == 4
        assert look(peer, YEAR, thick).passed == 0


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("route", ["c-get", "dicomweb"])
def test_an_enhanced_series_has_as_many_slices_as_frames(
    archive: Orthanc, tmp_path: Path, route: str, told: bool, monkeypatch
) -> None:
    """The scout has three instances, the enhanced one a single instance of eight frames; the archive tells or not."""
    scout = write_study(tmp_path / "in", slices=3, phi=False, seg=False, rtstruct=False)
    drawn = write_study(tmp_path / "drawn", slices=8, series=2, phi=False, seg=False, rtstruct=False)
    slices = [pydicom.dcmread(path) for path in drawn.images]
    enhanced = make_enhanced(slices, range(8))
    enhanced.file_meta.MediaStorageSOPClassUID = enhanced.SOPClassUID
    enhanced.file_meta.MediaStorageSOPInstanceUID = enhanced.SOPInstanceUID
    enhanced.PatientID, enhanced.StudyDate = slices[0].PatientID, slices[0].StudyDate
    enhanced.save_as(tmp_path / "in" / "enhanced.dcm", enforce_file_format=True)
    assert enhanced.StudyInstanceUID == pydicom.dcmread(scout.images[0]).StudyInstanceUID
    archive.send(tmp_path / "in")
    with WebArchive(archive.settings()) if route == "dicomweb" else DimseArchive(archive.settings(), route) as peer:
        if not told:
            monkeypatch.setattr(type(peer), "facts", lambda *_: {})
        best = look(peer, YEAR, Rules(keep="best")).wanted
        many = look(peer, YEAR, Rules("all", (Rule(slices=(5, 99)),))).wanted
    assert [one.images.series_uid for one in best] == [enhanced.SeriesInstanceUID]
    assert [one.images.series_uid for one in many] == [enhanced.SeriesInstanceUID]


class _Declining(httpx.HTTPTransport):
    """The real archive, except for one path: it answers that this is not there."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.asked = path, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(self.path):
            self.asked += 1
            return httpx.Response(404)
        return super().handle_request(request)


def test_a_series_that_is_not_there_does_not_end_the_pull(
    archive: Orthanc, studies: list[Study], tmp_path: Path
) -> None:
    archive.send(studies[0].folder)
    lost = pydicom.dcmread(studies[1].images[0]).SeriesInstanceUID
    transport = _Declining(f"/series/{lost}")
    with WebArchive(archive.settings(), transport) as peer:
        done = pull(peer, YEAR, tmp_path / "out", key=KEY, labels=LABELS, rules=Rules(keep="best"))
    assert (done.labelled, done.failed) == (2, {"declined": 1})
    assert transport.asked == 1  # asking again would not help


def test_rules_without_metadata_of_instances(archive: Orthanc, studies: list[Study]) -> None:
    archive.send(studies[0].folder)
    with WebArchive(archive.settings(), _Declining("/metadata")) as peer:
        choice = look(peer, YEAR, Rules("all", (Rule(thickness=(2, 3)),)))
    assert (choice.passed, choice.failed) == (4, {})


def test_unrelated_annotations_are_left_out(archive: Orthanc, studies: list[Study], tmp_path: Path) -> None:
    """The first study has two image series, each with its own SEG and RTSTRUCT: only those of the chosen one count."""
    archive.send(studies[0].folder)
    query = Query(patient_id=(studies[0].patient_id,))
    one = run(archive, tmp_path / "one", query=query)
    assert (one.labelled, one.refused) == (1, {})
    both = run(archive, tmp_path / "both", query=query, rules=Rules(keep="all"))
    assert (both.labelled, both.refused) == (2, {})


def test_another_key_or_other_labels_are_refused(archive: Orthanc, studies: list[Study], tmp_path: Path) -> None:
    archive.send(studies[0].folder)
    query = Query(patient_id=(studies[0].patient_id,))
    out = tmp_path / "out"
    run(archive, out, query=query)
    with pytest.raises(UserError, match="key"):
        run(archive, out, query=query, key=Key(bytes(32)))
    with pytest.raises(UserError, match="labels"):
        run(archive, out, labels={"liver": 2})


def test_a_missing_slice_is_filled_where_asked_for(archive: Orthanc, tmp_path: Path) -> None:
    study = write_study(tmp_path / "in", slices=7, phi=False, seg=False, rtstruct=False)
    study.images[3].unlink()
    archive.send(tmp_path / "in")
    assert run(archive, tmp_path / "strict").refused == {"missing_slice": 1}
    filled = run(archive, tmp_path / "filled", gaps="fill")
    assert (filled.unlabelled, filled.refused) == (1, {})
    assert nib.load(next((tmp_path / "filled" / "imagesTs").iterdir())).shape[2] == 7
    with pytest.raises(UserError, match="same geometry"):  # and not a silence: the series counts as done
        run(archive, tmp_path / "strict", gaps="fill")


def test_a_series_with_a_broken_file_is_refused(archive: Orthanc, tmp_path: Path) -> None:
    """The last slice is cut off: without it the volume would be one slice short and look whole."""
    study = write_study(tmp_path / "study", slices=6, phi=False)
    last = max(study.images, key=lambda p: int(p.stem.split("_")[-1]))
    short = pydicom.dcmread(last)
    short.PixelData = short.PixelData[:-900]
    short.save_as(last)
    good = write_study(tmp_path / "study", slices=5, phi=False, patient=2)
    archive.send(tmp_path / "study")
    listed = archive.rest("/statistics")["CountInstances"]
    result = run(archive, tmp_path / "out")
    assert listed == 6 + 2 + 5 + 2
    assert result.labelled == 1
    assert result.refused == {"truncated": 1}
    assert "truncated" in (tmp_path / "out" / "quarantine.csv").read_text()
    assert good.labels.any()
    assert tree(tmp_path / "out").keys() >= {"manifest.json", "dataset.json", "cases.csv"}
