"""Which object a stream of DICOM bytes is, from its first kilobytes, without building a data set.

Runs on every instance while it arrives, so it is a plain walk over element headers (PS3.5 section 7): no recursion, no
value read but four UIDs, nothing of any length trusted. What it cannot walk
(deflated, an unknown VR) is refused with None.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from genseg_monai.pacs.records import is_uid

__all__ = ["HEAD_BYTES", "LONG_HEAD_BYTES", "Identity", "identify", "identify_file", "meta_of"]

_IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_DEFLATED = {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.8.1"}
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"}
_SHORT |= {b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
_ITEM, _END_ITEM, _END_SEQUENCE = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_WANTED = {0x00080016: 0, 0x00080018: 1, 0x0020000D: 2, 0x0020000E: 3}
_LAST = 0x0020000E
_UNDEFINED = 0xFFFFFFFF
_MAX_STEPS = 20_000
_MAX_DEPTH = 10_000
HEAD_BYTES = 2**16
LONG_HEAD_BYTES = 2**24  # a segmentation names every slice it was drawn on before its own study and series


class _Order:
    """The encodings of one byte order, compiled once."""

    def __init__(self, mark: str) -> None:
        self.tag, self.short, self.long = (struct.Struct(mark + form) for form in ("HH", "2sH", "I"))


_LITTLE, _BIG = _Order("<"), _Order(">")


@dataclass(frozen=True)
class Identity:
    """The four UIDs an instance is known by; all are digits and points."""

    sop_class: str
    sop_instance: str
    study: str
    series: str


def identify(data: bytes | memoryview, transfer_syntax: str) -> Identity | None:
    """Walk a data set without file meta information.

    Args:
        data: its beginning; more than the elements up to SeriesInstanceUID is not looked at.
        transfer_syntax: how it is encoded.

    Returns:
        Its UIDs, or None where one is missing, impossible, or not reached.
    """
    if transfer_syntax in _DEFLATED:
        return None
    order = _BIG if transfer_syntax == _BIG_ENDIAN else _LITTLE
    read_tag = order.tag.unpack_from
    implicit = [transfer_syntax == _IMPLICIT]  # a stack: what holds inside each open sequence and item
    found = ["", "", "", ""]
    position = 0
    try:
        for _ in range(_MAX_STEPS):
            group, element = read_tag(data, position)
            tag = group << 16 | element
            if len(implicit) == 1 and tag > _LAST:
                break
            vr, start, length = _value(data, position, tag, implicit[-1], order)
            if tag in (_END_ITEM, _END_SEQUENCE):
                implicit.pop()
                if not implicit:
                    return None
                position = start
            elif length == _UNDEFINED:  # a sequence or an item: step inside, it ends at a delimiter
                implicit.append(implicit[-1] or vr == b"UN")  # PS3.5 6.2.2: unknown ones are implicit inside
                if len(implicit) > _MAX_DEPTH:
                    return None
                position = start
            else:
                if tag in _WANTED and len(implicit) == 1:
                    if length > 64 or start + length > len(data):
                        return None
                    found[_WANTED[tag]] = bytes(data[start : start + length]).decode("ascii").rstrip("\0 ")
                    if tag == _LAST:
                        break
                position = start + length
    except (struct.error, ValueError):  # the beginning was not enough, or is no data set
        return None
    return Identity(*found) if all(map(is_uid, found)) else None


def identify_file(data: bytes | memoryview) -> Identity | None:
    """Walk the beginning of a DICOM file: preamble, file meta information, data set."""
    syntax, end = meta_of(data)
    return identify(memoryview(data)[end:], syntax) if is_uid(syntax) else None


def meta_of(data: bytes | memoryview) -> tuple[str, int]:
    """Return the transfer syntax of a file and where its data set begins; an empty text where there is none."""
    if bytes(data[128:132]) != b"DICM":
        return "", 0
    position, syntax = 132, ""
    try:
        while struct.unpack_from("<H", data, position)[0] == 2:
            tag = 0x00020000 | struct.unpack_from("<H", data, position + 2)[0]
            _, start, length = _value(data, position, tag, False, _LITTLE)
            if tag == 0x00020010:
                syntax = bytes(data[start : start + min(length, 64)]).decode("ascii").rstrip("\0 ")
            position = start + length
    except (struct.error, ValueError):
        return "", 0
    return syntax, position


def _value(data: bytes | memoryview, position: int, tag: int, implicit: bool, order: _Order) -> tuple[bytes, int, int]:
    """Return the VR of an element, where its value starts, and its length."""
    if implicit or tag >> 16 == 0xFFFE:
        return b"", position + 8, order.long.unpack_from(data, position + 4)[0]
    vr, length = order.short.unpack_from(data, position + 4)
    if vr in _SHORT:
        return vr, position + 8, length
    if vr in _LONG:
        return vr, position + 12, order.long.unpack_from(data, position + 8)[0]
    raise ValueError("no such VR")
