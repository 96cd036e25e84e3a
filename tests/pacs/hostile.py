"""Archives that misbehave: over DIMSE (pynetdicom) and over HTTP, both on free loopback ports."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from genseg_monai.pacs.settings import Credentials, Limits, PacsSettings
from tests.dicom.htj2k import CODESTREAMS
from tests.pacs.orthanc import free_port

__all__ = ["dimse_archive", "settings_of", "web_archive"]

_BOUNDARY = "xyzzy"
_SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, *CODESTREAMS]


def settings_of(port: int, web: str = "", **limits: Any) -> PacsSettings:
    held = {"idle_seconds": 5.0, "reserve_bytes": 2**20, **limits}
    return PacsSettings(
        host="127.0.0.1",
        port=port,
        called_aet="HOSTILE",
        move_port=free_port(),
        dicomweb=web,
        attempts=2,
        retry_seconds=0.01,
        limits=Limits(**held),
        credentials=Credentials("genseg", "only-for-tests"),
    )


@contextmanager
def dimse_archive(paths: list[Path], mode: str) -> Iterator[int]:
    """Serve C-FIND and C-GET in one of these modes, or rightly; give the port.

    abort: ends the association after the second instance. wrong_study: sends another study than asked for.
    endless: never stops sending. fewer: leaves the last instance out. path_uid: answers with UIDs like paths.
    answers: a query has no end. fragments: one answer has no end. once_abort: as abort, but only the first time.
    """
    from pynetdicom import AE, AllStoragePresentationContexts, evt
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as Get

    images = [dcmread(path) for path in paths]
    calls = {"get": 0}

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        if mode == "fragments":
            _endless_answer(event.assoc.dul.socket.socket, event.context.context_id, event.request.MessageID)
            return
        level = event.identifier.QueryRetrieveLevel
        several = {"STUDY": images[:1], "SERIES": images[:1], "IMAGE": images}[level]
        number = 0
        while True:
            for image in several:
                number += 1
                answer = Dataset()
                answer.StudyInstanceUID, answer.SeriesInstanceUID = image.StudyInstanceUID, image.SeriesInstanceUID
                answer.SOPInstanceUID, answer.SOPClassUID = image.SOPInstanceUID, image.SOPClassUID
                answer.InstanceNumber, answer.Modality = image.InstanceNumber, "CT"
                answer.NumberOfSeriesRelatedInstances = len(images)
                answer.SeriesDescription = "x"
                for word in ("PatientID", "AccessionNumber", "StudyDate"):  # matched with nothing, but told
                    if word in event.identifier:
                        setattr(answer, word, image.get(word))
                if mode == "path_uid":
                    for word in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                        answer.add_new(word, "UI", "../../../etc/passwd")
                if mode == "answers":
                    answer.StudyInstanceUID = f"1.2.{number}"
                yield 0xFF00, answer
            if mode != "answers":
                return

    def get(event: Any) -> Iterator[Any]:
        calls["get"] += 1
        chosen = images[:-1] if mode == "fewer" else images
        wanted = event.identifier.get("SOPInstanceUID")
        if wanted is not None:
            names = [wanted] if isinstance(wanted, str) else list(wanted)
            chosen = [image for image in chosen if image.SOPInstanceUID in names]
        yield 60_000 if mode == "endless" else len(chosen)
        number = 0
        while True:
            for image in chosen:
                number += 1
                if number == 3 and (mode == "abort" or (mode == "once_abort" and calls["get"] == 1)):
                    event.assoc.abort()
                    return
                if mode == "wrong_study":
                    image.StudyInstanceUID = "1.2.3.4"
                yield 0xFF00, image
            if mode != "endless":
                return

    entity = AE("HOSTILE")
    entity.supported_contexts = []
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, _SYNTAXES, scu_role=True, scp_role=True)
    entity.add_supported_context(Find)
    entity.add_supported_context(Get)
    port = free_port()
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield port
    finally:
        server.shutdown()


def _endless_answer(connection: socket.socket, context: int, number: int) -> None:
    """Send the head of a C-FIND answer, and pieces of its data set for as long as somebody takes them."""

    def piece(control: int, value: bytes) -> bytes:
        return struct.pack(">BxIIBB", 4, len(value) + 6, len(value) + 2, context, control) + value

    values = ((0x0100, 0x8020), (0x0120, number), (0x0800, 1), (0x0900, 0xFF00))
    connection.sendall(piece(3, b"".join(struct.pack("<HHIH", 0, tag, 2, value) for tag, value in values)))
    with suppress(OSError):
        for _ in range(5000):
            connection.sendall(piece(0, b"\0" * 200_000))


def multipart(files: list[bytes], boundary: str = _BOUNDARY, end: bool = True) -> bytes:
    parts = [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + one + b"\r\n" for one in files]
    return b"".join(parts) + (f"--{boundary}--\r\n".encode() if end else b"")


@contextmanager
def web_archive(files: list[bytes], mode: str) -> Iterator[tuple[str, list[str]]]:
    """Answer every GET in one of these modes; give the URL and the log of (path, authorization).

    good, truncated, endless, gzip, html, redirect, deep_json, huge_headers, hangs.
    """
    log: list[str] = []
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            log.append(f"{self.path} {self.headers.get('Authorization', '')} {self.headers.get('Accept-Encoding')}")
            with suppress(OSError):
                self._answer()

        def _answer(self) -> None:
            if mode == "redirect":
                self.send_response(302)
                self.send_header("Location", self.path.replace("studies", "elsewhere"))
                self.end_headers()
                return
            self.send_response(200)
            kind = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
            body = multipart(files)
            if mode == "html":
                kind, body = "text/html", b"<html>Log in as Doe^Jane</html>"
            if mode == "deep_json":
                kind, body = "application/dicom+json", b"[" * 200_000
            if mode == "gzip":
                self.send_header("Content-Encoding", "gzip")
            if mode == "truncated":
                body = multipart(files, end=False)[: -len(files[-1]) // 2]
            if mode == "huge_headers":
                body = f"--{_BOUNDARY}\r\n".encode() + b"X: y\r\n" * 20_000
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body if mode != "endless" else b"")
            while mode == "endless" and not stop.is_set():
                self.wfile.write(multipart(files, end=False))
            if mode == "hangs":
                stop.wait(20)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", log
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
