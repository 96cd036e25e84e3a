"""Table E.1-1 of DICOM PS3.15 Annex E: what the Basic Application Level Confidentiality Profile does to each attribute.

`ps3_15.csv` holds the table's facts: one line an attribute with its tag, the action of the basic profile and the action
under each option. Its first line names the edition. It was made by

    python -m genseg_monai.dicom.table confidentiality_profile_attributes.json > ps3_15.csv

from the JSON that innolitics/dicom-standard generates from the standard (file `standard/` + that name, commit 7f4749d).
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["EDITION", "Row", "find_row", "load_table", "make_table"]

EDITION = "DICOM PS3.15 Table E.1-1, state of January 2025 (innolitics/dicom-standard 7f4749d)"

# column of the CSV -> field of the JSON
_OPTIONS = {
    "full_dates": "rtnLongFullDatesOpt",
    "modified_dates": "rtnLongModifDatesOpt",
    "uids": "rtnUIDsOpt",
    "patient": "rtnPatCharsOpt",
    "device": "rtnDevIdOpt",
    "institution": "rtnInstIdOpt",
    "private": "rtnSafePrivOpt",
    "descriptors": "cleanDescOpt",
    "graphics": "cleanGraphOpt",
    "structured": "cleanStructContOpt",
}
# attributes the table names by a range: first tag of the range, as written in the CSV -> (mask, value)
_RANGES = {
    "50xxxxxx": (0xFF000000, 0x50000000),
    "60xx3000": (0xFF00FFFF, 0x60003000),
    "60xx4000": (0xFF00FFFF, 0x60004000),
    "odd": (0x00010000, 0x00010000),
}


@dataclass(frozen=True)
class Row:
    """One attribute: the action of the basic profile (`X`, `Z`, `D`, `U` or a choice), and those of the options.

    Example:
        >>> find_row(0x00100010)
        Row(action='Z', options={})
        >>> find_row(0x00080020).options
        {'full_dates': 'K', 'modified_dates': 'C'}
    """

    action: str
    options: Mapping[str, str]


@cache
def load_table() -> dict[str, Row]:
    """Return the table: eight hexadecimal digits, or the name of a range, -> row."""
    text = files("genseg_monai.dicom").joinpath("ps3_15.csv").read_text("ascii").splitlines()
    rows = csv.DictReader(line for line in text if not line.startswith("#"))
    return {row["tag"]: Row(row["action"], {k: row[k] for k in _OPTIONS if row[k]}) for row in rows}


@cache
def find_row(tag: int) -> Row | None:
    """Return the row of a tag, ranges and private groups included; None where the table is silent."""
    table = load_table()
    if row := table.get(f"{tag:08x}"):
        return row
    return next((table[name] for name, (mask, value) in _RANGES.items() if tag & mask == value), None)


def make_table(rows: list[dict[str, str]]) -> Iterator[str]:
    """Yield the lines of `ps3_15.csv` from the rows of the JSON named above."""
    yield f"# {EDITION}"
    yield ",".join(("tag", "action", *_OPTIONS))
    for row in sorted(rows, key=lambda row: row["id"]):
        tag = "odd" if "odd" in row["id"] else row["id"].lower()
        yield ",".join((tag, row["basicProfile"], *(row.get(field, "") for field in _OPTIONS.values())))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        sys.stdout.writelines(line + "\n" for line in make_table(json.load(file)))
