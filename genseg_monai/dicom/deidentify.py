"""De-identification of one DICOM object: the Basic Application Level Confidentiality Profile of PS3.15 Annex E.

The table decides (`table.py`), in every sequence at every depth. Where it is silent nothing is trusted either: private
and unknown attributes, names, free bytes and identifying titles go; every text that stays is made of the words of a
vocabulary, every coded string is a term of the standard, every UID that the standard does not define is replaced.
That is stricter than the profile, which keeps what it does not list.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from dataclasses import dataclass

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, UID_dictionary

from genseg_monai.dicom.elements import Cleaner
from genseg_monai.dicom.instance import quiet
from genseg_monai.dicom.pixels import SYNTAXES, clean_pixels
from genseg_monai.dicom.profile import Option, Profile
from genseg_monai.dicom.quarantine import Quarantined, Reason, facts_of, suspect
from genseg_monai.dicom.uids import Key

__all__ = ["Cleaned", "Deidentifier", "complete", "encode"]

_IMPLEMENTATION = UID("2.25.198012853120957322141071963451207341253")
_METHOD = "GenSeg, table driven, keyed pseudonyms"
_SERIES_FACTS = ("Modality", "SeriesNumber", "SeriesDescription", "SeriesTime", "ImageType")
_UID_CHARACTERS = frozenset("0123456789.")


@dataclass(frozen=True)
class Cleaned:
    """A de-identified object and what may be said about how it came to be."""

    dataset: FileDataset
    patient: str
    """The pseudonym, which is also the new PatientID."""
    counts: Counter[str]
    """How many attributes met with each action."""


class Deidentifier:
    """De-identifies objects one by one; links between them hold because every pseudonym is keyed.

    Args:
        profile: what to keep, to clean and to refuse.
        key: the secret behind the pseudonyms.

    Example:
        >>> image = Dataset()
        >>> image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
        >>> image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = "1.2", "1.2.1", "CT"
        >>> image.PatientName, image.PatientID = "Doe^Jane", "4711"
        >>> clean = Deidentifier(Profile(), Key(bytes(32))).apply(image)
        >>> clean.PatientName, clean.PatientID, clean.PatientIdentityRemoved
        ('', '4KEW3T25ICUHSRI4', 'YES')
    """

    def __init__(self, profile: Profile, key: Key) -> None:
        self.profile = profile
        self.key = key

    def apply(self, dataset: Dataset) -> FileDataset:
        """Return a de-identified copy, file meta information and preamble made anew.

        Raises:
            Quarantined: the object is suspected or cannot be trusted; no message holds a value of it.
        """
        return self.process(dataset).dataset

    def process(self, dataset: Dataset) -> Cleaned:
        """Do the same as `apply` and tell the pseudonym and the counts of actions, for the audit log."""
        try:
            with quiet():
                return self._process(dataset)
        except Quarantined:
            raise
        except RecursionError:
            raise Quarantined(Reason.TOO_DEEP) from None
        except MemoryError:
            raise Quarantined(Reason.TOO_LARGE) from None
        except Exception:  # whatever a broken value does to the parser: its message may hold that value
            raise Quarantined(Reason.UNREADABLE) from None

    def _process(self, dataset: Dataset) -> Cleaned:
        meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
        dataset = complete(dataset)
        if (reason := suspect(dataset, self.profile)) is not None:
            raise Quarantined(reason)
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            _check_uid(str(dataset.get(keyword) or ""))
        syntax = str(meta.get("TransferSyntaxUID") or _guess_syntax(dataset))
        if syntax not in SYNTAXES:
            raise Quarantined(Reason.PIXELS)

        cleaner = Cleaner(self.profile, self.key, dataset)
        clean = cleaner.run()
        clean_pixels(clean, syntax, high_bits_pass=self._high_bits_pass(dataset))
        self._declare(clean)
        written = ExplicitVRLittleEndian if syntax == DeflatedExplicitVRLittleEndian else UID(syntax)
        return Cleaned(_as_file(clean, written), cleaner.pseudonym, cleaner.counts)

    def _high_bits_pass(self, dataset: Dataset) -> bool:
        rules = self.profile.quarantine
        return not rules.high_bits or rules.allows(facts_of(dataset))

    def _declare(self, clean: Dataset) -> None:
        """Write down what was done, as PS3.15 E.1.1 asks."""
        clean.PatientIdentityRemoved = "YES"
        clean.DeidentificationMethod = _METHOD
        items = []
        for value, meaning in self.profile.codes:
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
            items.append(item)
        clean.DeidentificationMethodCodeSequence = items
        options = self.profile.options
        clean.LongitudinalTemporalInformationModified = (
            "UNMODIFIED"
            if Option.RETAIN_FULL_DATES in options
            else "MODIFIED"
            if Option.RETAIN_MODIFIED_DATES in options
            else "REMOVED"
        )


def encode(dataset: FileDataset) -> bytes:
    """Return the bytes of a DICOM file; the same object gives the same bytes."""
    buffer = io.BytesIO()
    with quiet():
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _as_file(clean: Dataset, syntax: UID) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = clean.SOPClassUID, clean.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID, meta.ImplementationVersionName = _IMPLEMENTATION, "GENSEG"
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    whole = FileDataset(io.BytesIO(), clean, b"\0" * 128, meta, is_implicit_VR=implicit, is_little_endian=little)
    whole.set_original_encoding(implicit, little, ["utf8"])
    return whole


def complete(dataset: Dataset) -> Dataset:
    """Return the data set with the UIDs that identify it, as a shallow copy where some were empty.

    Some writers name class and instance in group 2 only; some de-identified sets have lost their study and series: the
    frame of reference then stands for them, together with what tells the series of a study apart.
    """
    meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    frame = str(dataset.get("FrameOfReferenceUID") or "")
    series = "/".join(str(dataset.get(keyword) or "") for keyword in _SERIES_FACTS)
    stand_ins = {
        "SOPClassUID": str(meta.get("MediaStorageSOPClassUID") or ""),
        "SOPInstanceUID": str(meta.get("MediaStorageSOPInstanceUID") or ""),
        "StudyInstanceUID": _derived(frame) if frame else "",
        "SeriesInstanceUID": _derived(f"{frame}/{series}") if frame else "",
    }
    missing = {keyword: uid for keyword, uid in stand_ins.items() if uid and not dataset.get(keyword)}
    if not missing:
        return dataset
    copy = Dataset(dataset)
    implicit, little = dataset.original_encoding
    copy.set_original_encoding(implicit, little, dataset.original_character_set)
    for keyword, uid in missing.items():
        setattr(copy, keyword, uid)
    return copy


def _derived(text: str) -> str:
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


def _check_uid(text: str) -> None:
    text = text.strip("\0 ")
    if not 1 <= len(text) <= 64 or not _UID_CHARACTERS.issuperset(text) or text in UID_dictionary:
        raise Quarantined(Reason.BAD_UID)


def _guess_syntax(dataset: Dataset) -> str:
    implicit, little = dataset.original_encoding
    if implicit:
        return "1.2.840.10008.1.2"
    return "1.2.840.10008.1.2.2" if little is False else "1.2.840.10008.1.2.1"
