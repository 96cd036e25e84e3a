"""Archives and peers that break off, send what was not asked for, or never stop: bounded, told, nothing written."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from genseg_monai.pacs.dicomweb import WebArchive
from genseg_monai.pacs.dimse import DimseArchive
from genseg_monai.pacs.faults import ArchiveError, NetFault
from genseg_monai.pacs.identify import identify_file
from genseg_monai.pacs.inbox import Inbox
from genseg_monai.pacs.receive import Receiver
from genseg_monai.pacs.records import InstanceRecord, Query, SeriesRecord
from genseg_monai.pacs.retrieve import fetch
from genseg_monai.pacs.spool import Spool
from tests.dicom.study import Study
from tests.pacs.hostile import dimse_archive, settings_of, web_archive
from tests.pacs.orthanc import needed
from tests.pacs.test_routes import other_queries

# pynetdicom does not close the socket of an association that the other side ended
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def series(study: Study) -> SeriesRecord:
    headers = sorted((pydicom.dcmread(p) for p in study.images), key=lambda d: d.InstanceNumber)
    one = headers[0]
    records = tuple(InstanceRecord(str(d.SOPInstanceUID), str(d.SOPClassUID), int(d.InstanceNumber)) for d in headers)
    return SeriesRecord(str(one.StudyInstanceUID), str(one.SeriesInstanceUID), "CT", "x", len(records), 1, records)


@pytest.fixture
def spool(tmp_path: Path):
    with Spool(tmp_path / "spool") as made:
        yield made


def inbox(series: SeriesRecord, folder: Path, **limits: object) -> Inbox:
    folder.mkdir(exist_ok=True)
    return Inbox(series, folder, settings_of(1, **limits).limits, "test")


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("abort", NetFault.BROKEN),
        ("wrong_study", NetFault.UNEXPECTED),
        ("endless", NetFault.BOUNDS),
        ("fewer", NetFault.COUNT),
    ],
)
def test_dimse_faults(study: Study, series: SeriesRecord, spool: Spool, mode: str, reason: NetFault) -> None:
    with dimse_archive(list(study.images), mode) as port, pytest.raises(ArchiveError) as caught:
        fetch(DimseArchive(settings_of(port)), series, spool)
    assert caught.value.reason is reason
    held = list(spool.series_folder(series.series_uid).iterdir())
    assert all(path.suffix == ".dcm" for path in held)
    assert len(held) == {"abort": 4, "wrong_study": 0, "endless": len(held), "fewer": len(study.images) - 1}[mode]


def test_endless_instances_of_an_unlisted_series(study: Study, series: SeriesRecord, spool: Spool) -> None:
    unlisted = replace(series, instances=())
    with (
        dimse_archive(list(study.images), "endless") as port,
        pytest.raises(ArchiveError, match="does not stop|without"),
    ):
        fetch(DimseArchive(settings_of(port)), unlisted, spool)


def test_a_broken_line_is_mended(study: Study, series: SeriesRecord, spool: Spool) -> None:
    with dimse_archive(list(study.images), "once_abort") as port:
        done = fetch(DimseArchive(settings_of(port)), series, spool)
    assert done.complete
    assert done.received == len(study.images) - 2  # the first two came before the line broke


def test_path_like_uids(study: Study) -> None:
    with dimse_archive(list(study.images), "path_uid") as port:
        archive = DimseArchive(settings_of(port))
        assert archive.studies(Query(date="20240101-")) == []
        assert archive.series("1.2.3") == []
        assert archive.instances(SeriesRecord("1.2", "1.3")) == ()


def test_answers_that_were_not_asked_for(study: Study) -> None:
    """An archive that ignores the keys of a question: other patients are left where they are."""
    with dimse_archive(list(study.images), "good") as port:
        archive = DimseArchive(settings_of(port))
        one = pydicom.dcmread(study.images[0])
        for query in other_queries():
            assert archive.studies(query) == [], query
        assert archive.studies(Query(patient_id=("x", study.patient_id), date="20240101-")) == [one.StudyInstanceUID]


def test_answers_without_end(study: Study) -> None:
    with dimse_archive(list(study.images), "answers") as port, pytest.raises(ArchiveError) as caught:
        DimseArchive(settings_of(port, answers=50)).studies(Query(date="20240101-"))
    assert caught.value.reason is NetFault.BOUNDS


@pytest.mark.parametrize("limits", [{"answer_bytes": 2**21}, {"series_seconds": 0.3}], ids=str)
def test_an_answer_without_end(study: Study, limits: dict) -> None:
    with dimse_archive(list(study.images), "fragments") as port, web_archive([b" " * 100], "endless") as (url, _):
        settings = settings_of(port, url, **limits)
        with WebArchive(settings) as web:
            for archive in (DimseArchive(settings), web):
                with pytest.raises(ArchiveError, match="narrow the query") as caught:
                    archive.studies(Query(date="20240101-"))
                assert caught.value.reason is NetFault.BOUNDS


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"series_bytes": 5000}, NetFault.BOUNDS),
        ({"object_bytes": 1000}, NetFault.BOUNDS),
        ({"series_seconds": 1e-9}, NetFault.BOUNDS),
        ({"reserve_bytes": 2**60}, NetFault.SPACE),
    ],
)
def test_bounds(study: Study, series: SeriesRecord, spool: Spool, limits: dict, reason: NetFault) -> None:
    files = [path.read_bytes() for path in study.images]
    with dimse_archive(list(study.images), "good") as port, web_archive(files, "good") as (url, _):
        settings = settings_of(port, url, **limits)
        with WebArchive(settings) as web:
            for archive in (DimseArchive(settings), web):
                with pytest.raises(ArchiveError) as caught:
                    fetch(archive, series, spool)
                assert caught.value.reason is reason
                assert len(list(spool.series_folder(series.series_uid).iterdir())) <= 1


def test_a_full_disk(study: Study, series: SeriesRecord, tmp_path: Path) -> None:
    one = inbox(series, tmp_path / "in")
    shutil.rmtree(one.folder)
    data = study.images[0].read_bytes()
    assert not one.take([data], identify_file(data))
    with pytest.raises(ArchiveError) as caught:
        one.check()
    assert caught.value.reason is NetFault.SPACE


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("truncated", NetFault.BROKEN),
        ("endless", NetFault.BOUNDS),
        ("gzip", NetFault.FAILED),
        ("html", NetFault.FAILED),
        ("redirect", NetFault.REJECTED),
        ("huge_headers", NetFault.FAILED),
        ("hangs", NetFault.BROKEN),
    ],
)
def test_web_faults(study: Study, series: SeriesRecord, spool: Spool, mode: str, reason: NetFault) -> None:
    files = [path.read_bytes() for path in study.images]
    if mode == "hangs":
        series = replace(series, instances=(*series.instances, InstanceRecord("1.2.3", "", 99)))
    with web_archive(files, mode) as (url, log):
        settings = replace(settings_of(1, url, idle_seconds=1.0), attempts=1)
        with WebArchive(settings) as archive, pytest.raises(ArchiveError) as caught:
            fetch(archive, series, spool)
    if mode == "hangs":  # all parts had come; the count tells that one is missing, or the line that it ended
        assert caught.value.reason in (NetFault.COUNT, NetFault.BROKEN)
    else:
        assert caught.value.reason is reason
    assert not any("elsewhere" in line for line in log)
    assert all("identity" in line for line in log)
    assert "Doe" not in str(caught.value)
    held = list(spool.series_folder(series.series_uid).iterdir())
    assert all(path.suffix == ".dcm" for path in held)


def test_web_wrong_study(study: Study, series: SeriesRecord, spool: Spool) -> None:
    wrong = replace(series, study_uid="1.2.3")
    files = [path.read_bytes() for path in study.images]
    with web_archive(files, "good") as (url, _), WebArchive(settings_of(1, url)) as archive:
        with pytest.raises(ArchiveError) as caught:
            fetch(archive, wrong, spool)
        assert caught.value.reason is NetFault.UNEXPECTED
        assert list(spool.series_folder(series.series_uid).iterdir()) == []


@pytest.mark.parametrize("mode", ["html", "deep_json"])
def test_web_answers_that_are_no_json(mode: str) -> None:
    with (
        web_archive([b""], mode) as (url, _),
        WebArchive(settings_of(1, url)) as archive,
        pytest.raises(ArchiveError, match="wanted JSON"),
    ):
        archive.studies(Query(date="20240101-"))


def test_a_message_of_four_gigabytes() -> None:
    """A peer that announces one must not be believed: no such buffer is made."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(b"\x02\x00\xff\xff\xff\xf0")
            peer.recv(4096)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with pytest.raises(ArchiveError):
        DimseArchive(settings_of(listener.getsockname()[1])).echo()
    thread.join(5)
    listener.close()


