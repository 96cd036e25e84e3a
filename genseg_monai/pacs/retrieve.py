"""Bring series into the spool: complete and counted, tried again after a fault, never fetched twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from genseg_monai.dicom.instance import read_instance
from genseg_monai.dicom.quarantine import Quarantined
from genseg_monai.pacs.choose import Archive
from genseg_monai.pacs.faults import retrying
from genseg_monai.pacs.inbox import Inbox
from genseg_monai.pacs.records import SeriesRecord
from genseg_monai.pacs.spool import Spool

__all__ = ["fetch", "refers_to"]


def fetch(
    archive: Archive, series: SeriesRecord, spool: Spool, progress: Callable[[int, int], None] | None = None
) -> Inbox:
    """Bring one series into its folder of the spool; what is there already is not asked for again.

    Args:
        archive: to fetch from.
        series: with its instances, or at least their number.
        spool: has a folder for it.
        progress: called with (instances there, bytes of this attempt).

    Returns:
        The inbox, complete: every instance the archive lists, and no other.

    Raises:
        ArchiveError: after the last attempt.
    """
    folder = spool.series_folder(series.series_uid)
    settings = archive.settings

    def attempt() -> Inbox:
        inbox = Inbox(series, folder, settings.limits, archive.route, progress)
        if not inbox.complete:
            archive.retrieve(series, inbox)
            inbox.check_complete()
        return inbox

    return retrying(attempt, settings.attempts, settings.retry_seconds)


def refers_to(path: Path, series: SeriesRecord) -> bool:
    """Say whether a SEG or RTSTRUCT refers to a series, by its UID or by that of one of its instances."""
    try:
        dataset = read_instance(path)
        instances = {one.uid for one in series.instances}
        return any(uid == series.series_uid or uid in instances for uid in _references(dataset))
    except Quarantined:
        return False
    except Exception:  # whatever a broken value does to the parser: it is then no annotation of this series
        return False


def _references(dataset: Dataset) -> Iterator[str]:
    """Yield the UIDs of series and instances that an object refers to, at any depth."""
    waiting: list[tuple[Dataset, bool]] = [(dataset, True)]
    while waiting:
        one, outermost = waiting.pop()
        for element in one:
            if element.VR == "SQ":
                items: Iterable[Dataset] = element.value or ()
                waiting += [(item, False) for item in items]
            elif element.keyword == "ReferencedSOPInstanceUID" or (
                element.keyword == "SeriesInstanceUID" and not outermost
            ):
                yield str(element.value)
