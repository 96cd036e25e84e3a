"""Values of raw elements, decoded without pydicom's conversions: those warn, and their warnings hold the values.

Encodings: DICOM PS3.5, section 6.2.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.weigh import weigh

__all__ = ["Fields"]


_ELEMENTS = 1_500_000
_UID = re.compile(r"[0-9.]{1,64}")


class Fields:
    """The values of one data set or sequence item, by tag.

    Args:
        elements: what pydicom split off, values still raw.
        little: whether numbers are little endian.
        path: what to name in an error.
        budget: how many elements sequences of known length may still hold, all together.
    """

    def __init__(self, elements: Dataset, little: bool, path: Path, budget: list[int] | None = None) -> None:
        self._elements, self._order, self._path = elements, "<" if little else ">", path
        self._budget = [_ELEMENTS] if budget is None else budget

    def __contains__(self, tag: int) -> bool:
        return tag in self._elements

    def __bool__(self) -> bool:
        return len(self._elements) > 0

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a value; empty where there is none."""
        element: Any = self._elements.get_item(tag)  # None where there is none
        value = b"" if element is None else element.value
        return value if isinstance(value, bytes) else b""

    def texts(self, tag: int) -> tuple[str, ...]:
        """Return the parts of a CS, IS or DS value."""
        text = self.raw(tag).decode("ascii", "replace")
        return tuple(part.strip(" \0") for part in text.split("\\")) if text.strip(" \0") else ()

    def word(self, tag: int) -> str:
        """Return the first part of a CS value."""
        return next(iter(self.texts(tag)), "")

    def name(self, tag: int) -> str:
        """Return an LO or SH value; whatever its character set, it never fails."""
        data = self.raw(tag).strip(b" \0")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def uid(self, tag: int) -> str:
        """Return a UID; empty where there is none.

        Raises:
            SeriesError: it has other characters than digits and points, or more than 64.
        """
        value = self.raw(tag).decode("ascii", "replace").strip(" \0")
        if value and not _UID.fullmatch(value):
            raise SeriesError(
                self._path,
                SeriesFault.BAD_UID,
                f"wanted a UID of at most 64 digits and points in ({tag:08x}), got others",
            )
        return value

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Return the numbers of a DS or IS value.

        Raises:
            SeriesError: a part is no finite number.
        """
        try:
            found = tuple(float(text) for text in self.texts(tag) if text)
        except ValueError:
            found = (math.nan,)
        if not all(map(math.isfinite, found)):
            raise SeriesError(self._path, SeriesFault.UNREADABLE, f"wanted numbers in ({tag:08x}), got others")
        return found

    def count(self, tag: int, default: int) -> int:
        """Return an IS value; 0 where it is no whole number."""
        number = next(iter(self.numbers(tag)), float(default))
        return int(number) if number == int(number) else 0

    def whole(self, tag: int, default: int, *, signed: bool = False) -> int:
        """Return a US (or SS) value."""
        value = self.raw(tag)
        if not value:
            return default
        return int(struct.unpack(self._order + ("h" if signed else "H"), value[:2])[0]) if len(value) >= 2 else 0

    def items(self, tag: int) -> list[Fields]:
        """Return the items of a sequence.

        Raises:
            OverflowError: it holds more elements than any object needs.
        """
        raw = self._elements.get_item(tag)
        if raw is None:
            return []
        if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes):
            weigh(raw.value, raw.is_implicit_VR, raw.is_little_endian, self._budget)
        value = self._elements[tag].value
        items = value if isinstance(value, Sequence) else ()
        return [Fields(item, self._order == "<", self._path, self._budget) for item in items]
