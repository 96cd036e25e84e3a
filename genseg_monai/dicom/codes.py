"""Coded meanings and colours of classes, for DICOM SEG.

Names that are in SNOMED CT's part of DICOM (PS3.16, CID 7150 to 7199) get its codes; others get those the user gives
(`load_codes`), or else a code of this project's own scheme, which says no more than the name does.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from genseg_monai.errors import UserError

__all__ = ["Code", "Meaning", "colour_of", "load_codes", "meaning_of"]


class Code(NamedTuple):
    """A coded concept: value, scheme, meaning."""

    value: str
    scheme: str
    meaning: str


class Meaning(NamedTuple):
    """What a segment is: its category, its type, where it lies, and the red, green and blue it is shown in."""

    category: Code
    type: Code
    region: Code | None = None
    colour: tuple[int, int, int] | None = None


_ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
_ABNORMAL = Code("49755003", "SCT", "Morphologically Altered Structure")
_ORGANS = {
    "aorta": Code("15825003", "SCT", "Aorta"),
    "bladder": Code("89837001", "SCT", "Bladder"),
    "bone": Code("272673000", "SCT", "Bone"),
    "brain": Code("12738006", "SCT", "Brain"),
    "colon": Code("71854001", "SCT", "Colon"),
    "gallbladder": Code("28231008", "SCT", "Gallbladder"),
    "heart": Code("80891009", "SCT", "Heart"),
    "hippocampus": Code("5366008", "SCT", "Hippocampus"),
    "kidney": Code("64033007", "SCT", "Kidney"),
    "liver": Code("10200004", "SCT", "Liver"),
    "lung": Code("39607008", "SCT", "Lung"),
    "pancreas": Code("15776009", "SCT", "Pancreas"),
    "prostate": Code("41216001", "SCT", "Prostate"),
    "spleen": Code("78961009", "SCT", "Spleen"),
    "stomach": Code("69695003", "SCT", "Stomach"),
}
_LESIONS = {
    "lesion": Code("52988006", "SCT", "Lesion"),
    "mass": Code("4147007", "SCT", "Mass"),
    "neoplasm": Code("108369006", "SCT", "Neoplasm"),
    "tumor": Code("108369006", "SCT", "Neoplasm"),
    "tumour": Code("108369006", "SCT", "Neoplasm"),
}


def meaning_of(name: str) -> Meaning:
    """Return the codes of a class.

    Example:
        >>> meaning_of("liver").type.meaning, meaning_of("liver tumour").category.meaning
        ('Liver', 'Morphologically Altered Structure')
        >>> meaning_of("left something").type.scheme
        '99GENSEG'
    """
    words = name.casefold().replace("_", " ").split()
    for word in words:  # a tumour of the liver is a tumour
        if word in _LESIONS:
            return Meaning(_ABNORMAL, _LESIONS[word])
    if len(words) == 1 and words[0] in _ORGANS:
        return Meaning(_ANATOMY, _ORGANS[words[0]])
    own = "G" + hashlib.sha256(name.encode()).hexdigest()[:8].upper()
    return Meaning(_ANATOMY, Code(own, "99GENSEG", name[:64]))


def colour_of(number: int) -> tuple[int, int, int]:
    """Return the red, green and blue (0 to 255) of a class; neighbouring numbers differ well."""
    hue = (number * 0.618034) % 1.0  # the golden ratio spreads any count of hues
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def load_codes(given: Mapping[str, object] | Path | str, classes: Sequence[str]) -> dict[str, Meaning]:
    """Read the codes a user gives classes.

    A code is written as value, scheme and meaning with spaces between, such as ``10200004 SCT Liver``. A class has a
    `type`, and may have a `category`, a `region` (of a lesion: the organ) and a `colour` as ``[red, green, blue]``.

    Args:
        given: class -> what it is; or a YAML file of that.
        classes: names of the classes; the file may not have others.

    Raises:
        UserError: the file cannot be read, or holds something else.

    Example:
        >>> codes = load_codes({"tumour": {"type": "4147007 SCT Mass", "region": "10200004 SCT Liver"}}, ["tumour"])
        >>> codes["tumour"].type.meaning, codes["tumour"].region.meaning
        ('Mass', 'Liver')
    """
    where: object = "codes"
    if isinstance(given, Path | str):
        where = given
        try:
            given = yaml.safe_load(Path(given).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(where, f"wanted a readable YAML file, got {type(error).__name__}; correct it") from None
    if not isinstance(given, Mapping) or not given:
        raise UserError(
            where, "wanted classes with codes, got something else; write {liver: {type: 10200004 SCT Liver}}"
        )
    strange = [str(name) for name in given if name not in classes]
    if strange:
        raise UserError(where, f"wanted classes of the bundle ({', '.join(classes)}), got {', '.join(strange)}")
    return {str(name): _meaning(str(name), one, where) for name, one in given.items()}


def _meaning(name: str, said: object, where: object) -> Meaning:
    if not isinstance(said, Mapping) or "type" not in said or set(said) - {"category", "type", "region", "colour"}:
        raise UserError(where, f"wanted type, and category, region, colour if need be, for {name}, got {said}")
    codes = {key: _code(f"{name}: {key}", text, where) for key, text in said.items() if key != "colour"}
    colour = said.get("colour")
    if colour is not None and not (
        isinstance(colour, Sequence) and len(colour) == 3 and all(type(n) is int and 0 <= n <= 255 for n in colour)
    ):
        raise UserError(where, f"wanted [red, green, blue] from 0 to 255 for {name}: colour, got {colour}")
    known = meaning_of(name).category
    rgb = (colour[0], colour[1], colour[2]) if colour is not None else None
    return Meaning(codes.get("category", known), codes["type"], codes.get("region"), rgb)


def _code(what: str, text: object, where: object) -> Code:
    parts = str(text).split(maxsplit=2)
    if len(parts) < 3 or len(parts[0]) > 16 or len(parts[1]) > 16 or len(parts[2]) > 64:
        raise UserError(
            where, f"wanted value, scheme and meaning for {what}, such as 10200004 SCT Liver, got {str(text)[:80]!r}"
        )
    return Code(*parts)
