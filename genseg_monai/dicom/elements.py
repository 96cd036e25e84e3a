"""Element by element through a data set, into every sequence: what the profile's action makes of each.

Actions of PS3.15: `X` remove, `Z` empty, `D` dummy, `U` new UID, `K` keep, `C` clean. Where the table leaves a choice
by the type of the attribute, the one legal for every type is taken: a dummy for X/D, Z/D and X/Z/D, empty for X/Z; a
sequence under X/Z or X/Z/D goes unless it has to be there, and X/Z/U* keeps its items with new UIDs, or images and
annotations would lose each other.
"""

from __future__ import annotations

from collections import Counter

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from genseg_monai.dicom.identity import MAX_DEPTH, Identity, find_identity
from genseg_monai.dicom.private import safe_private
from genseg_monai.dicom.profile import Option, Profile
from genseg_monai.dicom.quarantine import Quarantined, Reason
from genseg_monai.dicom.uids import Key
from genseg_monai.dicom.values import BYTES, NUMBERS, TEXT, WIDTHS, cap_age, dummy, is_number, is_temporal, shift
from genseg_monai.dicom.vocabulary import clean_code, clean_text, is_term

__all__ = ["Cleaner"]

_PATIENT_ID, _ROI_NAME, _SEGMENT_LABEL, _TEXT_OBJECTS = 0x00100020, 0x30060026, 0x00620005, 0x00700008
_CONTENT_LABEL, _CHARACTER_SET, _ACQUISITION_CONTEXT = 0x00700080, 0x00080005, 0x00400555
_CODE, _SCHEME, _MEANING = 0x00080100, 0x00080102, 0x00080104
# bytes that are pixels; all others go, but for the tables of grey values and colours
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
# table -> its descriptor: number of entries, first value, bits of an entry
_TABLES = {0x00281201: 0x00281101, 0x00281202: 0x00281102, 0x00281203: 0x00281103, 0x00283006: 0x00283002}
# an overlay that marks a region: its size, place, kind and bits, but no text about it
_OVERLAY = frozenset({0x0010, 0x0011, 0x0015, 0x0040, 0x0050, 0x0051, 0x0100, 0x0102, 0x3000})
_TYPES = frozenset({0x00080008, 0x00089007})  # image type, frame type
_GONE = "REMOVED"
_CHOICE = {"X/D": "D", "Z/D": "D", "X/Z/D": "D", "X/Z": "Z", "X/Z/U*": "U"}
_Element = DataElement | RawDataElement