def _store(port: int, calling: str, called: str, path: Path) -> int:
    line = ["/usr/bin/storescu", "-R", "-aet", calling, "-aec", called, "127.0.0.1", str(port), str(path)]
    return subprocess.run(line, env={**os.environ, "TCP_NODELAY": "1"}, capture_output=True, check=False).returncode


def test_receiver_takes_only_what_it_waits_for(study: Study, series: SeriesRecord, tmp_path: Path) -> None:
    needed("/usr/bin/storescu")
    settings = settings_of(1)
    box = inbox(series, tmp_path / "in")
    with Receiver(settings, box):
        port = settings.move_port
        assert _store(port, "STRANGER", "GENSEG", study.images[0]) != 0
        assert _store(port, "HOSTILE", "SOMEBODY", study.images[0]) != 0
        assert _store(port, "../../etc", "GENSEG", study.images[0]) != 0
        assert box.held == 0
        assert _store(port, "HOSTILE", "GENSEG", study.images[0]) == 0
        assert _store(port, "HOSTILE", "GENSEG", study.seg) != 0  # not of that series
        assert (box.held, box.refused) == (1, 1)
        # more associations than allowed wait at the door
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        for one in held:
            one.close()
    assert [path.suffix for path in box.folder.iterdir()] == [".dcm"]
