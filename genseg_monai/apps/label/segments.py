"""Names, numbers and values: what the segments of a DICOM SEG mean as a label, and what a label's values become."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydicom

from genseg_monai.dicom.codes import colour_of, meaning_of

__all__ = ["is_name", "segment_attributes", "segment_names", "value_of_segments"]

_NUMBERED = re.compile(r"class[_ ](\d+)")  # as a class without a name is called here: by its value
_STAND_IN = re.compile(r"|foreground|unknown|segment[_ ]?\d*|class[_ ]\d+", re.IGNORECASE)


def is_name(name: str) -> bool:
    """Say whether a name tells what a segment is.

    Example:
        >>> is_name("liver"), is_name("Segment_1"), is_name("class_2")
        (True, False, False)
    """
    return not _STAND_IN.fullmatch(name)


def segment_attributes(
    values: Sequence[int], told: Sequence[dict[str, Any]], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what MONAI Label hands on to dcmqi for each value of a label: name, codes and colour of the segment.

    Args:
        values: that occur in the label, ascending, without 0.
        told: what the client says of the values, each with ``name`` and perhaps ``idx``, the value, and ``color``;
            without ``idx`` the first is that of value 1.
        classes: names of the classes, the background first, for what the client does not tell.

    Example:
        >>> [one] = segment_attributes([2], [], ["background", "liver", "spleen"])
        >>> one["name"], one["segmentAttribute"]["SegmentedPropertyTypeCodeSequence"]["CodeMeaning"]
        ('spleen', 'Spleen')
    """
    by_value = {int(one.get("idx", i)): one for i, one in enumerate(told, 1)}
    found = []
    for value in values:
        one = by_value.get(value, {})
        known = classes[value] if value < len(classes) else f"class_{value}"
        name = str(one.get("name") or known)
        meaning = meaning_of(name)
        colour = [int(part) for part in one.get("color") or colour_of(value)][:3]
        attribute = {
            "labelID": int(value),
            "SegmentLabel": name[:64],
            "SegmentDescription": name[:64],
            "SegmentAlgorithmType": "SEMIAUTOMATIC",
            "SegmentAlgorithmName": "GenSeg",
            "SegmentedPropertyCategoryCodeSequence": _code(meaning.category),
            "SegmentedPropertyTypeCodeSequence": _code(meaning.type),
            "recommendedDisplayRGBValue": colour,
        }
        found.append({"name": name, "color": colour, "model_name": "GenSeg", "segmentAttribute": attribute})
    return found


def value_of_segments(segments: Mapping[int, str], known: Mapping[str, int]) -> dict[int, int]:
    """Return the value of each segment: that of its name where it is known, else its number or, if taken, the next.

    Writers number the segments as they come: a label with the second class alone is segment 1.

    Args:
        segments: number -> name; of names that tell nothing the number counts.
        known: name -> value; upper and lower case are one.

    Example:
        >>> value_of_segments({1: "Tumour", 2: "liver", 3: "vessel"}, {"liver": 1, "tumour": 2})
        {1: 2, 2: 1, 3: 3}
        >>> value_of_segments({1: "vessel", 2: "Segment_2"}, {"liver": 1})
        {2: 2, 1: 3}
        >>> value_of_segments({1: "class_2"}, {})
        {1: 2}
    """
    values = {name.casefold(): value for name, value in known.items()}
    nameless = {number: _NUMBERED.fullmatch(name) for number, name in segments.items() if not is_name(name)}
    found = {number: int(told[1]) if told else number for number, told in nameless.items()}
    for number, name in sorted(segments.items()):
        if number in nameless:
            continue
        if name.casefold() not in values:
            taken = {*values.values(), *found.values()}
            values[name.casefold()] = number if number not in taken else max(taken) + 1
        found[number] = values[name.casefold()]
    return found


def segment_names(folder: Path) -> dict[int, str]:
    """Return the names of the segments of the SEG in a folder by their numbers."""
    [file, *_] = folder.glob("*.dcm")
    held = pydicom.dcmread(file, stop_before_pixels=True).SegmentSequence
    return {int(one.SegmentNumber): str(one.SegmentLabel).strip() for one in held}


def _code(code: Any) -> dict[str, str]:
    return {"CodeValue": code.value, "CodingSchemeDesignator": code.scheme, "CodeMeaning": code.meaning}
