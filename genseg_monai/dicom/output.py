"""Files of an output folder: written whole or not at all, remembered for a later run, the same bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genseg_monai.errors import UserError

__all__ = ["Progress", "check_folders", "gzip_bytes", "hash_file", "walk_files", "write_atomic", "write_json"]

_CHUNK = 1 << 20


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, atomically."""
    write_atomic(path, (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode())


def gzip_bytes(content: bytes) -> bytes:
    """Compress without name and time stamp, at the level that is fast."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=buffer, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below a folder, sorted; links to folders are not followed."""
    for home, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(home) / name).is_file())


def check_folders(source: Path, out: Path) -> None:
    """Refuse folders that lie in each other; no message holds a path, which may name a patient.

    Raises:
        UserError: the input is no folder, or one folder lies in the other.
    """
    if not source.is_dir():
        raise UserError("IN", "wanted a folder of DICOM files, got none of that name; check the path")
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UserError("OUT", "wanted a folder apart from IN, got one inside the other; choose another")


class Progress:
    """What an earlier run of the same command into the same folder has done.

    Args:
        out: the output folder; the records lie in `.genseg` below it.
        settings: what must be alike in all runs into one folder (fingerprints of key and profile, ...).

    Raises:
        UserError: the folder was written with other settings.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        home = out / ".genseg"
        home.mkdir(parents=True, exist_ok=True)
        stored = home / "settings.json"
        if not stored.exists():
            write_json(stored, settings)
        before = json.loads(stored.read_text("utf-8"))
        changed = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
        if changed:
            raise UserError(
                "OUT", f"wanted the same {', '.join(changed)} as in the run before, got another; use a new folder"
            )
        self._path = home / "done.jsonl"
        self.records: dict[str, dict[str, Any]] = {}
        content = self._path.read_bytes() if self._path.exists() else b""
        whole = content.rfind(b"\n") + 1
        for line in content[:whole].splitlines():
            record = json.loads(line)
            self.records[record["id"]] = record
        if whole < len(content):
            os.truncate(self._path, whole)

    def add(self, name: str, **facts: Any) -> None:
        """Remember that something is done."""
        record = {"id": name, **facts}
        self.records[name] = record
        with self._path.open("ab") as file:
            file.write(json.dumps(record, sort_keys=True).encode() + b"\n")
