"""Search of every byte a command wrote, names of files and folders included, packed content unpacked."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydicom import dcmread

__all__ = ["find_leaks", "tree"]


def find_leaks(folder: Path, secrets: Iterable[str]) -> list[str]:
    """Return `file: secret` for every secret found below a folder, in any case, as ASCII or UTF-16."""
    wanted = {text: (text.lower().encode(), text.lower().encode("utf-16-le")) for text in secrets}
    found = []
    for path in sorted(folder.rglob("*")):
        contents = [str(path.relative_to(folder)).encode()]
        if path.is_file():
            contents += _unpacked(path)
        contents = [content.lower() for content in contents]
        for text, forms in wanted.items():
            if any(form in content for content in contents for form in forms):
                found.append(f"{path.relative_to(folder)}: {text}")
    return found


def _unpacked(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    yield content
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    if content[128:132] == b"DICM":
        dataset = dcmread(path)
        if dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1.99":
            yield zlib.decompress(
                content[132 + 12 + dataset.file_meta.FileMetaInformationGroupLength :], -zlib.MAX_WBITS
            )
        if "PixelData" in dataset and dataset.file_meta.TransferSyntaxUID.is_compressed:
            yield dataset.pixel_array.tobytes()


def tree(folder: Path, *, without: Iterable[str] = ("audit.jsonl",)) -> dict[str, bytes]:
    """Return every file below a folder by its relative path, to compare two runs."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in without
    }
