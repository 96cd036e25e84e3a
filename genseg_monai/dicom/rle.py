"""The ends of RLE segments (DICOM PS3.5 Annex G): bytes that no decoder reads may hold text.

Each segment is a run of PackBits commands that fill one byte plane of rows x columns; what follows the last command is
padding. It is cut off, except for the one byte that keeps the length even.
"""

from __future__ import annotations

__all__ = ["cut_frame"]

_HEADER = 64


def cut_frame(frame: bytes, size: int) -> bytes:
    """Return an RLE frame without the bytes between and behind its segments.

    Args:
        frame: header of 16 little-endian numbers, then the segments.
        size: bytes each segment decodes to, rows x columns.

    Raises:
        ValueError: the header points outside the frame, or a segment ends before it is full.

    Example:
        >>> header = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
        >>> cut_frame(header + bytes([0xFD, 7]) + b"Jane Doe", 4)[64:].hex()
        'fd07'
    """
    numbers = [int.from_bytes(frame[i : i + 4], "little") for i in range(0, _HEADER, 4)]
    count, starts = numbers[0], numbers[1:]
    if len(frame) < _HEADER or not 1 <= count <= 15 or starts[0] != _HEADER:
        raise ValueError("the RLE header is wrong")
    stops = [*starts[1:count], len(frame)]
    segments = [_used(frame, start, stop, size) for start, stop in zip(starts, stops, strict=False)]
    offsets = [_HEADER + sum(map(len, segments[:i])) for i in range(count)]
    header = b"".join(number.to_bytes(4, "little") for number in (count, *offsets, *[0] * (15 - count)))
    return header + b"".join(segments)


def _used(frame: bytes, start: int, stop: int, size: int) -> bytes:
    """Return the bytes of one segment up to the command that fills its plane, padded to an even length."""
    at, left = start, size
    while left > 0:
        if at >= stop:
            raise ValueError("an RLE segment ends before it is full")
        command = frame[at]
        if command < 128:
            at, left = at + command + 2, left - command - 1
        elif command > 128:
            at, left = at + 2, left - 257 + command
        else:
            at += 1
    if at > stop or stop > len(frame):
        raise ValueError("an RLE segment reaches beyond its end")
    used = frame[start:at]
    return used + b"\0" * (len(used) % 2)
