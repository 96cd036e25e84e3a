"""Query and retrieve against a real archive, over DIMSE and DICOMweb."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pynetdicom import evt

from genseg_monai.dicom.series import read_series
from genseg_monai.pacs.dicomweb import WebArchive
from genseg_monai.pacs.dimse import DimseArchive
from genseg_monai.pacs.faults import ArchiveError, NetFault
from genseg_monai.pacs.inbox import Inbox
from genseg_monai.pacs.records import Query, SeriesRecord
from genseg_monai.pacs.retrieve import fetch
from genseg_monai.pacs.settings import Credentials, PacsSettings
from genseg_monai.pacs.spool import Spool
from genseg_monai.pacs.wire import Line
from tests.dicom.htj2k import CODESTREAMS, image
from tests.dicom.slices import make_slices, write_slices
from tests.dicom.study import Study, write_study
from tests.pacs.hostile import dimse_archive, settings_of
from tests.pacs.orthanc import Orthanc, free_port

ROUTES = ["c-get", "c-move", "dicomweb"]


Connect = Callable[[PacsSettings, str], DimseArchive | WebArchive]


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:
        yield lambda settings, route: stack.enter_context(
            WebArchive(settings) if route == "dicomweb" else DimseArchive(settings, route)
        )


def listed(archive: DimseArchive | WebArchive, query: Query) -> list[SeriesRecord]:
    return [one for study in archive.studies(query) for one in archive.series(study)]


def with_instances(archive: DimseArchive | WebArchive, series: SeriesRecord) -> SeriesRecord:
    return replace(series, instances=archive.instances(series))


@pytest.mark.parametrize("route", ROUTES)
def test_echo(archive: Orthanc, route: str, connect: Connect) -> None:
    assert 0 < connect(archive.settings(), route).echo() < 5


@pytest.mark.parametrize("route", ["c-get", "dicomweb"])
def test_query(archive: Orthanc, study: Study, route: str, connect: Connect) -> None:
    archive.send(study.folder)
    peer = connect(archive.settings(), route)
    found = {one.modality: one for one in listed(peer, Query(patient_id=(study.patient_id,)))}
    assert set(found) == {"CT", "SEG", "RTSTRUCT"}
    assert found["CT"].count == len(study.images)
    assert found["CT"].description == "Liver portal venous 3mm"
    instances = peer.instances(found["CT"])
    assert [one.number for one in instances] == list(range(1, len(study.images) + 1))
    assert {one.sop_class for one in instances} == {"1.2.840.10008.5.1.4.1.1.2"}
    facts = peer.facts(found["CT"], instances[0].uid)
    assert [float(v) for v in facts["ImageOrientationPatient"]] == [1, 0, 0, 0, 1, 0]
    assert float(facts["SliceThickness"]) == 2.5
    assert facts["ImageType"][0] == "ORIGINAL"
    for query in (
        Query(accession=("nobody",)),
        Query(patient_id=("nobody",)),
        Query(date="19990101-19991231"),
        Query(study_uid=("1.2.3",)),
        Query(modality=("MG",)),
    ):
        assert peer.studies(query) == []
    first = found["CT"]
    for query in (
        Query(date="20240101-20241231", modality=("CT",)),
        Query(study_uid=("1.2.3", first.study_uid)),
        Query(series_uid=(first.series_uid,)),
        Query(patient_id=("nobody", study.patient_id)),
        Query(modality=("CT",)),
        Query(description="*portal*"),
        Query(series_uid=(first.series_uid,), modality=("MR",)),  # of the series, which `accepts` looks at
    ):
        assert peer.studies(query) == [first.study_uid]


def other_queries() -> list[Query]:
    """Return queries that no study of the tests fits."""
    return [
        Query(study_uid=("1.2.3",)),
        Query(series_uid=("1.2.3",)),
        Query(patient_id=("nobody",)),
        Query(accession=("nobody",)),
        Query(date="20250101-"),
        Query(date="-20231231"),
        Query(date="19990101"),
    ]


class _Forgetful(httpx.HTTPTransport):
    """The real archive, asked for everything whatever the question was."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(query=None)
        return super().handle_request(request)


def test_web_answers_that_were_not_asked_for(archive: Orthanc, study: Study) -> None:
    archive.send(study.folder)
    one = pydicom.dcmread(study.images[0])
    with WebArchive(archive.settings(), _Forgetful()) as peer:
        for query in other_queries():
            assert peer.studies(query) == [], query
        assert peer.studies(Query(patient_id=(study.patient_id,), date=one.StudyDate)) == [one.StudyInstanceUID]


@pytest.mark.parametrize("route", ROUTES)
def test_retrieve_gives_the_same_objects(
    archive: Orthanc, study: Study, route: str, tmp_path: Path, connect: Connect
) -> None:
    archive.send(study.folder)
    settings = archive.settings()
    peer = connect(settings, route)
    sent = {pydicom.dcmread(p).SOPInstanceUID: p for p in (*study.images, study.seg, study.rtstruct)}
    got = {}
    for number, one in enumerate(listed(peer, Query(patient_id=(study.patient_id,)))):
        series = with_instances(peer, one)
        folder = tmp_path / str(number)
        folder.mkdir()
        inbox = Inbox(series, folder, settings.limits, route)
        peer.retrieve(series, inbox)
        inbox.check_complete()
        assert inbox.complete
        assert inbox.received == one.count
        got |= {pydicom.dcmread(p).SOPInstanceUID: p for p in folder.iterdir()}
    assert got.keys() == sent.keys()
    for uid, path in got.items():
        mine, theirs = pydicom.dcmread(path), pydicom.dcmread(sent[uid])
        assert mine.PixelData == theirs.PixelData if "PixelData" in theirs else mine.Modality == "RTSTRUCT"