class Cleaner:
    """Makes the de-identified copy of one object.

    Args:
        profile: what to keep and to clean.
        key: the secret behind the pseudonyms.
        dataset: the object; it is left as it is.
    """

    def __init__(self, profile: Profile, key: Key, dataset: Dataset) -> None:
        self.profile = profile
        self.key = key
        self.counts: Counter[str] = Counter()
        self._source = dataset
        self._identity: Identity = find_identity(dataset)
        self._options = profile.options
        self._labels = frozenset(" ".join(name.lower().split()) for name in profile.labels)
        self._days = key.days(self._identity.patient, profile.whole_weeks)

    @property
    def pseudonym(self) -> str:
        """Return the patient's new id; without an original one, the study stands for the patient."""
        return self.key.patient(self._identity.patient)

    def run(self) -> Dataset:
        """Return the copy."""
        clean = self._dataset(self._source, 0)
        clean.SpecificCharacterSet = "ISO_IR 192"
        clean.PatientID = self.pseudonym
        return clean

    def _dataset(self, source: Dataset, depth: int) -> Dataset:
        if depth > MAX_DEPTH:
            raise Quarantined(Reason.TOO_DEEP)
        clean = Dataset()
        for tag in sorted(source.keys()):
            element = self._element(source, tag, depth)
            if element is None:
                self.counts["X"] += 1
            else:
                clean[tag] = element
        if Option.RETAIN_SAFE_PRIVATE in self._options:
            for element in safe_private(source):
                clean[element.tag] = element
        if _SEGMENT_LABEL in source and not clean.get("SegmentLabel"):
            clean.SegmentLabel = f"SEGMENT {int(source.get('SegmentNumber') or 0)}"
        return self._coded(source, clean) if _CODE in source or _MEANING in source else clean

    def _coded(self, source: Dataset, item: Dataset) -> Dataset:
        value, scheme, meaning = (self._raw_text(source, tag) for tag in (_CODE, _SCHEME, _MEANING))
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = clean_code(
            value, scheme, meaning, self._identity.banned
        )
        return item

    @staticmethod
    def _raw_text(item: Dataset, tag: int) -> str:
        return str(item[tag].value or "").strip("\0 ") if tag in item else ""

    def _element(self, source: Dataset, tag: BaseTag, depth: int) -> _Element | None:
        if tag.group <= 0x0007 or tag.element == 0 or tag.is_private or tag == _CHARACTER_SET:
            return None
        if tag.group >> 8 in (0x50, 0x60):
            return self._graphic(source, tag)
        if not dictionary_has_tag(tag) or (depth and tag in _PIXELS):  # pixels inside a sequence: an icon
            return None
        vr, found = dictionary_VR(tag), source.get_item(tag)
        if isinstance(found, RawDataElement) and not _fits(found.VR, vr):
            return None
        if tag == _PATIENT_ID:
            return DataElement(tag, "LO", self.key.patient(self._identity.own(source)))
        if tag in (_ROI_NAME, _SEGMENT_LABEL):
            return self._label(source, tag)
        action = self.profile.action(tag)
        if vr == "SQ" and action in ("X/Z", "X/Z/D"):
            action = "Z" if tag == _ACQUISITION_CONTEXT else "X"
        action = _CHOICE.get(action, action)
        self.counts[action or "checked"] += 1
        if action == "X":
            return None
        if action == "Z":
            return DataElement(tag, vr, Sequence() if vr == "SQ" else None if vr in NUMBERS else "")
        if action == "D":
            return self._dummy(source, tag, vr, depth)
        if action == "K":
            return self._kept(source, tag, vr, depth)
        return self._cleaned(source, tag, vr, depth, known=action != "")

    def _label(self, source: Dataset, tag: BaseTag) -> DataElement | None:
        """Return the name of a segment or region: it stays if the user named it, cleaned under Clean Descriptors."""
        text = self._raw_text(source, tag)
        clean_all = Option.CLEAN_DESCRIPTORS in self._options
        kept = clean_text(text, self._identity.banned, self._labels)
        if not clean_all and " ".join(text.lower().split()) not in self._labels:
            kept = ""
        self.counts["C"] += 1
        return DataElement(tag, "LO", kept)

    def _dummy(self, source: Dataset, tag: BaseTag, vr: str, depth: int) -> DataElement:
        if vr == "UI":
            return DataElement(tag, "UI", self.key.uid(self._raw_text(source, tag)))
        if vr != "SQ":
            return DataElement(tag, vr, dummy(_plain(vr)))
        items = source[tag].value
        return DataElement(tag, vr, Sequence([self._hollow(item, depth + 1) for item in items[:1]]))

    def _hollow(self, item: Dataset, depth: int) -> Dataset:
        """Return an item of the same form in which every value is a dummy."""
        if depth > MAX_DEPTH:
            raise Quarantined(Reason.TOO_DEEP)
        empty = Dataset()
        for tag in sorted(item.keys()):
            if not tag.is_private and tag.group > 0x0007 and tag.element and dictionary_has_tag(tag):
                empty[tag] = self._dummy(item, tag, dictionary_VR(tag), depth)
        return self._coded(empty, empty) if _CODE in empty else empty

    def _kept(self, source: Dataset, tag: BaseTag, vr: str, depth: int) -> _Element | None:
        """Keep a value as an option asks; never one that holds a name or an id of this patient, nor a broken one."""
        if vr in ("SQ", "AS") or vr in NUMBERS or vr in BYTES or " or " in vr:
            return self._cleaned(source, tag, vr, depth, known=True)
        values = _texts(source, tag)
        if vr in ("DA", "DT", "TM"):
            values = [value for value in values if is_temporal(value, vr)]
        elif vr == "UI":
            values = [value if _is_uid(value) else self.key.uid(value) for value in values if value]
        else:
            values = [value if not self._identity.named_in(value) else self._text(value) or _GONE for value in values]
        return DataElement(tag, vr, values if len(values) != 1 else values[0])

    def _cleaned(self, source: Dataset, tag: BaseTag, vr: str, depth: int, *, known: bool) -> _Element | None:
        """Return what may stay of a value, by its representation; `known` tells that the table lists the attribute."""
        if vr == "SQ":
            return None if tag == _TEXT_OBJECTS else self._sequence(source, tag, depth)
        if vr in NUMBERS:
            return self._number(source, tag, vr)
        if vr in BYTES or " or " in vr:
            return _bytes(source, tag)
        values = _texts(source, tag)
        if vr == "UI":
            keep = Option.RETAIN_UIDS in self._options and not known
            values = [value if keep and _is_uid(value) else self.key.uid(value) for value in values if value]
        elif vr in ("DA", "DT", "TM"):
            return self._moment(tag, vr, values, known)
        elif vr == "AS":
            values = [age for value in values if (age := cap_age(value))]
        elif vr == "CS":
            instead = ["OTHER"] if tag in _TYPES else []  # a type has its place in the list
            empty = not any(values)
            values = [kept for value in values for kept in ([value] if is_term(value) else instead)]
            if not values and not empty:
                return DataElement(tag, vr, _GONE) if tag == _CONTENT_LABEL else None
        elif vr in TEXT or vr == "AE" and known:
            values = [self._text(value) or (_GONE if value else "") for value in values]
        elif vr == "PN":
            values = []
        else:
            return None
        return DataElement(tag, vr, values if len(values) != 1 else values[0])

    def _text(self, value: str) -> str:
        return clean_text(value, self._identity.banned, self._labels)

    def _moment(self, tag: BaseTag, vr: str, values: list[str], known: bool) -> DataElement | None:
        if Option.RETAIN_FULL_DATES in self._options:
            values = [value for value in values if is_temporal(value, vr)]
        elif Option.RETAIN_MODIFIED_DATES in self._options:
            values = [moved for value in values if (moved := shift(value, vr, self._days))]
        elif not known:
            return None
        else:
            values = []
        return DataElement(tag, vr, values if len(values) != 1 else values[0])

    def _sequence(self, source: Dataset, tag: BaseTag, depth: int) -> DataElement:
        return DataElement(tag, "SQ", Sequence([self._dataset(item, depth + 1) for item in source[tag].value]))

    def _number(self, source: Dataset, tag: BaseTag, vr: str) -> _Element | None:
        """Return numbers untouched, which keeps their digits, unless they hold text or an id of the patient."""
        element = source.get_item(tag)
        if vr in WIDTHS:
            raw = isinstance(element, RawDataElement) and isinstance(element.value, bytes)
            return element if not raw or len(element.value) % WIDTHS[vr] == 0 else None
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            text = element.value.decode("ascii", "replace")
        else:
            text = "\\".join(str(value) for value in _many(element.value))
        if not is_number(text) or self._identity.is_id(text):
            return None
        return element

    def _graphic(self, source: Dataset, tag: BaseTag) -> _Element | None:
        """Keep, under Clean Graphics, an overlay that marks a region of interest; text may be drawn in any other."""
        if Option.CLEAN_GRAPHICS not in self._options or tag.group >> 8 != 0x60 or tag.element not in _OVERLAY:
            return None
        if self._raw_text(source, (tag.group << 16) | 0x0040).upper() != "R":
            return None
        self.counts["C"] += 1
        return source[tag]


