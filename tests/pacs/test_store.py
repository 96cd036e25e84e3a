"""C-STORE by hand: what arrives at a peer that reads it with pynetdicom, and what is made of its answers."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dsutils import encode

from genseg_monai.errors import UserError
from genseg_monai.pacs.faults import ArchiveError, NetFault
from genseg_monai.pacs.push import push
from genseg_monai.pacs.store import StoreLine, command_values, store_request
from tests.dicom.study import Study
from tests.pacs.hostile import settings_of
from tests.pacs.orthanc import free_port

# pynetdicom does not close the socket of an association that the other side ended
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@contextmanager
def _peer(most: int, answer: Any) -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    """Receive with `most` bytes a message; `answer(number, event)` gives the status."""
    got: list[tuple[str, bytes]] = []

    def store(event: Any) -> int:
        got.append((str(event.request.AffectedSOPInstanceUID), event.encoded_dataset(include_meta=False)))
        return int(answer(len(got), event))

    entity = AE("HOSTILE")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.maximum_pdu_size = most
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield port, got
    finally:
        server.shutdown()


@pytest.mark.parametrize("most", [1024, 16_382, 0])
def test_data_sets_arrive_byte_by_byte(study: Study, most: int) -> None:
    with _peer(most, lambda *_: 0) as (port, got):
        assert push(study.folder, settings_of(port)).sent == len(study.images) + 2
    sent = {}
    for path in (*study.images, study.seg, study.rtstruct):
        assert path is not None
        with path.open("rb") as file:
            meta = pydicom.filereader.read_file_meta_info(path)
            file.seek(132 + 12 + meta.FileMetaInformationGroupLength)
            sent[str(meta.MediaStorageSOPInstanceUID)] = file.read()
    assert dict(got) == sent


def test_a_segmentation_of_many_slices_is_sent(study: Study, tmp_path: Path) -> None:
    """It names each slice before its own study and series: these stand behind the first 64 kB."""
    assert study.seg is not None
    segmentation = pydicom.dcmread(study.seg)
    named = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    for number in range(1000):
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = (
            named[0].ReferencedSOPClassUID,
            f"2.25.{10**38 + number}",
        )
        named.append(one)
    segmentation.save_as(tmp_path / "seg.dcm")
    with _peer(16_382, lambda *_: 0) as (port, got):
        assert push(tmp_path, settings_of(port)).sent == 1
    assert [uid for uid, _ in got] == [segmentation.SOPInstanceUID]


def test_a_warning_is_taken_and_a_failure_is_counted(study: Study) -> None:
    with _peer(16_382, lambda number, _: {2: 0xB000, 3: 0xA700}.get(number, 0)) as (port, _):
        done = push(study.folder, settings_of(port), associations=1)
    assert done.sent == len(study.images) + 1
    assert done.failed == {"status_A700": 1}


def test_a_peer_that_aborts_is_tried_again(study: Study) -> None:
    def answer(number: int, event: Any) -> int:
        if number == 3:
            event.assoc.abort()
        return 0

    with _peer(16_382, answer) as (port, got):
        done = push(study.folder, settings_of(port), associations=1)
    assert (done.sent, done.failed) == (len(study.images) + 2, {})
    assert len({uid for uid, _ in got}) == len(study.images) + 2


def test_an_archive_that_drops_the_line_again_and_again(study: Study) -> None:
    """More often than a transfer is tried: each time some objects have come."""
    heard: Counter[int] = Counter()

    def answer(_: int, event: Any) -> int:
        heard[id(event.assoc)] += 1
        if heard[id(event.assoc)] == 2:
            event.assoc.abort()
        return 0

    with _peer(16_382, answer) as (port, got):
        assert settings_of(port).attempts == 2
        done = push(study.folder, settings_of(port), associations=1)
    assert (done.sent, done.failed) == (len(study.images) + 2, {})
    assert len({uid for uid, _ in got}) == len(study.images) + 2


def test_an_archive_that_goes_away_is_told_with_what_it_took(study: Study) -> None:
    def answer(number: int, event: Any) -> int:
        if number > 3:
            event.assoc.abort()
        return 0xA700 if number == 1 else 0

    with _peer(16_382, answer) as (port, _), pytest.raises(ArchiveError, match="2 of 10 objects were sent, 1 not"):
        push(study.folder, settings_of(port), associations=1)


def test_a_file_that_shrinks_is_counted_and_the_rest_goes_on(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, real = study.images[0], StoreLine.send

    def send(self: StoreLine, path: Path, start: int, *words: str) -> int:
        return real(self, path, 10**9 if path == victim else start, *words)

    monkeypatch.setattr(StoreLine, "send", send)
    with _peer(16_382, lambda *_: 0) as (port, _):
        done = push(study.folder, settings_of(port), associations=1)
    assert (done.sent, done.failed) == (len(study.images) + 1, {"unreadable": 1})


@pytest.mark.parametrize("fault", [UserError("pacs.yaml: tls", "one is missing"), KeyError("x")], ids=repr)
def test_no_fault_is_lost_with_its_thread(study: Study, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """As PEM files that cannot be read: told, and not "0 objects sent"."""
    real, calls = StoreLine.send, []

    def send(self: StoreLine, *words: Any) -> int:
        calls.append(words)
        if len(calls) > len(study.images):  # the last but one, so that nothing waits when both threads have ended
            raise fault
        return real(self, *words)

    monkeypatch.setattr(StoreLine, "send", send)
    with _peer(16_382, lambda *_: 0) as (port, _), pytest.raises(type(fault)):
        push(study.folder, settings_of(port))


def test_request_is_as_pynetdicom_writes_it() -> None:
    wanted = Dataset()
    wanted.AffectedSOPClassUID, wanted.CommandField, wanted.MessageID = "1.2.840.1", 1, 7
    wanted.Priority, wanted.CommandDataSetType, wanted.AffectedSOPInstanceUID = 0, 1, "1.2.3"
    body = encode(wanted, True, True)
    assert body is not None
    assert store_request("1.2.840.1", "1.2.3", 7) == struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _answer(number: int = 1, field: int = 0x8001, status: int = 0) -> bytes:
    values = ((0x0100, field), (0x0120, number), (0x0800, 0x0101), (0x0900, status))
    body = b"".join(struct.pack("<HHIH", 0, element, 2, value) for element, value in values)
    return struct.pack(">BxIIBB", 4, len(body) + 6, len(body) + 2, 1, 3) + body


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00",  # abort
        b"\x04\x00\xff\xff\xff\xf0",  # a message of four gigabytes
        b"\x04\x00\x00\x00\x00\x06\xff\xff\xff\xff\x01\x03",  # a value longer than its message
        b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x00\x01\x00" * 20,  # values without anything in them
        _answer(number=2),
        _answer(field=0x8030),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_answers_that_are_none(said: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"meta" + b"d" * 100)
    association: Any = SimpleNamespace(
        accepted_contexts=[SimpleNamespace(abstract_syntax="1.2", transfer_syntax=["1.3"], context_id=1)],
        acceptor=SimpleNamespace(maximum_length=64),
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(2)
        line = StoreLine(association, ours)
        thread = threading.Thread(target=lambda: (theirs.sendall(said), theirs.shutdown(socket.SHUT_WR)))
        thread.start()
        with pytest.raises(ArchiveError) as caught:
            line.send(tmp_path / "x", 4, "1.2", "1.2.3", "1.3")
        thread.join()
    assert caught.value.reason is NetFault.BROKEN


def test_command_values_end_where_nothing_can_be_read() -> None:
    assert dict(command_values(_answer(status=0xA700)[12:])) == {
        0x0100: 0x8001,
        0x0120: 1,
        0x0800: 0x0101,
        0x0900: 0xA700,
    }
    for broken in (b"", b"\0" * 7, b"\1\0" + b"\0" * 8, struct.pack("<HHI", 0, 1, 2**31)):
        assert dict(command_values(broken)) == {}