@pytest.mark.parametrize("route", ROUTES)
def test_rest_of_a_series_is_fetched_alone(
    archive: Orthanc, study: Study, route: str, tmp_path: Path, connect: Connect
) -> None:
    archive.send(study.folder)
    settings = archive.settings()
    peer = connect(settings, route)
    query = Query(patient_id=(study.patient_id,))
    series = next(with_instances(peer, s) for s in listed(peer, query) if s.modality == "CT")
    first = Inbox(series, tmp_path, settings.limits, route)
    peer.retrieve(series, first)
    stamps = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for name in sorted(stamps)[:3]:
        (tmp_path / name).unlink()
        del stamps[name]
    again = Inbox(series, tmp_path, settings.limits, route)
    assert len(again.missing()) == 3
    peer.retrieve(series, again)
    again.check_complete()
    assert again.received == 3
    assert again.bytes < first.bytes / 2
    for name, stamp in stamps.items():
        assert (tmp_path / name).stat().st_mtime_ns == stamp


def test_wrong_titles_are_refused(archive: Orthanc) -> None:
    for change in ({"aet": "STRANGER"}, {"called_aet": "NOBODY"}):
        with pytest.raises(ArchiveError, match="refused") as caught:
            DimseArchive(archive.settings(**change)).echo()
        assert caught.value.reason is NetFault.REJECTED


def test_a_refusal_that_comes_at_once_is_told_as_one(archive: Orthanc) -> None:
    """The connection is closed again before pynetdicom looks whether it was opened."""
    late = [(evt.EVT_REQUESTED, lambda _: time.sleep(0.3))]
    with pytest.raises(ArchiveError, match="refused") as caught:
        Line(archive.settings(aet="STRANGER"), "c-echo", ["1.2.840.10008.1.1"], handlers=late)
    assert caught.value.reason is NetFault.REJECTED


def test_wrong_password_is_refused(archive: Orthanc, connect: Connect) -> None:
    peer = connect(archive.settings(credentials=Credentials("genseg", "wrong")), "dicomweb")
    with pytest.raises(ArchiveError, match="GENSEG_PACS_USER"):
        peer.echo()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves its socket open
def test_nobody_there() -> None:
    port = free_port()
    settings = PacsSettings(
        host="127.0.0.1", port=port, called_aet="X", dicomweb=f"http://127.0.0.1:{port}", attempts=1
    )
    with WebArchive(settings) as web:
        for peer in (DimseArchive(settings), web):
            with pytest.raises(ArchiveError) as caught:
                peer.echo()
            assert caught.value.reason is NetFault.UNREACHABLE
            del caught
    gc.collect()


@pytest.mark.parametrize("route", ["c-get", "c-move"])
@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.5",
    ],
)
def test_other_transfer_syntaxes(archive: Orthanc, tmp_path: Path, connect: Connect, route: str, syntax: str) -> None:
    """What arrives says in which syntax it is: the pixels are those that were sent."""
    drawn = write_study(tmp_path / "drawn", slices=1, phi=False, seg=False, rtstruct=False)
    image = pydicom.dcmread(drawn.images[0])
    pixels = image.pixel_array
    if pydicom.uid.UID(syntax).is_compressed:
        image.compress(syntax, generate_instance_uid=False)
    else:
        little, implicit = syntax != pydicom.uid.ExplicitVRBigEndian, syntax == pydicom.uid.ImplicitVRLittleEndian
        image.PixelData = pixels.astype("<u2" if little else ">u2").tobytes()
        image.file_meta.TransferSyntaxUID = syntax
        image.set_original_encoding(implicit, little)
    (tmp_path / "sent").mkdir()
    image.save_as(tmp_path / "sent" / "one.dcm", enforce_file_format=True)
    archive.rest("/instances", "POST", (tmp_path / "sent" / "one.dcm").read_bytes())
    peer = connect(archive.settings(), route)
    series = with_instances(peer, listed(peer, Query(date="20240101-"))[0])
    inbox = Inbox(series, tmp_path, archive.settings().limits, route)
    peer.retrieve(series, inbox)
    inbox.check_complete()
    got = pydicom.dcmread(next(tmp_path.glob("*.dcm")))
    assert got.file_meta.TransferSyntaxUID == syntax
    assert (got.pixel_array == pixels).all()


@pytest.mark.parametrize("syntax", CODESTREAMS)
def test_high_throughput_jpeg_2000(tmp_path: Path, syntax: str) -> None:
    """Over DIMSE from an archive that knows it, and read as what was drawn."""
    slices = make_slices(3)
    for one in slices:
        one.PixelRepresentation, one.BitsStored, one.HighBit = 0, 12, 11
        one.file_meta.TransferSyntaxUID, one.PixelData = syntax, encapsulate([CODESTREAMS[syntax]])
    sent = write_slices(tmp_path / "sent", slices)
    with dimse_archive(sorted(sent.iterdir()), "good") as port, Spool(tmp_path / "spool") as spool:
        peer = DimseArchive(settings_of(port))
        series = with_instances(peer, listed(peer, Query(modality=("CT",)))[0])
        assert fetch(peer, series, spool).complete
        got = read_series(spool.series_folder(series.series_uid))
    wanted = np.repeat(image().T[..., None].astype(int) - 1024, 3, axis=2)
    np.testing.assert_allclose(got.array, wanted, atol=3 if syntax.endswith("203") else 0)
