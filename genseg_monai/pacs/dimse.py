"""An archive over DIMSE: C-ECHO, C-FIND, C-GET and C-MOVE with a receiver of our own (PS3.4 annexes A, B and C)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from genseg_monai._optional import require
from genseg_monai.pacs.faults import ArchiveError, Bound, NetFault
from genseg_monai.pacs.inbox import Inbox
from genseg_monai.pacs.receive import Receiver, storing
from genseg_monai.pacs.records import InstanceRecord, Query, SeriesRecord, is_uid
from genseg_monai.pacs.settings import PacsSettings
from genseg_monai.pacs.wire import SYNTAXES, Line

__all__ = ["FACTS", "DimseArchive", "series_of"]

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_ECHO = "1.2.840.10008.1.1"
_PENDING = (0xFF00, 0xFF01)
_MAX_CONTEXTS = 128
_MAX_LIST = 100  # UIDs in one request for single instances
# what rules look at, beyond what a series is listed with
FACTS = ("ImageOrientationPatient", "SliceThickness", "ImageType", "ContrastBolusAgent", "NumberOfFrames")
# for archives that do not list SOP classes: modality -> storage classes worth offering
_CLASSES = {
    "CT": ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"),
    "MR": ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"),
    "PT": ("1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1"),
    "SEG": ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"),
    "RTSTRUCT": ("1.2.840.10008.5.1.4.1.1.481.3",),
    "CR": ("1.2.840.10008.5.1.4.1.1.1",),
    "DX": ("1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1.1"),
    "MG": ("1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2.1"),
    "US": ("1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"),
    "NM": ("1.2.840.10008.5.1.4.1.1.20",),
    "XA": ("1.2.840.10008.5.1.4.1.1.12.1",),
}


class DimseArchive:
    """One archive, reached over DIMSE; an association a call, closed at its end.

    Args:
        settings: of the archive.
        route: `c-get` or `c-move`, for `retrieve`.
    """

    def __init__(self, settings: PacsSettings, route: str = "c-get") -> None:
        settings.need_dimse(route)
        self.settings, self.route = settings, route

    def __enter__(self) -> DimseArchive:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close: associations live as long as a call."""

    def echo(self) -> float:
        """Ask whether the archive is there; return the seconds it took.

        Raises:
            ArchiveError: it is not, or does not know us.
        """
        start = time.perf_counter()
        with self._line("c-echo", _ECHO) as line:
            _succeed(line.send_c_echo(), "c-echo")
        return time.perf_counter() - start

    def studies(self, query: Query) -> list[str]:
        """Return the UIDs of the studies that match, sorted."""
        level, questions = "SERIES", [{"StudyInstanceUID": "", "SeriesInstanceUID": uid} for uid in query.series_uid]
        if not query.of_series_alone:
            # minimum necessary: only the UID comes back beside what was asked with
            level, uids = "STUDY", "\\".join(query.study_uid)
            questions = [{"StudyInstanceUID": uids, **keys} for keys in query.study_keys()]
        answers = (answer for keys in questions for answer in self._find(level, keys))
        return sorted({uid for a in answers if query.admits(a) and is_uid(uid := str(a.get("StudyInstanceUID", "")))})

    def series(self, study_uid: str) -> list[SeriesRecord]:
        """Return the series of a study, sorted by UID."""
        keys = dict.fromkeys(
            ("SeriesInstanceUID", "Modality", "SeriesDescription", "SeriesNumber", "NumberOfSeriesRelatedInstances"), ""
        )
        return series_of(study_uid, self._find("SERIES", {"StudyInstanceUID": study_uid, **keys}))

    def instances(self, series: SeriesRecord) -> tuple[InstanceRecord, ...]:
        """Return the instances of a series, sorted by number and UID; none where the archive does not list them."""
        keys = {"SOPInstanceUID": "", "SOPClassUID": "", "InstanceNumber": ""}
        return instances_of(self._find("IMAGE", self._keys(series) | keys))

    def facts(self, series: SeriesRecord, instance_uid: str) -> dict[str, Any]:
        """Return what the archive tells of one instance: those of `FACTS` it knows."""
        keys = {"SOPInstanceUID": instance_uid, **dict.fromkeys(FACTS, "")}
        answers = self._find("IMAGE", self._keys(series) | keys)
        return {k: v for a in answers[:1] for k, v in a.items() if k in FACTS and v not in (None, "", [])}

    def retrieve(self, series: SeriesRecord, inbox: Inbox) -> None:
        """Fetch what an inbox has not got yet; the inbox knows what came.

        Raises:
            ArchiveError: the line broke, the archive failed, or the inbox stopped it.
        """
        missing = [one.uid for one in inbox.missing()]
        if inbox.held and missing:  # the rest of an interrupted transfer
            parts = [missing[i : i + _MAX_LIST] for i in range(0, len(missing), _MAX_LIST)]
            requests = [{"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "\\".join(part)} for part in parts]
        else:
            requests = [{"QueryRetrieveLevel": "SERIES"}]
        for request in requests:
            keys = _dataset({**request, **self._keys(series)})
            (self._get if self.route == "c-get" else self._move)(series, keys, inbox)
            inbox.check()

    def _get(self, series: SeriesRecord, keys: Dataset, inbox: Inbox) -> None:
        evt, presentation = require("pynetdicom.events", "C-GET"), require("pynetdicom.presentation", "C-GET")
        listed = sorted({one.sop_class for one in series.instances if is_uid(one.sop_class)})
        classes = listed or list(_CLASSES.get(series.modality, _CLASSES["CT"] + _CLASSES["MR"]))
        if len(classes) * len(SYNTAXES) < _MAX_CONTEXTS:  # each on its own, so that each can be accepted on its own
            offers = [(kind, [syntax]) for kind in classes for syntax in SYNTAXES]
        else:
            offers = [(kind, list(SYNTAXES)) for kind in classes[: _MAX_CONTEXTS - 1]]
        roles = [presentation.build_role(kind, scp_role=True) for kind in classes]
        handlers = [(evt.EVT_C_STORE, storing(inbox))]
        wire = Line(self.settings, "c-get", [_GET], offers, roles=roles, handlers=handlers, count=inbox.count_bytes)
        with wire as line:
            _follow(line.send_c_get(keys, _GET), inbox, "c-get")

    def _move(self, series: SeriesRecord, keys: Dataset, inbox: Inbox) -> None:
        with Receiver(self.settings, inbox) as receiver, self._line("c-move", _MOVE) as line:
            try:
                _follow(line.send_c_move(keys, self.settings.aet, _MOVE), inbox, "c-move")
            finally:
                receiver.drain()

    @contextmanager
    def _line(self, route: str, model: str) -> Iterator[Any]:
        """Give an association for one question, of which not more than allowed comes back."""
        limits = self.settings.limits
        bound = Bound(route, limits.answer_bytes, limits.series_seconds)
        try:
            with Line(self.settings, route, [model], count=bound) as line:
                yield line
        except ArchiveError as error:
            raise bound.fault or error from None  # says more than that the line ended

    def _keys(self, series: SeriesRecord) -> dict[str, str]:
        return {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid}

    def _find(self, level: str, keys: dict[str, str]) -> list[dict[str, Any]]:
        answers = []
        with self._line("c-find", _FIND) as line, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # their text holds values
            for status, answer in line.send_c_find(_dataset({"QueryRetrieveLevel": level, **keys}), _FIND):
                if status and status.Status in _PENDING and answer is not None:
                    answers.append(_plain(answer, keys))
                    if len(answers) > self.settings.limits.answers:
                        problem = f"wanted at most {self.settings.limits.answers} answers, got more; narrow the query"
                        raise ArchiveError("c-find", NetFault.BOUNDS, problem)
                else:
                    _succeed(status, "c-find")
        return answers


def _follow(answers: Iterator[tuple[Dataset, Dataset | None]], inbox: Inbox, route: str) -> None:
    """Wait for the end of a C-GET or C-MOVE."""
    most = 4 * (len(inbox.series.instances) or inbox.series.count or 10_000) + 64
    for number, (status, _) in enumerate(answers):
        inbox.check()
        if number > most:
            raise inbox.stop(NetFault.BOUNDS, "the archive reports without end")
        if status and status.Status in _PENDING:
            continue
        if status and status.Status == 0xB000:
            continue  # done, some failed: the count of instances tells which
        _succeed(status, route)


def _succeed(status: Dataset, route: str) -> None:
    if not status:
        raise ArchiveError(route, NetFault.BROKEN, "wanted an answer, the connection ended or nothing came in time")
    if status.Status != 0x0000:
        hints = {0xA801: "; does the archive know our AE title and move_port?"}
        problem = f"wanted success, the archive answered status 0x{status.Status:04X}{hints.get(status.Status, '')}"
        raise ArchiveError(route, NetFault.FAILED, problem)


def _dataset(keys: dict[str, str]) -> Dataset:
    made = Dataset()
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


def _plain(answer: Dataset, keys: dict[str, str]) -> dict[str, Any]:
    """Return the values asked for; what cannot be read counts as not told."""
    found: dict[str, Any] = {}
    for keyword in keys:
        try:
            value = answer.get(keyword)
        except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError, RecursionError):
            continue
        found[keyword] = (
            [str(v) for v in value] if isinstance(value, MultiValue) else "" if value is None else str(value)
        )
    return found


def series_of(study_uid: str, answers: Sequence[dict[str, Any]]) -> list[SeriesRecord]:
    """Turn answers at SERIES level into records, those with an impossible UID left out."""
    made = {
        uid: SeriesRecord(
            study_uid,
            uid,
            str(a.get("Modality", "")).strip(),
            str(a.get("SeriesDescription", "")),
            integer(a.get("NumberOfSeriesRelatedInstances")) or None,
            integer(a.get("SeriesNumber")),
        )
        for a in answers
        if is_uid(uid := str(a.get("SeriesInstanceUID", "")))
    }
    return [made[uid] for uid in sorted(made)]


def instances_of(answers: Sequence[dict[str, Any]]) -> tuple[InstanceRecord, ...]:
    """Turn answers at IMAGE level into records, sorted by number and UID."""
    made = {
        uid: InstanceRecord(uid, str(a.get("SOPClassUID", "")), integer(a.get("InstanceNumber")))
        for a in answers
        if is_uid(uid := str(a.get("SOPInstanceUID", "")))
    }
    return tuple(sorted(made.values(), key=lambda one: (one.number, one.uid)))


def integer(value: object) -> int:
    """Return a number an archive sent, 0 where it is none."""
    try:
        return int(str(value))
    except ValueError:
        return 0
