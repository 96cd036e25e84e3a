"""What may come in: only the series that was asked for, only as much as allowed, straight to disk and unparsed."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from genseg_monai.pacs.faults import ArchiveError, NetFault
from genseg_monai.pacs.identify import LONG_HEAD_BYTES, Identity, identify_file
from genseg_monai.pacs.records import InstanceRecord, SeriesRecord
from genseg_monai.pacs.settings import Limits
from genseg_monai.pacs.spool import hashed

__all__ = ["Arriving", "Inbox"]

_MAX_REFUSED = 16
_HEAD = 8192  # bytes; the header of an ordinary image ends well before
_SPACE_EVERY = 32 * 2**20  # bytes between two looks at the free space


class Inbox:
    """Takes the instances of one series, from whichever route they come.

    Safe to use from several threads. The first fault stops it: it takes nothing more and `check` raises that fault.

    Args:
        series: what was asked for; its instances, if listed, are the only ones taken.
        folder: where to write; what lies there already is not asked for again.
        limits: bounds of bytes, instances and seconds.
        route: what to name in an error.
        progress: called with (instances, bytes) after each new instance.
        clock: seconds, for the time limit.
    """

    def __init__(
        self,
        series: SeriesRecord,
        folder: Path,
        limits: Limits,
        route: str,
        progress: Callable[[int, int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.series, self.folder, self.limits, self.route = series, folder, limits, route
        self.fault: ArchiveError | None = None
        self.received = self.refused = self.bytes = 0  # new instances, unwanted ones, everything read from the wire
        self._progress, self._clock, self._deadline = progress, clock, clock() + limits.series_seconds
        self._base = os.path.join(folder, "")
        self._lock = threading.Lock()
        self._expected = {one.uid for one in series.instances}
        self._count = len(self._expected) or series.count or 0
        self._messages = self._since_object = self._since_look = 0
        for stale in folder.glob("*.part*"):
            stale.unlink()
        self._held = {path.stem for path in folder.glob("*.dcm")}

    @property
    def held(self) -> int:
        """Return how many instances lie in the folder."""
        return len(self._held)

    @property
    def complete(self) -> bool:
        """Say whether every instance the archive lists is there."""
        if self._expected:
            return {hashed(uid) for uid in self._expected} <= self._held
        return bool(self._count) and len(self._held) == self._count

    def missing(self) -> tuple[InstanceRecord, ...]:
        """Return the listed instances that are not there."""
        return tuple(one for one in self.series.instances if hashed(one.uid) not in self._held)

    def stop(self, reason: NetFault, problem: str) -> ArchiveError:
        """Take nothing more; return the fault that stopped it (the first one)."""
        with self._lock:
            if self.fault is None:
                self.fault = ArchiveError(self.route, reason, problem)
            return self.fault

    def check_complete(self) -> None:
        """Prove that everything the archive lists has come.

        Raises:
            ArchiveError: the first fault, or instances are missing.
        """
        self.check()
        if not self.complete:
            problem = f"wanted {self._count or 'some'} instances, got {self.held}"
            if self.refused:
                raise ArchiveError(self.route, NetFault.UNEXPECTED, f"{problem} and {self.refused} of another series")
            raise ArchiveError(self.route, NetFault.COUNT, problem)

    def check(self) -> None:
        """Raise what stopped the transfer.

        Raises:
            ArchiveError: the first fault.
        """
        if self.fault is not None:
            raise self.fault

    def count_bytes(self, size: int) -> None:
        """Note bytes from the wire, before they are kept anywhere.

        Raises:
            ArchiveError: too many, too late, or no room for them.
        """
        self.check()
        self.bytes += size
        self._since_object += size
        self._since_look += size
        limits = self.limits
        if self._since_object > limits.object_bytes:
            raise self.stop(NetFault.BOUNDS, f"wanted objects of at most {limits.object_bytes} bytes, got a larger one")
        if self.bytes > limits.series_bytes:
            raise self.stop(NetFault.BOUNDS, f"wanted at most {limits.series_bytes} bytes a series, got more")
        if self._clock() > self._deadline:
            raise self.stop(NetFault.BOUNDS, f"wanted a series within {limits.series_seconds:g} s, it takes longer")
        if self._since_look > _SPACE_EVERY or self.bytes == size:
            self._since_look = 0
            if shutil.disk_usage(self.folder).free < limits.reserve_bytes + size:
                raise self.stop(NetFault.SPACE, "the disk is nearly full; make room and run it again")

    def take(self, pieces: list[bytes | memoryview], identity: Identity | None) -> bool:
        """Take one instance held in memory.

        Args:
            pieces: the whole file.
            identity: which instance it is, None where it does not say so.

        Returns:
            Whether it is wanted.
        """
        name = self._admit(identity)
        if name is None:
            return False
        partial = self.folder / f"{name}.part-{threading.get_ident()}"
        try:
            with partial.open("wb", buffering=0) as file:
                for piece in pieces:
                    _write_all(file, piece)
            self._keep(partial, name)
        except OSError:
            partial.unlink(missing_ok=True)
            self.stop(NetFault.SPACE, "could not write; is the disk full? make room and run it again")
            return False
        return True

    def take_file(self, partial: Path, head: bytes) -> bool:
        """Take one instance already in a file of this folder; `head` is its beginning. Say whether it is wanted."""
        identity = identify_file(head)
        if identity is None:  # a long header
            with partial.open("rb") as file:
                identity = identify_file(file.read(LONG_HEAD_BYTES))
        name = self._admit(identity)
        if name is None:
            partial.unlink(missing_ok=True)
            return False
        self._keep(partial, name)
        return True

    def _admit(self, identity: Identity | None) -> str | None:
        """Return the name of the file for an instance, or None where it is not wanted."""
        self._since_object = 0
        self._messages += 1
        if self.fault is not None:
            return None
        if self._count and self._messages > 2 * self._count + 16:
            self.stop(NetFault.BOUNDS, f"wanted {self._count} instances, the archive does not stop sending")
            return None
        series = self.series
        wrong = (
            identity is None
            or (identity.study, identity.series) != (series.study_uid, series.series_uid)
            or (self._expected and identity.sop_instance not in self._expected)
        )
        if wrong or identity is None:
            self.refused += 1
            if self.refused > _MAX_REFUSED:
                self.stop(NetFault.UNEXPECTED, "wanted one series, the archive keeps sending instances of another")
            return None
        return hashed(identity.sop_instance)

    def _keep(self, partial: Path, name: str) -> None:
        with self._lock:
            if name in self._held:  # sent twice: the first one stays
                partial.unlink(missing_ok=True)
                return
            os.replace(partial, f"{self._base}{name}.dcm")
            self._held.add(name)
            self.received += 1
        if self._progress:
            self._progress(len(self._held), self.bytes)


class Arriving:
    """One instance on its way into a file of an inbox, piece by piece.

    Args:
        inbox: takes it at its end.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox, self._head = inbox, b""
        self._path = inbox.folder / f"{secrets.token_hex(8)}.part"
        self._name = str(self._path)  # opened for each instance: a Path takes its time
        self._file: io.FileIO | None = None

    def add(self, piece: bytes) -> None:
        """Write a piece."""
        if self._file is None:
            self._file = open(self._name, "wb", buffering=0)  # noqa: SIM115 - closed at the end of the part
        if len(self._head) < _HEAD:
            self._head += piece
        _write_all(self._file, piece)

    def end(self) -> None:
        """Hand the file to the inbox; the next piece begins another one."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._inbox.take_file(self._path, self._head)
        self._head = b""

    def drop(self) -> None:
        """Remove what has no end yet."""
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)


def _write_all(file: io.FileIO, piece: bytes | memoryview) -> None:
    """Write a piece to an unbuffered file, which may take it in several steps."""
    view = memoryview(piece)
    while len(view):
        view = view[file.write(view) :]
