"""An archive over DICOMweb: QIDO-RS, WADO-RS streamed to disk, STOW-RS (PS3.18).

`Accept-Encoding: identity` throughout: archives that compress pixel data on request are ten times slower. Redirects
are not followed, so that a password goes nowhere else.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genseg_monai._optional import require
from genseg_monai.pacs.dimse import FACTS, instances_of, series_of
from genseg_monai.pacs.faults import ArchiveError, Bound, NetFault
from genseg_monai.pacs.inbox import Arriving, Inbox
from genseg_monai.pacs.multipart import boundary_of, parts
from genseg_monai.pacs.records import InstanceRecord, Query, SeriesRecord, is_uid
from genseg_monai.pacs.settings import PacsSettings
from genseg_monai.pacs.tls import tls_fault
from genseg_monai.pacs.wire import quiet

if TYPE_CHECKING:
    import httpx

__all__ = ["WebArchive"]

_JSON = "application/dicom+json"
_DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_PAGE = 1000
_READ = 2**18
# keyword -> tag, of everything asked for
_TAGS = {
    "StudyInstanceUID": "0020000D",
    "StudyDate": "00080020",
    "AccessionNumber": "00080050",
    "PatientID": "00100020",
    "SeriesInstanceUID": "0020000E",
    "SOPInstanceUID": "00080018",
    "SOPClassUID": "00080016",
    "Modality": "00080060",
    "SeriesDescription": "0008103E",
    "SeriesNumber": "00200011",
    "InstanceNumber": "00200013",
    "NumberOfSeriesRelatedInstances": "00201209",
    "ImageOrientationPatient": "00200037",
    "SliceThickness": "00180050",
    "ImageType": "00080008",
    "ContrastBolusAgent": "00180010",
    "NumberOfFrames": "00280008",
}


class WebArchive:
    """One archive, reached over DICOMweb.

    Args:
        settings: of the archive.
        transport: an httpx transport to use instead of the network.
    """

    route = "dicomweb"

    def __init__(self, settings: PacsSettings, transport: Any = None) -> None:
        settings.need_web(self.route)
        quiet()
        self.settings = settings
        web = require("httpx", "DICOMweb")
        held = settings.credentials
        headers = {"Accept-Encoding": "identity", "User-Agent": "genseg"}
        if held.token:
            headers["Authorization"] = f"Bearer {held.token}"
        self._client: httpx.Client = web.Client(
            base_url=settings.dicomweb + "/",
            headers=headers,
            auth=(held.user, held.password) if held.user and not held.token else None,
            timeout=web.Timeout(settings.limits.idle_seconds, connect=min(settings.limits.idle_seconds, 30.0)),
            verify=settings.tls.context() if settings.tls else True,
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    def __enter__(self) -> WebArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def echo(self) -> float:
        """Ask for one study; return the seconds it took.

        Raises:
            ArchiveError: nobody there, or not for us.
        """
        start = time.perf_counter()
        self._query("studies", {"limit": "1"}, pages=False)
        return time.perf_counter() - start

    def studies(self, query: Query) -> list[str]:
        """Return the UIDs of the studies that match, sorted."""
        path, questions = "series", [{"SeriesInstanceUID": uid} for uid in query.series_uid]
        if not query.of_series_alone:
            uids = [{"StudyInstanceUID": uid} for uid in query.study_uid] or [{}]
            path, questions = "studies", [keys | uid for keys in query.study_keys() for uid in uids]
        answers = (answer for keys in questions for answer in self._query(path, keys))
        return sorted({uid for a in answers if query.admits(a) and is_uid(uid := str(a["StudyInstanceUID"]))})

    def series(self, study_uid: str) -> list[SeriesRecord]:
        """Return the series of a study, sorted by UID."""
        fields = "SeriesDescription,SeriesNumber,NumberOfSeriesRelatedInstances"
        return series_of(study_uid, self._query(f"studies/{study_uid}/series", {"includefield": fields}))

    def instances(self, series: SeriesRecord) -> tuple[InstanceRecord, ...]:
        """Return the instances of a series, sorted by number and UID."""
        return instances_of(self._query(f"{self._path(series)}/instances", {}))

    def facts(self, series: SeriesRecord, instance_uid: str) -> dict[str, Any]:
        """Return what the archive tells of one instance: those of `FACTS` it knows."""
        try:
            answers = self._query(f"{self._path(series)}/instances/{instance_uid}/metadata", {}, pages=False)
        except ArchiveError as error:
            if error.reason is not NetFault.DECLINED:
                raise
            return {}
        return {k: v for a in answers[:1] for k, v in a.items() if k in FACTS and v not in ("", [])}

    def retrieve(self, series: SeriesRecord, inbox: Inbox) -> None:
        """Fetch what an inbox has not got yet; the inbox knows what came.

        Raises:
            ArchiveError: the line broke, the archive failed, or the inbox stopped it.
        """
        missing = inbox.missing()
        if inbox.held and missing:  # the rest of an interrupted transfer
            for one in missing:
                self._fetch(f"{self._path(series)}/instances/{one.uid}", inbox)
        else:
            self._fetch(self._path(series), inbox)

    def store(self, paths: Sequence[Path]) -> None:
        """Send files in one STOW-RS request.

        Raises:
            ArchiveError: the archive did not take all of them.
        """
        boundary = secrets.token_hex(16)

        def body() -> Iterator[bytes]:
            for path in paths:
                yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
                with path.open("rb") as file:
                    while piece := file.read(2**18):
                        yield piece
                yield b"\r\n"
            yield f"--{boundary}--\r\n".encode()

        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        with self._open("POST", "studies", "stow-rs", {"Content-Type": kind, "Accept": _JSON}, content=body()) as reply:
            held = self._json(reply, "stow-rs")
        answer = held if isinstance(held, dict) else {}
        failed = len((answer.get("00081198") or {}).get("Value") or [])
        stored = len((answer.get("00081199") or {}).get("Value") or [])
        if failed or stored < len(paths):
            problem = f"wanted {len(paths)} objects taken, the archive took {stored} and refused {failed}"
            raise ArchiveError("stow-rs", NetFault.FAILED, problem)

    def _fetch(self, path: str, inbox: Inbox) -> None:
        with self._open("GET", path, "wado-rs", {"Accept": _DICOM}) as reply:
            boundary = boundary_of(reply.headers.get("content-type", ""))
            part = Arriving(inbox)
            try:
                for piece in parts(self._counted(reply, inbox), boundary):
                    if piece is not None:
                        part.add(piece)
                    else:
                        part.end()
                        inbox.check()
            except OSError:
                raise inbox.stop(NetFault.SPACE, "could not write; is the disk full? make room, run again") from None
            finally:
                part.drop()

    def _counted(self, reply: httpx.Response, inbox: Inbox) -> Iterator[bytes]:
        _widen(reply)
        for chunk in reply.iter_raw():
            inbox.count_bytes(len(chunk))
            yield chunk

    def _path(self, series: SeriesRecord) -> str:
        return f"studies/{series.study_uid}/series/{series.series_uid}"

    def _query(self, path: str, keys: dict[str, str], pages: bool = True) -> list[dict[str, Any]]:
        """Ask, page by page, until a page brings nothing new."""
        found: dict[str, dict[str, Any]] = {}
        while True:
            page = {"limit": str(_PAGE), "offset": str(len(found))} if pages else {}
            with self._open("GET", path, "qido-rs", {"Accept": _JSON}, params={**keys, **page}) as reply:
                held = [] if reply.status_code == 204 else self._json(reply, "qido-rs")
            answers = [_plain(one) for one in held if isinstance(one, dict)] if isinstance(held, list) else []
            before = len(found)
            for one in answers:
                found.setdefault(
                    "/".join(str(one.get(k, "")) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")),
                    one,
                )
            if len(found) > self.settings.limits.answers:
                problem = f"wanted at most {self.settings.limits.answers} answers, got more; narrow the query"
                raise ArchiveError("qido-rs", NetFault.BOUNDS, problem)
            if not pages or len(answers) < _PAGE or len(found) == before:
                return list(found.values())

    def _json(self, reply: httpx.Response, route: str) -> Any:
        limits, held = self.settings.limits, bytearray()
        bound = Bound(route, limits.answer_bytes, limits.series_seconds)
        for chunk in reply.iter_raw():
            bound(len(chunk))
            held += chunk
        try:
            return json.loads(held) if held else []
        except (ValueError, RecursionError):
            raise ArchiveError(route, NetFault.FAILED, "wanted JSON, the archive answered something else") from None

    @contextmanager
    def _open(self, method: str, path: str, route: str, headers: dict[str, str], **kinds: Any) -> Iterator[Any]:
        """Give a streamed answer; faults are told without the URL, which holds what was asked."""
        web = require("httpx", "DICOMweb")
        try:
            with self._client.stream(method, path, headers=headers, **kinds) as reply:
                _check_status(reply.status_code, route)
                if reply.headers.get("content-encoding", "identity") != "identity":
                    raise ArchiveError(route, NetFault.FAILED, "wanted an answer as it is, the archive compressed it")
                yield reply
        except (web.ConnectError, web.ConnectTimeout) as error:
            problem = "wanted an archive at dicomweb, none answered; are the URL and tls in pacs.yaml right?"
            raise tls_fault(route, error) or ArchiveError(route, NetFault.UNREACHABLE, problem) from None
        except (web.HTTPError, web.StreamError, web.InvalidURL) as error:
            if fault := tls_fault(route, error):
                raise fault from None
            raise ArchiveError(route, NetFault.BROKEN, "the connection ended, or nothing came in time") from None


def _widen(reply: httpx.Response) -> None:
    """Have the rest of an answer read in larger steps than the 64 kB of httpcore, which sets no other limit to them."""
    stream = reply.extensions.get("network_stream")
    if stream is not None and "read" not in vars(stream):  # a connection is used again
        narrow = stream.read
        stream.read = lambda size, timeout=None: narrow(max(size, _READ), timeout)


def _check_status(code: int, route: str) -> None:
    if code in (401, 403):
        problem = "wanted to be let in, the archive refused; set GENSEG_PACS_USER and _PASSWORD, or _TOKEN"
        raise ArchiveError(route, NetFault.REJECTED, problem)
    if not 200 <= code < 300:
        # a redirect, or no service to send to, is met by the next object too; what is declined is this one alone
        ends = code < 400 or (route == "stow-rs" and code in (404, 405))
        passes = code >= 500 or code in (408, 429)
        reason = NetFault.REJECTED if ends else NetFault.FAILED if passes else NetFault.DECLINED
        raise ArchiveError(route, reason, f"wanted success, the archive answered HTTP {code}")


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    """Return keyword -> text or list of texts, of the tags known here (DICOM JSON model, PS3.18 annex F)."""
    found: dict[str, Any] = {}
    for keyword, tag in _TAGS.items():
        element = answer.get(tag)
        values = element.get("Value") if isinstance(element, dict) else None
        texts = [str(v) for v in values if isinstance(v, str | int | float)] if isinstance(values, list) else []
        found[keyword] = texts[0] if len(texts) == 1 else texts or ""
    return found
