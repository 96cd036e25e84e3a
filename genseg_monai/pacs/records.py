"""What is asked of an archive, and what it answers, alike for DIMSE and DICOMweb."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import product

from genseg_monai.errors import UserError

__all__ = ["ANNOTATIONS", "InstanceRecord", "Query", "SeriesRecord", "is_uid", "matches_text"]

_UID = re.compile(r"[0-9.]{1,64}")
_RANGE = re.compile(r"(\d{8})?-(\d{8})?|\d{8}")
# modalities of objects that annotate images
ANNOTATIONS = frozenset({"SEG", "RTSTRUCT"})
# DICOM's own wildcards; an identifier is to be matched as it is
_WILD = re.compile(r"[*?\\\x00-\x1f]")


def is_uid(value: object) -> bool:
    """Say whether a value may be used as a UID: digits and points, up to 64. Nothing else comes near a query or URL.

    Example:
        >>> is_uid("1.2.840"), is_uid("../../etc/passwd"), is_uid("")
        (True, False, False)
    """
    return bool(_UID.fullmatch(str(value))) and ".." not in str(value)


def matches_text(pattern: str, text: str) -> bool:
    """Match a text as a user writes it: `/regular expression/`, with `i` behind it for any case, or `*` and `?`.

    Example:
        >>> matches_text("/portal/i", "Liver PORTAL 3mm"), matches_text("*portal*", "Liver PORTAL 3mm")
        (True, True)
    """
    text = text[:1024]
    if found := re.fullmatch(r"/(.*)/(i?)", pattern, flags=re.DOTALL):
        try:
            return re.search(found[1], text, re.IGNORECASE if found[2] else 0) is not None
        except re.error:
            raise UserError("pattern", f"wanted a regular expression between slashes, got {pattern!r}") from None
    return fnmatch.fnmatchcase(text.casefold(), pattern.casefold())


def _is_day(text: str) -> bool:
    try:
        return not text or bool(datetime.strptime(text, "%Y%m%d"))
    except ValueError:
        return False


@dataclass(frozen=True)
class Query:
    """Which studies and series to look for; an empty field asks for nothing.

    Attributes:
        patient_id: of any of these patients.
        accession: with any of these accession numbers.
        study_uid: any of these studies.
        series_uid: any of these series.
        date: a day or a range, `20240101-20241231`, open at either end.
        modality: of the image series.
        description: pattern of the series description, as `matches_text` reads it.

    Example:
        >>> Query(patient_id=("P1",), date="20240101-").modality
        ()
    """

    patient_id: tuple[str, ...] = ()
    accession: tuple[str, ...] = ()
    study_uid: tuple[str, ...] = ()
    series_uid: tuple[str, ...] = ()
    date: str = ""
    modality: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        for name in ("study_uid", "series_uid"):
            if bad := [uid for uid in getattr(self, name) if not is_uid(uid)]:
                raise UserError(
                    f"--{name.replace('_', '-')}", f"wanted UIDs of digits and points, got {len(bad)} others"
                )
        for name in ("patient_id", "accession"):
            if any(_WILD.search(one) or not one.strip() for one in getattr(self, name)):
                problem = "wanted whole identifiers without *, ? or backslash; name each one"
                raise UserError(f"--{name.replace('_', '-')}", problem)
        if any(not re.fullmatch(r"[A-Z0-9_ ]{1,16}", one) for one in self.modality):
            raise UserError("--modality", "wanted codes such as CT or MR, in capitals")
        if self.date and (not _RANGE.fullmatch(self.date) or self.date == "-"):
            raise UserError("--date", f"wanted YYYYMMDD or YYYYMMDD-YYYYMMDD, got {self.date!r}")
        first, last = self._days
        if not (_is_day(first) and _is_day(last)) or (first and last and first > last):
            raise UserError("--date", f"wanted days of the calendar, the earlier one first, got {self.date!r}")
        if self.description:
            matches_text(self.description, "")
        if not any(getattr(self, one.name) for one in fields(self)):
            flags = ", ".join(f"--{one.name.replace('_', '-')}" for one in fields(self))
            raise UserError("pull", f"wanted at least one of {flags}; name one")

    @property
    def _days(self) -> tuple[str, str]:
        """Return the first and the last day of the range; empty where it is open."""
        first, dash, last = self.date.partition("-")
        return first, last if dash else first

    @property
    def of_series_alone(self) -> bool:
        """Say whether studies are to be found by the series in them, since nothing is known of the studies."""
        return bool(self.series_uid) and not any((self.study_uid, self.patient_id, self.accession, self.date))

    def study_keys(self) -> Iterator[dict[str, str]]:
        """Yield what to ask for at STUDY level beside UIDs: a question for each mix of single values."""
        mixes = product(self.patient_id or ("",), self.accession or ("",), self.modality or ("",))
        for patient, accession, modality in mixes:
            keys = {"PatientID": patient, "AccessionNumber": accession, "ModalitiesInStudy": modality}
            yield {keyword: value for keyword, value in {**keys, "StudyDate": self.date}.items() if value}

    def admits(self, answer: Mapping[str, object]) -> bool:
        """Say whether an answer fits the question as far as it tells: some archives ignore a key they do not know.

        Example:
            >>> query = Query(patient_id=("P1",), date="20240101-")
            >>> query.admits({"PatientID": "P1"}), query.admits({"PatientID": "P1", "StudyDate": "20231231"})
            (True, False)
        """
        asked = {
            "StudyInstanceUID": self.study_uid,
            "SeriesInstanceUID": self.series_uid,
            "PatientID": self.patient_id,
            "AccessionNumber": self.accession,
        }
        told = {keyword: str(answer.get(keyword) or "").strip() for keyword in (*asked, "StudyDate")}
        if any(wanted and told[keyword] and told[keyword] not in wanted for keyword, wanted in asked.items()):
            return False
        day = told["StudyDate"].replace(".", "")  # as written before 1993
        first, last = self._days
        return not day or ((not first or first <= day) and (not last or day <= last))

    def accepts(self, series: SeriesRecord) -> bool:
        """Say whether an image series is wanted, as far as modality, description and UID tell."""
        return (
            (not self.modality or series.modality in self.modality)
            and (not self.series_uid or series.series_uid in self.series_uid)
            and (not self.description or matches_text(self.description, series.description))
        )


@dataclass(frozen=True)
class InstanceRecord:
    """One instance, as the archive lists it."""

    uid: str
    sop_class: str = ""
    number: int = 0


@dataclass(frozen=True)
class SeriesRecord:
    """One series, as the archive lists it. Holds original UIDs: never logged, never written outside the spool."""

    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    modality: str = ""
    description: str = field(default="", repr=False)
    count: int | None = None
    number: int = 0
    instances: tuple[InstanceRecord, ...] = field(default=(), repr=False)
    facts: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def is_annotation(self) -> bool:
        """Say whether this is a SEG or an RTSTRUCT."""
        return self.modality in ANNOTATIONS
