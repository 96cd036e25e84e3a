"""Bring series into the spool: complete and counted, tried again after a fault, never fetched twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from genseg_monai.dicom.links import read_annotation
from genseg_monai.dicom.quarantine import Quarantined
from genseg_monai.pacs.choose import Archive
from genseg_monai.pacs.faults import ArchiveError, NetFault, retrying
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
            try:
                archive.retrieve(series, inbox)
            except ArchiveError as error:
                inbox.check()  # what stopped it here says more than how the line ended
                if error.reason is NetFault.FAILED and (inbox.refused or inbox.complete):
                    inbox.check_complete()
                else:
                    raise
            inbox.check_complete()
        return inbox

    return retrying(attempt, settings.attempts, settings.retry_seconds)


def refers_to(path: Path, series: SeriesRecord, images: Iterable[SeriesRecord]) -> bool:
    """Say whether a SEG or RTSTRUCT refers to one of some image series, by its UID or by that of an instance.

    Args:
        path: the file.
        series: which it is in.
        images: the image series; where the file refers to nothing at all, its frame of reference decides later.
    """
    try:
        refers = read_annotation(path).refers - {series.series_uid}
    except Quarantined:
        return True  # listed among the refused ones when it is converted
    return not refers or any(refers & {one.series_uid, *(instance.uid for instance in one.instances)} for one in images)
