"""What has been done: one line of JSON an event, written by any number of processes, read back after any crash.

A line is appended whole, under a lock; a line that a crash cut short is left out when reading and closed before the
next one is written. Who works on a cell holds a lock of the operating system on a file of its own: the lock goes when
its process goes, however that happens, so that nothing is ever locked out and nothing runs twice at a time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = ["Ledger", "State"]

_LOCK_WAIT = 60  # seconds; a line takes milliseconds


class State(StrEnum):
    """The last thing known about a cell."""

    STARTED = "started"
    STOPPED = "stopped"
    """Asked to leave; goes on where it was."""
    DONE = "done"
    FAILED = "failed"


class Ledger:
    """The file ``ledger.jsonl`` of a study.

    Args:
        folder: of the study.

    Example:
        >>> import tempfile
        >>> ledger = Ledger(Path(tempfile.mkdtemp()))
        >>> ledger.append("plain_n40_s0", State.DONE, dice=0.5)
        >>> ledger.latest()["plain_n40_s0"]["dice"], ledger.is_done("plain_n40_s0"), ledger.is_done("another")
        (0.5, True, False)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "ledger.jsonl"

    def append(self, cell: str, state: State, **facts: Any) -> None:
        """Write one line.

        Args:
            cell: its id.
            state: what has happened to it.
            **facts: anything JSON can hold.
        """
        line = json.dumps({"cell": cell, "state": str(state), "time": round(time.time(), 1), **facts})
        with self.locked("ledger"), self.path.open("ab+") as file:
            if file.tell() and _last_byte(file) != b"\n":
                file.write(b"\n")  # a line that a crash cut short
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """Return every line that is whole, the oldest first."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_bytes().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "cell" in record and record.get("state") in list(State):
                found.append(record)
        return found

    def latest(self) -> dict[str, dict[str, Any]]:
        """Return the last record of each cell."""
        return {record["cell"]: record for record in self.records()}

    def is_done(self, cell: str) -> bool:
        """Tell whether a cell is finished."""
        return self.latest().get(cell, {}).get("state") == State.DONE

    def deaths(self, cell: str) -> int:
        """Count how often in a row a process began a cell and vanished without a word."""
        states = [record["state"] for record in self.records() if record["cell"] == cell]
        count = 0
        while count < len(states) and states[-1 - count] == State.STARTED:
            count += 1
        return count

    @contextmanager
    def claim(self, cell: str) -> Iterator[bool]:
        """Hold a cell for this process; gives False, at once, if another one has it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self._lock_file(cell))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Wait for a lock, and hold it while the block runs."""
        from filelock import FileLock

        with FileLock(self._lock_file(what), timeout=_LOCK_WAIT):
            yield

    def _lock_file(self, name: str) -> str:
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder / f"{name}.lock")


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    byte: bytes = file.read(1)
    return byte
