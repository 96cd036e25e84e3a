"""From a query to the series that will be fetched: images by rules, and the annotations of the same studies."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from pydicom import dcmread

from genseg_monai.dicom.faults import SeriesError
from genseg_monai.dicom.image import read_image_header
from genseg_monai.pacs.dimse import FACTS
from genseg_monai.pacs.faults import ArchiveError, NetFault
from genseg_monai.pacs.inbox import Inbox
from genseg_monai.pacs.records import InstanceRecord, Query, SeriesRecord
from genseg_monai.pacs.rules import Rules, best_of, slices_of
from genseg_monai.pacs.settings import PacsSettings
from genseg_monai.pacs.spool import Spool

__all__ = ["Archive", "Choice", "Wanted", "choose", "peek"]

# series that hold no images to segment
_NO_IMAGES = frozenset(
    {
        "SEG",
        "RTSTRUCT",
        "RTPLAN",
        "RTDOSE",
        "RTRECORD",
        "SR",
        "PR",
        "KO",
        "REG",
        "FID",
        "RWV",
        "DOC",
        "AU",
        "ECG",
        "M3D",
    }
)
# whatever else one series does, these end the run: the next one would meet the same
FATAL = frozenset({NetFault.UNREACHABLE, NetFault.REJECTED, NetFault.CERTIFICATE, NetFault.SPACE})


class Archive(Protocol):
    """What every route can do."""

    @property
    def settings(self) -> PacsSettings:
        """Of the archive."""

    @property
    def route(self) -> str:
        """As on the command line."""

    def echo(self) -> float:
        """Ask whether it is there."""

    def studies(self, query: Query) -> list[str]:
        """Return UIDs."""

    def series(self, study_uid: str) -> list[SeriesRecord]:
        """Return the series of a study."""

    def instances(self, series: SeriesRecord) -> tuple[InstanceRecord, ...]:
        """Return the instances of a series."""

    def facts(self, series: SeriesRecord, instance_uid: str) -> dict[str, Any]:
        """Return attributes of one instance."""

    def retrieve(self, series: SeriesRecord, inbox: Inbox) -> None:
        """Fetch a series."""


@dataclass(frozen=True)
class Wanted:
    """An image series to fetch, and the annotations that may refer to it."""

    images: SeriesRecord
    annotations: tuple[SeriesRecord, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What was chosen out of what.

    Attributes:
        wanted: sorted by study and series.
        studies: how many matched the query.
        seen: how many series they have, by modality.
        passed: how many image series fitted the rules, before the best of each study was taken.
        failed: studies and series that could not be looked at, by reason.
    """

    wanted: tuple[Wanted, ...]
    studies: int
    seen: Counter[str]
    passed: int
    failed: Counter[str]


def choose(
    archive: Archive,
    query: Query,
    rules: Rules,
    spool: Spool,
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """Ask an archive, and choose.

    Args:
        archive: to ask.
        query: which studies.
        rules: which of their series.
        spool: where one instance of a series is looked at, if the archive does not tell what the rules ask.
        progress: called with the number of studies looked at and of all.

    Raises:
        ArchiveError: the archive is not there, does not let us in, or answers without end.
    """
    studies = archive.studies(query)
    seen: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    passed, wanted = 0, []
    for number, study in enumerate(studies, 1):
        try:
            listed = archive.series(study)
            seen.update(one.modality or "?" for one in listed)
            images = [one for one in listed if one.modality not in _NO_IMAGES and query.accepts(one)]
            fitting = [fit for one in images if (fit := _fit(archive, one, rules, spool, failed)) is not None]
            chosen = best_of(fitting, rules.keep)
            notes = [replace(one, instances=archive.instances(one)) for one in listed if one.is_annotation and chosen]
        except ArchiveError as error:
            if error.reason in FATAL:
                raise
            failed[error.reason.value] += 1
            continue
        passed += len(fitting)
        wanted += [Wanted(one, tuple(notes)) for one in chosen]
        if progress:
            progress(number, len(studies))
    return Choice(tuple(wanted), len(studies), seen, passed, failed)


def _fit(
    archive: Archive, series: SeriesRecord, rules: Rules, spool: Spool, failed: Counter[str]
) -> SeriesRecord | None:
    """Return the series with its instances and facts if it fits the rules."""
    if rules.decide(series, {}) is False:
        return None
    series, final = replace(series, instances=archive.instances(series)), False
    # who does not list them is believed the number of them
    facts: dict[str, Any] = {} if series.instances else {"NumberOfFrames": "1"}
    if series.instances and _is_open(rules, series, facts):
        middle = series.instances[len(series.instances) // 2]
        facts = archive.facts(series, middle.uid)
        final = _is_open(rules, series, facts)
        if final:
            facts = {**peek(archive, series, middle, spool), **facts}
    found = rules.decide(series, facts, final)
    if found is None:
        failed["untold"] += 1
    return replace(series, facts=facts) if found else None


def _is_open(rules: Rules, series: SeriesRecord, facts: dict[str, Any]) -> bool:
    """Say whether a fact is missing, of those the rules ask for or of those that decide which series is the best."""
    found = rules.decide(series, facts)
    return found is None or (found and rules.keep == "best" and slices_of(series, facts) is None)


def peek(archive: Archive, series: SeriesRecord, instance: InstanceRecord, spool: Spool) -> dict[str, Any]:
    """Fetch one instance into the spool, return what rules look at, and delete it again."""
    one = replace(series, instances=(instance,))
    with spool.scratch() as folder:
        # the others count as there already, so that the archive is asked for this one alone
        inbox = _Single(one, folder, archive.settings.limits, archive.route)
        archive.retrieve(one, inbox)
        return next((facts_of(path) for path in folder.glob("*.dcm")), {})


class _Single(Inbox):
    """An inbox that wants single instances, never a whole series."""

    @property
    def held(self) -> int:
        return 1


def facts_of(path: Path) -> dict[str, Any]:
    """Return what rules look at, of one file; what cannot be read is left out."""
    found: dict[str, Any] = {}
    try:
        header = read_image_header(path)
        found["ImageType"] = list(header.image_type)
        if header.slices and header.slices[0].orientation is not None:
            found["ImageOrientationPatient"] = [float(v) for v in header.slices[0].orientation]
    except SeriesError:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = dcmread(path, stop_before_pixels=True, specific_tags=list(FACTS))
            found["NumberOfFrames"] = str(held.get("NumberOfFrames") or 1)
            for keyword in ("SliceThickness", "ContrastBolusAgent"):
                if held.get(keyword) not in (None, ""):
                    found[keyword] = str(held.get(keyword))
    except Exception:  # whatever a broken value does to the parser: the rule then does not fit
        return found
    return found
