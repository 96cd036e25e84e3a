"""How much a data set would weigh once it is parsed: its elements, counted in the bytes, nothing built.

A sequence of known length costs pydicom nothing until it is looked into, and then a kilobyte for every eight bytes: a
file of 100 MB could take 10 GB. So the elements inside are counted first. Encoding: DICOM PS3.5 section 7.
"""

from __future__ import annotations

import mmap
import struct

from pydicom.datadict import dictionary_has_tag, dictionary_VR

__all__ = ["weigh"]

_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset({b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN"})
_SHORT |= {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
_ITEM, _UNDEFINED = 0xFFFEE000, 0xFFFFFFFF
_FRAGMENT = (0xFFFE, 0xE000)


def weigh(data: bytes | mmap.mmap, implicit: bool, little: bool, budget: list[int], start: int = 0) -> None:
    """Count elements and items, also those in sequences of known length.

    Args:
        data: a data set, or the value of a sequence.
        implicit: whether representations are left out.
        little: whether numbers are little endian.
        budget: how many may still come; lowered.
        start: where in `data` to begin.

    Raises:
        OverflowError: there are more.

    Example:
        >>> budget = [3]
        >>> weigh(2 * bytes.fromhex("feff00e000000000"), implicit=True, little=True, budget=budget)
        >>> budget
        [1]
    """
    order = "<" if little else ">"
    read_tag, read_long = struct.Struct(order + "HH").unpack_from, struct.Struct(order + "L").unpack_from
    read_short = struct.Struct(order + "H").unpack_from
    ends: list[int] = []  # of the sequences and items around, where their length is known
    at, size = start, len(data)
    while True:
        while ends and at >= ends[-1]:
            at = ends.pop()
        if at + 8 > size:
            return
        budget[0] -= 1
        if budget[0] < 0:
            raise OverflowError
        group, element = read_tag(data, at)
        tag = group << 16 | element
        vr = b"" if implicit or group == 0xFFFE else bytes(data[at + 4 : at + 6])
        if vr in _LONG and at + 12 <= size:
            value, length = at + 12, read_long(data, at + 8)[0]
        elif vr in _SHORT:
            value, length = at + 8, read_short(data, at + 6)[0]
        else:
            value, length = at + 8, read_long(data, at + 4)[0]
        if tag == _ITEM or _is_sequence(tag, vr) or (length == _UNDEFINED and group != 0x7FE0):
            if length != _UNDEFINED:
                ends.append(min(value + length, ends[-1] if ends else size))
            at = value
        elif length == _UNDEFINED:  # compressed pixels: fragments, which are no data sets
            at = value
            while at + 8 <= size and read_tag(data, at) == _FRAGMENT:
                budget[0] -= 1
                at += 8 + read_long(data, at + 4)[0]
        else:
            at = value + (0 if group == 0xFFFE else length)


def _is_sequence(tag: int, vr: bytes) -> bool:
    if vr == b"SQ":
        return True
    return vr in (b"", b"UN") and dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"
