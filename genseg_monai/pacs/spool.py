"""The private place where raw objects wait: mode 0700, names that say nothing, never more than the disk can hold.

Below the spool, `incoming/NAME/` holds one series, a file an instance, both named by a hash of their UIDs, so that no
value of DICOM is part of a path and a second run finds what the first one received. A file is complete or not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from genseg_monai._outcome import RunFailed
from genseg_monai.errors import UserError

__all__ = ["Spool", "drop_abandoned", "hashed", "passing_spool"]

_PASSING = "genseg-look-"
_STARTED = 60.0  # seconds after which a spool in use is locked


def hashed(*values: str) -> str:
    """Return 32 hexadecimal digits for any values.

    Example:
        >>> hashed("../../etc/passwd")
        '3754d6cb3a38e1185e5b382d5f3ef3f1'
    """
    return hashlib.sha256("\0".join(values).encode("utf-8", "surrogateescape")).hexdigest()[:32]


class Spool:
    """A private folder, held by one process at a time.

    Args:
        root: made with mode 0700 if missing.

    Raises:
        UserError: it is a link, belongs to somebody else, is open to others, or another run holds it.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, Spool(Path(folder) / "spool") as spool:
        ...     oct(stat.S_IMODE(spool.root.stat().st_mode)), len(spool.series_folder("1.2").name)
        ('0o700', 32)
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: int | None = None

    def __enter__(self) -> Spool:
        _private_folder(self.root)
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        self._lock = os.open(self.root / "lock", flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UserError(self.root.parent, "another run is writing here; wait for it to end") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def series_folder(self, series_uid: str) -> Path:
        """Return the folder of one series, made if missing."""
        return self.folder("incoming", hashed(series_uid))

    def folder(self, *parts: str) -> Path:
        """Return a folder below the spool, made with mode 0700 if missing."""
        path = self.root
        for part in parts:
            path = path / part
            path.mkdir(mode=0o700, exist_ok=True)
        return path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder that is gone afterwards."""
        path = Path(tempfile.mkdtemp(dir=self.root, prefix="scratch-"))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def drop_scratch(self) -> None:
        """Remove what a killed run left half done."""
        for path in self.root.glob("scratch-*"):
            shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove the spool and all raw copies in it.

        Raises:
            RunFailed: some of it stays.
        """
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.exists():
            raise RunFailed(self.root, "wanted to remove the raw copies, some are still there; remove the folder")


@contextmanager
def passing_spool() -> Iterator[Spool]:
    """Give a spool among the temporary files that is gone afterwards, as are those that killed runs left."""
    drop_abandoned()
    with tempfile.TemporaryDirectory(prefix=_PASSING) as folder, Spool(Path(folder) / "spool") as spool:
        yield spool


def drop_abandoned() -> None:
    """Remove the passing spools of killed runs: our own, and held by nobody."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PASSING}*"):
        try:
            found = path.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if ours and time.time() - found.st_mtime > _STARTED:
                with Spool(path / "spool"):
                    shutil.rmtree(path, ignore_errors=True)
        except (UserError, OSError):
            continue


def _private_folder(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    held = path.lstat()
    if not stat.S_ISDIR(held.st_mode) or held.st_uid != os.geteuid() or stat.S_IMODE(held.st_mode) & 0o077:
        raise UserError(path, "wanted a folder of your own with mode 0700, got another; remove it or type chmod 700")
