"""Who an object speaks of: words and numbers that must not stay in any text, however harmless it looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from genseg_monai.dicom.quarantine import Quarantined, Reason
from genseg_monai.dicom.values import words

__all__ = ["MAX_DEPTH", "Identity", "find_identity"]

MAX_DEPTH = 32
_IDS = frozenset({0x00100020, 0x00101000, 0x00080050, 0x00401001, 0x00402016, 0x00402017, 0x00380010})


@dataclass(frozen=True)
class Identity:
    """The names and ids found anywhere in one object."""

    patient: str
    """The original patient id, or the study's UID where there is none."""
    banned: frozenset[str]
    """Words of names and ids, lower case."""
    numbers: frozenset[str]
    """Ids, or parts of them, that are numbers of at least five digits."""

    def own(self, source: Dataset) -> str:
        """Return the patient id of a data set or an item, or that of the object."""
        return str(source.get("PatientID") or "").strip("\0 ") or self.patient

    def named_in(self, text: str) -> bool:
        """Tell whether a text holds a name or an id."""
        return not self.banned.isdisjoint(words(text, 2))

    def is_id(self, text: str) -> bool:
        """Tell whether one of the numbers of a decimal or integer string is an id."""
        return any(part.strip("\0 +") in self.numbers for part in text.split("\\"))


def find_identity(dataset: Dataset) -> Identity:
    """Collect every person's name and every id of the object, at every depth.

    Raises:
        Quarantined: sequences are nested deeper than `MAX_DEPTH`.
    """
    names, ids = set[str](), set[str]()
    for level, tag, vr in _walk(dataset, 0):
        text = str(level[tag].value or "")
        if vr == "PN":
            names |= words(text, 2)
        else:
            ids |= words(text, 4) | {text.lower().strip("\0 ")}
    numbers = {one for one in ids if one.isascii() and one.isdigit() and len(one) >= 5}
    study = str(dataset.get("StudyInstanceUID") or "")
    patient = str(dataset.get("PatientID") or "").strip("\0 ") or f"study {study}"
    return Identity(patient, frozenset(names | ids) - {""}, frozenset(numbers))


def _walk(dataset: Dataset, depth: int) -> Iterator[tuple[Dataset, int, str]]:
    if depth > MAX_DEPTH:
        raise Quarantined(Reason.TOO_DEEP)
    for tag in sorted(dataset.keys()):
        element = dataset.get_item(tag)
        vr = element.VR if not isinstance(element, RawDataElement) or element.VR not in (None, "UN") else None
        if vr is None:
            vr = dictionary_VR(tag) if not tag.is_private and dictionary_has_tag(tag) else ""
        if vr == "SQ":
            for item in dataset[tag].value or ():
                yield from _walk(item, depth + 1)
        elif vr == "PN" or tag in _IDS:
            yield dataset, tag, vr
