"""A multipart/related body, cut into its parts while it streams (RFC 2046, PS3.18 section 8.6).

Large parts are never whole in memory: they are handed on in pieces. Only the headers of a part and a few bytes that
might be the beginning of a boundary are held back. Where the headers tell how long a part is, no boundary is looked for
inside it: looking costs half as much as receiving.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from genseg_monai.pacs.faults import ArchiveError, NetFault

__all__ = ["boundary_of", "parts"]

_MAX_HEADERS = 16_384
_LENGTH = re.compile(rb"(?:^|\r\n)content-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)


def boundary_of(content_type: str) -> bytes:
    """Return the boundary named in a Content-Type header.

    Raises:
        ArchiveError: the answer is not multipart.

    Example:
        >>> boundary_of('multipart/related; type="application/dicom"; boundary=abc')
        b'abc'
    """
    found = re.search(r';\s*boundary="?([^";,\s]{1,70})"?', content_type, re.IGNORECASE)
    if not content_type.lower().startswith("multipart/related") or not found:
        raise ArchiveError("wado-rs", NetFault.FAILED, "wanted a multipart answer, the archive sent another kind")
    return found[1].encode("ascii", "replace")


def parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[bytes | None]:
    r"""Yield the pieces of each part in order, and None at the end of each part.

    Args:
        chunks: the body as it comes.
        boundary: as named in the header.

    Raises:
        ArchiveError: the body ends before its closing boundary, or a part has endless headers.

    Example:
        >>> body = [b"--b\r\nContent-Type: x\r\n\r\none\r\n--", b"b\r\n\r\ntw", b"o\r\n--b--"]
        >>> list(parts(body, b"b"))
        [b'one', None, b'tw', b'o', None]
    """
    mark = b"\r\n--" + boundary
    held = b"\r\n"  # the first boundary may lack the line end that belongs to all others
    state = "before"  # before the first boundary | after one | in headers | in body
    told = 0  # bytes still to come of a part that told its length
    for chunk in chunks:
        held = held + chunk if held else chunk
        while True:
            if told and held:
                piece = held[:told]
                yield piece
                told -= len(piece)
                held = held[len(piece) :]
            if told:
                break
            if state in ("before", "body"):
                at = held.find(mark)
                if at < 0:
                    safe = _safe_end(held, mark)
                    if state == "body" and safe:
                        yield held[:safe]
                    held = held[safe:]
                    break
                if state == "body":
                    if at:
                        yield held[:at]
                    yield None
                held, state = held[at + len(mark) :], "after"
            if state == "after":
                if len(held) < 2:
                    break
                if held[:2] == b"--":
                    return
                state = "headers"
            if state == "headers":
                end = held.find(b"\r\n\r\n")
                if end < 0:
                    if len(held) > _MAX_HEADERS:
                        raise ArchiveError("wado-rs", NetFault.FAILED, "a part of the answer has endless headers")
                    break
                length = _LENGTH.search(held, 0, end + 2)
                told = int(length[1]) if length else 0
                # a body may begin with a boundary at once: leave it its line end
                held, state = held[end + 4 :], "body"
    raise ArchiveError("wado-rs", NetFault.BROKEN, "the answer ended before its last part")


def _safe_end(held: bytes, mark: bytes) -> int:
    """Return how much of `held` cannot be the beginning of a boundary."""
    start = max(0, len(held) - len(mark) + 1)
    at = held.find(b"\r", start)
    return len(held) if at < 0 else at
