"""What is refused rather than de-identified: pixels that may show a name or a face, and files that cannot be trusted.

Suspicion rests on headers only (DICOM PS3.15 Annex E.3.1 "Clean Pixel Data" and E.3.2 "Clean Recognizable Visual
Features" would need a look at the pixels): a suspected file stays where it is, unless a rule of the profile lets it
pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import UID_dictionary

from genseg_monai.errors import UserError

if TYPE_CHECKING:
    from genseg_monai.dicom.profile import Profile

__all__ = ["Quarantined", "Reason", "facts_of", "needs_pixels", "suspect"]


class Reason(StrEnum):
    """Why a file is not passed on."""

    BURNED_IN = "burned_in"
    """The header says, or its kind makes likely, that text is burned into the pixels."""
    SCREENSHOT = "screenshot"
    """A screen shot or a secondary capture."""
    FACE = "face"
    """A head in CT, MR or PET, from which a face can be rendered."""
    DOCUMENT = "document"
    """No image, segmentation or structure set: reports, documents, curves, presentation states."""
    HIGH_BITS = "high_bits"
    """Bits above the pixel's own are set: an overlay may hide there."""
    DIRECTORY = "directory"
    """A DICOMDIR: an index of names, not an object."""
    NOT_DICOM = "not_dicom"
    """Neither a DICOM file nor a data set without file meta information."""
    UNREADABLE = "unreadable"
    """The file is cut off, contradicts itself or breaks the parser."""
    TOO_DEEP = "too_deep"
    """Sequences nested deeper than any object of the standard."""
    TOO_LARGE = "too_large"
    """More bytes, or more inflated bytes, than the limits allow."""
    BAD_UID = "bad_uid"
    """A UID that identifies the object is missing or no UID, or its class is private."""
    PIXELS = "pixels"
    """The pixel data and the header do not fit, or the transfer syntax is unknown."""
    DUPLICATE = "duplicate"
    """Another file of the same SOP instance, with different content, came first."""


class Quarantined(UserError):
    """A file that must not be passed on; the message names the reason and no value of the file."""

    def __init__(self, reason: Reason) -> None:
        super().__init__("file", f"quarantined, {reason.value}; see the reasons in genseg_monai.dicom.quarantine")
        self.reason = reason

    def __reduce__(self) -> tuple[type[Quarantined], tuple[Reason]]:
        return type(self), (self.reason,)


_IMAGES = re.compile(r"Image Storage|^(Ultrasound|Enhanced US)")
_STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
_PASSED = {
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
    _STRUCTURES,
}
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture and, below it, its multi-frame kinds
_DIRECTORY = "1.2.840.10008.1.3.10"
_TEXT_LIKELY = {"US", "IVUS", "ES", "SC", "OT", "XC", "GM", "ECG", "DOC"}
_SCREEN = ("SCREEN", "SAVE", "CAPTURE")
_HEAD = re.compile(
    r"head|brain|skull|cranial|cranium|cerebr|face|facial|orbit|sinus|neuro|jaw|mandib|maxill|hippocamp|pituitar|schaedel|kopf|crane"
    r"|mprage|whole.?body",
    re.IGNORECASE,
)
_WHERE = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription")
_HEAD_CODES = {
    "69536005",
    "12738006",
    "774007",
    "89546000",
    "89545001",
    "T-D1100",
    "T-A0100",
    "T-D1600",
    "T-11100",
    "T-D1200",
}


def suspect(dataset: Dataset, profile: Profile) -> Reason | None:
    """Tell why an object is suspected, or None.

    Args:
        dataset: the object, before de-identification.
        profile: its `quarantine` says which suspicions count, its `allow` rules which objects pass all the same.

    Returns:
        The reason, or None when nothing is suspected or a rule lets the object pass. Objects of an unknown class and
        DICOMDIRs never pass.

    Example:
        >>> from genseg_monai.dicom.profile import Profile, Quarantine
        >>> image = Dataset()
        >>> image.SOPClassUID, image.Modality = "1.2.840.10008.5.1.4.1.1.6.1", "US"
        >>> suspect(image, Profile())
        <Reason.BURNED_IN: 'burned_in'>
        >>> suspect(image, Profile(quarantine=Quarantine(allow=({"modality": "US"},)))) is None
        True
    """
    kind = _text(dataset, "SOPClassUID")
    if kind.startswith(_DIRECTORY):
        return Reason.DIRECTORY
    if kind not in UID_dictionary:
        return Reason.BAD_UID
    rules = profile.quarantine
    reason = next(_reasons(dataset, kind), None) if not rules.allows(facts_of(dataset)) else None
    for found in _reasons(dataset, kind) if reason else ():
        if rules.counts(found):
            return found
    return None


def needs_pixels(kind: str) -> bool:
    """Tell whether objects of a class are nothing without pixels."""
    named = UID_dictionary.get(kind, ("",))[0]
    return bool(_IMAGES.search(named)) or kind in _PASSED - {_STRUCTURES}


def _reasons(dataset: Dataset, kind: str) -> Iterator[Reason]:
    modality = _text(dataset, "Modality").upper()
    terms = " ".join(_values(dataset, "ImageType")).upper()
    if kind.startswith(_CAPTURE + ".") or kind == _CAPTURE or any(word in terms for word in _SCREEN):
        yield Reason.SCREENSHOT
    if _text(dataset, "BurnedInAnnotation").upper() == "YES" or modality in _TEXT_LIKELY:
        yield Reason.BURNED_IN
    if kind not in _PASSED and not _IMAGES.search(UID_dictionary[kind][0]):
        yield Reason.DOCUMENT
    if modality in {"CT", "MR", "PT"} and kind not in _PASSED and _shows_head(dataset):
        yield Reason.FACE


def _shows_head(dataset: Dataset) -> bool:
    if any(_HEAD.search(_text(dataset, keyword)) for keyword in _WHERE):
        return True
    if _text(dataset, "RecognizableVisualFeatures").upper() == "YES":
        return True
    items = dataset.get("AnatomicRegionSequence") or ()
    return any(_text(item, "CodeValue") in _HEAD_CODES or _HEAD.search(_text(item, "CodeMeaning")) for item in items)


def facts_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return what the allow rules are compared with."""
    return {
        "modality": tuple(_values(dataset, "Modality")),
        "image_type": tuple(_values(dataset, "ImageType")),
        "manufacturer": tuple(_values(dataset, "Manufacturer")),
        "sop_class": tuple(_values(dataset, "SOPClassUID")),
        "body_part": tuple(_values(dataset, "BodyPartExamined")),
    }


def _values(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword)
    many = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
    return [str(one).strip("\0 ") for one in many if one is not None]


def _text(dataset: Dataset, keyword: str) -> str:
    return next(iter(_values(dataset, keyword)), "")
