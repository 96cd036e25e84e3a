"""What a single value becomes: shifted dates, capped ages, dummies. Nothing here knows of tags."""

from __future__ import annotations

import re
from datetime import date, timedelta

__all__ = ["BYTES", "NUMBERS", "TEXT", "WIDTHS", "cap_age", "dummy", "is_number", "is_temporal", "shift", "words"]

TEXT = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
WIDTHS = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "SV": 8, "UV": 8, "AT": 4}
NUMBERS = frozenset({"DS", "IS", *WIDTHS})

_DUMMIES = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(NUMBERS, 0),
    **dict.fromkeys(BYTES, b"\0" * 8),  # divides by the width of every one of them
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "urn:removed",
}
_NUMBER = re.compile(r"[+-]?(\d{1,16}(\.\d*)?|\.\d{1,16})([eE][+-]?\d{1,3})?")
_DATE = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})")
_MOMENT = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)?([+-]\d{4})?")
_TIME = re.compile(r"\d{2}(:?\d{2}(:?\d{2}(\.\d{1,6})?)?)?")


def dummy(vr: str) -> object:
    """Return a value that is legal for a representation and means nothing."""
    return _DUMMIES[vr]


def is_temporal(text: str, vr: str) -> bool:
    """Tell whether a text is a date, a moment or a time of day and nothing else."""
    return bool({"DA": _DATE, "DT": _MOMENT, "TM": _TIME}[vr].fullmatch(text))


def shift(text: str, vr: str, days: int) -> str:
    """Return a date (DA) or moment (DT) so many days earlier, a time of day (TM) as it is; `` if it is none of them.

    Example:
        >>> shift("20240301", "DA", 1), shift("202403011530+0100", "DT", 1), shift("1530", "TM", 1)
        ('20240229', '202402291530+0100', '1530')
        >>> shift("Jane", "DA", 1)
        ''
    """
    if not is_temporal(text, vr):
        return ""
    if vr == "TM":
        return text
    year, month, day, *rest = (_DATE if vr == "DA" else _MOMENT).fullmatch(text).groups()  # type: ignore[union-attr]
    try:
        moved = date(int(year), int(month or 1), int(day or 1)) - timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    # a moment known to the month or year only stays as coarse
    kept = f"{moved:%Y%m%d}"[: 8 if day else 6 if month else 4] if moved.year >= 1000 else ""
    return kept + "".join(part or "" for part in rest) if kept else ""


def cap_age(text: str) -> str:
    """Return an age, `090Y` for all above 89 years; `` if it is no age."""
    if not re.fullmatch(r"\d{3}[DWMY]", text):
        return ""
    years = int(text[:3]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[text[3]]
    return "090Y" if years >= 90 else text


def is_number(text: str) -> bool:
    """Tell whether a decimal or integer string holds numbers and nothing else."""
    return all(not part.strip("\0 ") or _NUMBER.fullmatch(part.strip("\0 ")) for part in text.split("\\"))


def words(text: str, least: int) -> set[str]:
    """Return the words of a text, lower case, of at least so many characters."""
    return {word for word in re.split(r"[^\w]+", text.lower().replace("_", " ")) if len(word) >= least}
