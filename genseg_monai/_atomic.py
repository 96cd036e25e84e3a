"""Files that are either whole or not there: written beside their place, forced to the disk, then moved onto it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a temporary file to write; when the block ends well it becomes `path`, at once.

    The temporary file lies in the same folder (made where it is missing), begins with a dot and ends as `path` does,
    so that writers which go by the ending work. When the block raises it is removed, and `path` is as it was.

    Args:
        path: the file to write.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with whole_file(folder / "scores.csv") as temporary:
        ...     _ = temporary.write_text("dice")
        >>> [file.name for file in folder.iterdir()]
        ['scores.csv']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
