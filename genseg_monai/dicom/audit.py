"""The audit log: who did what and when, one line an object, each sealed together with the line before.

No line holds an original value: pseudonyms, new UIDs, counts, reasons, and of refused files the SHA-256 of their bytes.
A seal is an HMAC under the project's key over the line and the seal before it: without the key no line can be changed,
added, or dropped from the middle.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from genseg_monai.dicom.uids import Key
from genseg_monai.errors import UserError

__all__ = ["AuditLog", "verify_audit"]

_START = "0" * 64


class AuditLog:
    """An append-only file of JSON lines, mode 0600, held by one writer at a time: two would break the chain of seals.

    Args:
        path: the file; a log that exists is checked and continued, a line cut off by a crash is dropped.
        key: seals the lines.

    Raises:
        UserError: the log that exists was changed or sealed with another key, or another run writes it.

    Example:
        >>> import tempfile
        >>> key, path = Key(bytes(32)), Path(tempfile.mkdtemp()) / "audit.jsonl"
        >>> with AuditLog(path, key) as log:
        ...     log.write("deidentified", patient="4KEW3T25ICUHSRI4")
        >>> verify_audit(path, key)
        (True, '')
    """

    def __init__(self, path: Path, key: Key) -> None:
        self._key = key
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise UserError(path.name, "another run is writing here; wait for it to end") from None
        lines, whole = _lines(path)
        ok, reason, self._last, self._number = _check(lines, key)
        if not ok:
            os.close(self._descriptor)
            raise UserError(
                path.name,
                f"wanted an audit log sealed with this key, got one where {reason}; keep it, use another folder",
            )
        os.ftruncate(self._descriptor, whole)

    def write(self, event: str, **facts: object) -> None:
        """Append one line; `facts` must hold no original value."""
        self._number += 1
        record = {
            "n": self._number,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": _who(),
            "event": event,
        }
        body = json.dumps({**record, **facts}, sort_keys=True)
        self._last = self._key.sign(f"{self._last}{body}".encode())
        os.write(self._descriptor, f'{{"record": {body}, "seal": "{self._last}"}}\n'.encode())

    def close(self) -> None:
        """Bring the lines to the disk and close the file."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def verify_audit(path: Path, key: Key) -> tuple[bool, str]:
    """Check every seal of a log; returns whether it is whole, and otherwise what is wrong."""
    return _check(_lines(path)[0], key)[:2]


def _lines(path: Path) -> tuple[list[str], int]:
    """Return the complete lines of a log and how many bytes they take."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    return content[:whole].decode("utf-8", "replace").splitlines(), whole


def _check(lines: list[str], key: Key) -> tuple[bool, str, str, int]:
    last = _START
    for number, line in enumerate(lines, 1):
        body, _, rest = line.removeprefix('{"record": ').rpartition(', "seal": "')
        last = key.sign(f"{last}{body}".encode())
        if rest != f'{last}"}}' or f'"n": {number},' not in body:
            return False, f"line {number} does not fit its seal", last, number
    return True, "", last, len(lines)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"
