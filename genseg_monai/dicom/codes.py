"""Coded meanings and colours of classes, for DICOM SEG.

Names that are in SNOMED CT's part of DICOM (PS3.16, CID 7150 to 7199) get its codes; others get a code of this
project's own scheme, which says no more than the name does.
"""

from __future__ import annotations

import colorsys
import hashlib
from typing import NamedTuple

__all__ = ["Code", "Meaning", "colour_of", "meaning_of"]


class Code(NamedTuple):
    """A coded concept: value, scheme, meaning."""

    value: str
    scheme: str
    meaning: str


class Meaning(NamedTuple):
    """What a segment is: its category and its type."""

    category: Code
    type: Code


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