def _plain(vr: str) -> str:
    """Return one representation where the dictionary offers two."""
    return vr.split(" or ")[0]


def _fits(found: str | None, known: str) -> bool:
    """Tell whether a file may give an attribute this representation."""
    return found in (None, "UN") or found in known.split(" or ") or (found in TEXT and known in TEXT)


def _many(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple, MultiValue)) else [] if value is None else [value]


def _texts(source: Dataset, tag: BaseTag) -> list[str]:
    return [str(value).strip("\0 ") for value in _many(source[tag].value)]


def _is_uid(text: str) -> bool:
    return 0 < len(text) <= 64 and all(part.isascii() and part.isdigit() for part in text.split("."))


def _bytes(source: Dataset, tag: BaseTag) -> DataElement | None:
    """Return pixels, tables cut to the size of their descriptor, and numbers that may be signed or not (US or SS)."""
    element = source[tag]
    if tag in _TABLES:
        return _table(source, tag)
    if element.VR in ("US", "SS"):
        return element
    return DataElement(tag, element.VR, element.value) if tag in _PIXELS and element.VR in BYTES else None


def _table(source: Dataset, tag: BaseTag) -> DataElement | None:
    element, descriptor = source[tag], source.get(_TABLES[tag])
    if descriptor is None or len(_many(descriptor.value)) != 3:
        return None
    entries, _, bits = (int(str(number)) for number in _many(descriptor.value))
    entries = entries or 1 << 16
    if element.VR in ("US", "SS"):
        return DataElement(tag, element.VR, _many(element.value)[:entries])
    size = entries * (2 if bits > 8 or len(element.value) >= 2 * entries else 1)
    return DataElement(tag, "OW", bytes(element.value[: size + size % 2]))
