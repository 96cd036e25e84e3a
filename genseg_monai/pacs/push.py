"""Send objects to an archive: C-STORE over two associations, or STOW-RS.

Data sets go from the file to the wire as they are, without being parsed. A second association hides most of the time
an archive takes to answer; more bring nothing (measured).
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genseg_monai.dicom.output import hash_file
from genseg_monai.errors import UserError
from genseg_monai.pacs.dicomweb import WebArchive
from genseg_monai.pacs.faults import ArchiveError, NetFault, retrying
from genseg_monai.pacs.identify import HEAD_BYTES, LONG_HEAD_BYTES, identify_file, meta_of
from genseg_monai.pacs.settings import PacsSettings
from genseg_monai.pacs.store import StoreLine, storing_by_hand
from genseg_monai.pacs.wire import Line

__all__ = ["Parcel", "Pushed", "find_parcels", "push"]

_ASSOCIATIONS = 2
_BATCH = 25
_MAX_CONTEXTS = 126
_WARNINGS = {0xB000, 0xB006, 0xB007}  # taken, something in it coerced


@dataclass(frozen=True)
class Parcel:
    """A file to send, and what has to be negotiated for it."""

    path: Path
    sop_class: str
    syntax: str
    sop_instance: str
    start: int
    """Where the data set begins in the file."""


@dataclass(frozen=True)
class Pushed:
    """How a push ended.

    Attributes:
        sent: objects the archive took.
        refused: the files it did not take, and why not.
    """

    sent: int
    refused: tuple[tuple[Path, str], ...]

    @property
    def failed(self) -> Counter[str]:
        """Return how many objects it did not take, by reason."""
        return Counter(reason for _, reason in self.refused)


def find_parcels(path: Path) -> list[Parcel]:
    """Return the DICOM files at or below a path, sorted.

    Raises:
        UserError: there is none, or a file with that ending cannot be sent.
    """
    if not path.exists():
        raise UserError(path, "wanted a DICOM file or a folder of them, there is no such path")
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    found = []
    for one in files:
        with one.open("rb") as file:
            head = file.read(HEAD_BYTES)
            identity, (syntax, start) = identify_file(head), meta_of(head)
            if identity is None and syntax:
                identity = identify_file(head + file.read(LONG_HEAD_BYTES))
        if identity is not None:
            found.append(Parcel(one, identity.sop_class, syntax, identity.sop_instance, start))
        elif one == path or one.suffix.lower() == ".dcm":
            problem = "wanted only DICOM files with true UIDs and file meta information"
            raise UserError(
                path, f"{problem}, got another, with SHA-256 {hash_file(one)}"
            )  # its name may be a patient's
    if not found:
        raise UserError(path, "wanted DICOM files, found none; `genseg predict --dicom-seg` writes some")
    return found


def push(
    path: Path | str,
    settings: PacsSettings,
    route: str = "c-store",
    *,
    progress: Callable[[int, int], None] | None = None,
    associations: int = _ASSOCIATIONS,
) -> Pushed:
    """Send a file or folder.

    Args:
        path: of DICOM files.
        settings: of the archive.
        route: `c-store` or `stow-rs`.
        progress: called with the number of objects sent and of all.
        associations: at the same time, for C-STORE.

    Raises:
        UserError: nothing to send, or no such route.
        ArchiveError: nobody there, or not for us.
    """
    if route == "c-store":
        settings.need_dimse(route)
    elif route == "stow-rs":
        settings.need_web(route)
    else:
        raise UserError("--route", f"wanted c-store or stow-rs, got {route!r}")
    sender = _Sender(find_parcels(Path(path)), settings, progress)
    try:
        if route == "stow-rs":
            sender.by_web()
        else:
            sender.by_store(associations)
    except ArchiveError as error:
        so_far = f"{sender.sent} of {sender.total} objects were sent, {len(sender.refused)} not taken"
        raise ArchiveError(error.where, error.reason, f"{error.problem}; {so_far}") from None
    return Pushed(sender.sent, tuple(sorted(sender.refused)))


class _Sender:
    """The parcels of one push, given out to however many associations."""

    def __init__(
        self, parcels: Iterable[Parcel], settings: PacsSettings, progress: Callable[[int, int], None] | None
    ) -> None:
        # alike ones together: an association needs only the contexts of its own
        self.waiting = deque(sorted(parcels, key=lambda one: (one.sop_class, one.syntax, one.path)))
        self.total, self.sent = len(self.waiting), 0
        self.refused: list[tuple[Path, str]] = []
        self.settings, self.progress = settings, progress
        self.lock = threading.Lock()
        self.fault: Exception | None = None

    def by_store(self, associations: int) -> None:
        """Send over DIMSE."""
        workers = [threading.Thread(target=self._work) for _ in range(min(associations, self.total))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self.fault is not None and self.sent + len(self.refused) < self.total:
            raise self.fault

    def by_web(self) -> None:
        """Send over DICOMweb, some objects a request."""
        with WebArchive(self.settings) as archive:
            while self.waiting:
                batch = [self.waiting.popleft() for _ in range(min(_BATCH, len(self.waiting)))]
                paths = [one.path for one in batch]
                try:
                    self._again(lambda paths=paths: archive.store(paths))  # type: ignore[misc]
                    self._note(batch)
                except ArchiveError as error:
                    if error.reason not in (NetFault.FAILED, NetFault.DECLINED):
                        raise
                    for one in batch:  # which of them is it?
                        self._one_by_web(archive, one)

    def _one_by_web(self, archive: WebArchive, parcel: Parcel) -> None:
        try:
            archive.store([parcel.path])
            self._note([parcel])
        except ArchiveError as error:
            self._note([parcel], error.reason.value)

    def _again(self, work: Callable[[], None]) -> None:
        retrying(work, self.settings.attempts, self.settings.retry_seconds)

    def _work(self) -> None:
        try:
            while self.waiting and self.fault is None:
                self._again(self._one_association)
        except Exception as error:  # of whatever kind: it would end with this thread, and nobody be told
            self.fault = self.fault or error

    def _one_association(self) -> None:
        """Send until nothing waits, or the next parcel needs a context this association lacks."""
        with self.lock:
            offers = sorted({(one.sop_class, one.syntax) for one in self.waiting})[:_MAX_CONTEXTS]
        if not offers:
            return
        line, moved = Line(self.settings, "c-store", offers=[(kind, [syntax]) for kind, syntax in offers]), False
        try:
            with line as association, storing_by_hand(association, line.connection) as store:
                while (parcel := self._next(set(offers))) is not None:
                    self._one(store, parcel)
                    moved = True
        except ArchiveError as error:
            if not (moved and error.passing):  # one that brought something is no failed attempt
                raise

    def _one(self, store: StoreLine, parcel: Parcel) -> None:
        if not store.takes(parcel.sop_class, parcel.syntax):
            self._note([parcel], "not_negotiated")
            return
        try:
            status = store.send(parcel.path, parcel.start, parcel.sop_class, parcel.sop_instance, parcel.syntax)
        except ArchiveError:
            self._back(parcel)
            raise
        except OSError:
            self._note([parcel], "unreadable")
            raise ArchiveError("c-store", NetFault.BROKEN, "a file became unreadable while it was sent") from None
        taken = status == 0 or status in _WARNINGS
        self._note([parcel], "" if taken else f"status_{status:04X}")

    def _next(self, offers: set[tuple[str, str]]) -> Parcel | None:
        with self.lock:
            if self.waiting and (self.waiting[0].sop_class, self.waiting[0].syntax) in offers:
                return self.waiting.popleft()
            return None

    def _back(self, parcel: Parcel) -> None:
        with self.lock:
            self.waiting.appendleft(parcel)

    def _note(self, parcels: Sequence[Parcel], reason: str = "") -> None:
        """Count objects as sent, or as refused for a reason."""
        with self.lock:
            if reason:
                self.refused += [(one.path, reason) for one in parcels]
            else:
                self.sent += len(parcels)
            done = self.sent + len(self.refused)
        if self.progress:
            self.progress(done, self.total)
