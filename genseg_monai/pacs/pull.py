"""From an archive to a data set: query, choose, retrieve into a private spool, convert, and leave nothing else behind.

Raw objects lie in the spool (mode 0700) only: first under `incoming`, complete and counted under `raw`, and gone once
converted. A run that was stopped goes on where it was; the end is the same, byte for byte, the audit log apart.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from genseg_monai.dicom.convert import convert_folder
from genseg_monai.dicom.folder import write_quarantine
from genseg_monai.dicom.geometry import Gaps, Tilt
from genseg_monai.dicom.output import hash_file, write_json
from genseg_monai.dicom.profile import Profile
from genseg_monai.dicom.scan import scan_folder
from genseg_monai.dicom.uids import Key
from genseg_monai.pacs.audit import Ledger
from genseg_monai.pacs.choose import FATAL, Archive, Choice, Wanted, choose
from genseg_monai.pacs.faults import ArchiveError
from genseg_monai.pacs.records import Query, SeriesRecord
from genseg_monai.pacs.retrieve import fetch, refers_to
from genseg_monai.pacs.rules import Rules
from genseg_monai.pacs.spool import Spool, drop_abandoned, hashed, passing_spool

__all__ = ["Pulled", "look", "pull"]

_LOG = logging.getLogger(__name__)
_BATCH = 8  # studies whose raw copies lie in the spool at the same time
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pulled:
    """How a pull ended.

    Attributes:
        choice: what was chosen out of what.
        labelled: cases with a label map in the data set, those of earlier runs included.
        unlabelled: cases without one.
        refused: series, annotations and files refused, by reason.
        failed: series that did not arrive, by reason; another run tries them again.
        unknown: names of regions that the labels do not have.
    """

    choice: Choice
    labelled: int
    unlabelled: int
    refused: dict[str, int]
    failed: Counter[str]
    unknown: tuple[str, ...]


def look(archive: Archive, query: Query, rules: Rules, tell: Tell | None = None) -> Choice:
    """Say what a pull would fetch, and write nothing."""
    with passing_spool() as spool:
        return choose(archive, query, rules, spool, _stage(tell, "query"))


def pull(
    archive: Archive,
    query: Query,
    out: Path | str,
    *,
    key: Key,
    rules: Rules | None = None,
    labels: Mapping[str, int] | None = None,
    profile: Profile | None = None,
    tilt: Tilt | str = Tilt.REFUSE,
    gaps: Gaps | str = Gaps.REFUSE,
    tell: Tell | None = None,
) -> Pulled:
    """Fetch and convert what a query and rules choose.

    Args:
        archive: a `DimseArchive` or a `WebArchive`.
        query: which studies.
        out: the folder of the data set; made if missing, continued if it is there.
        key: the secret behind the pseudonyms.
        rules: which of their series; None takes all.
        labels: name of segment or region -> class; None numbers the names found.
        profile: what is refused, and which names may stay.
        tilt: what to do with a tilted gantry, see `read_series`.
        gaps: what to do with one missing slice, see `read_series`.
        tell: called with a stage (query, retrieve, convert), what is done of it, and all.

    Raises:
        ArchiveError: nobody there, not for us, or the disk is full; what arrived is kept for the next run.
        UserError: the folder was written with another key, other labels or another geometry.
        RunFailed: raw copies could not be removed.
    """
    out = Path(out).resolve()
    # beside the data set, on the same disk: nobody takes a raw copy for a part of it
    with Spool(out.with_name(f".{out.name}.spool")) as spool:
        spool.drop_scratch()
        drop_abandoned()
        geometry = Tilt(tilt), Gaps(gaps)
        ledger = Ledger(out, key, geometry)
        choice = choose(archive, query, rules or Rules(), spool, _stage(tell, "query"))
        ledger.write("chosen", route=archive.route, studies=choice.studies, series=len(choice.wanted))
        job = _Job(archive, spool, ledger, out, labels or _labels_of(out), profile or Profile(), geometry, tell)
        todo = [one for one in choice.wanted if not ledger.has(one)]
        job.expect(todo)
        for batch in _batches(todo, whole=job.labels is None):
            job.run(batch)
        if not (out / "manifest.json").exists():
            job.convert()
        result = job.finish(choice)
        if not result.failed:
            spool.remove()
        return result


class _Job:
    """One pull, from the choice on."""

    def __init__(
        self,
        archive: Archive,
        spool: Spool,
        ledger: Ledger,
        out: Path,
        labels: Mapping[str, int] | None,
        profile: Profile,
        geometry: tuple[Tilt, Gaps],
        tell: Tell | None,
    ) -> None:
        self.archive, self.spool, self.ledger, self.out = archive, spool, ledger, out
        self.labels, self.profile, self.tell = labels, profile, tell
        self.tilt, self.gaps = geometry
        self.failed: Counter[str] = Counter()
        self.refused = _read_quarantine(out)
        self._total = self._before = 0

    def expect(self, todo: Sequence[Wanted]) -> None:
        """Count what is to come, and drop what an earlier run with another query left."""
        series = {one.series_uid: one for wanted in todo for one in (wanted.images, *wanted.annotations)}
        self._total = sum(len(one.instances) or one.count or 0 for one in series.values())
        names = {hashed(uid) for uid in series}
        for place in ("raw", "incoming"):
            for path in self.spool.folder(place).iterdir():
                if path.name not in names:
                    shutil.rmtree(path, ignore_errors=True)

    def run(self, batch: Sequence[Wanted]) -> None:
        """Bring some studies into the data set, and drop their raw copies."""
        arrived = [one for study in _by_study(batch) for one in self._arrive(study)]
        if arrived:
            self.convert()
        for one in arrived:
            self.ledger.settle(one)
        shutil.rmtree(self.spool.folder("raw"))
        for one in arrived:  # annotations of other series
            for series in one.annotations:
                shutil.rmtree(self.spool.series_folder(series.series_uid))

    def convert(self) -> None:
        """Convert what lies in the spool."""
        convert_folder(
            self.spool.folder("raw"),
            self.out,
            self.labels,
            key=self.ledger.key,
            profile=self.profile,
            tilt=self.tilt,
            gaps=self.gaps,
            also_refused=self.refused,  # of earlier batches and runs
            progress=_stage(self.tell, "convert"),
        )
        self.refused |= _read_quarantine(self.out)

    def _arrive(self, study: Sequence[Wanted]) -> list[Wanted]:
        """Bring the series of one study, and what refers to them, into `raw`; return those fit to be converted."""
        good = [one for one in study if self._fetch(one.images)]
        notes = {series.series_uid: series for one in good for series in one.annotations}
        # without its annotation a series would come out as one without labels
        if not all(self._fetch(series) for series in notes.values()):
            return []
        good = [one for one in good if self._is_whole(one)]
        for series in notes.values():
            held = list(self.spool.series_folder(series.series_uid).glob("*.dcm"))
            if any(refers_to(path, series, [one.images for one in good]) for path in held):
                self._move(series)
        for one in good:
            self._move(one.images)
        return good

    def _is_whole(self, wanted: Wanted) -> bool:
        """Refuse a series with a broken file: that slice would be missing, at an end of the stack even unseen."""
        folder = self._raw(wanted.images)
        if folder.exists():
            return True  # an earlier run has looked
        folder = self.spool.series_folder(wanted.images.series_uid)
        broken = {hash_file(Path(e.where)): e.reason.value for e in scan_folder(folder).refused}
        if not broken:
            return True
        self.refused |= broken
        write_quarantine(self.out, self.refused)
        reason = next(iter(broken.values()))
        self.ledger.write("refused", series=self.ledger.name(wanted.images), reason=reason, files=len(broken))
        self.ledger.settle(wanted, reason)
        shutil.rmtree(folder)
        return False

    def _raw(self, series: SeriesRecord) -> Path:
        return self.spool.folder("raw") / hashed(series.series_uid)

    def _move(self, series: SeriesRecord) -> None:
        if not self._raw(series).exists():
            os.replace(self.spool.series_folder(series.series_uid), self._raw(series))

    def _fetch(self, series: SeriesRecord) -> bool:
        """Bring a series into `incoming`, complete; say whether it came."""
        before = self._before
        self._before += len(series.instances) or series.count or 0
        try:
            if not self._raw(series).exists():
                inbox = fetch(self.archive, series, self.spool, lambda held, _: self._report(before + held))
                if inbox.received:
                    facts = {"instances": inbox.held, "new": inbox.received, "bytes": inbox.bytes}
                    self.ledger.write("retrieved", series=self.ledger.name(series), **facts)
        except ArchiveError as error:
            if error.reason in FATAL:
                raise
            self.failed[error.reason.value] += 1
            self.ledger.write("failed", series=self.ledger.name(series), reason=error.reason.value)
            _LOG.warning("one series did not arrive, the rest goes on: %s", error)
            return False
        finally:
            self._report(self._before)
        return True

    def _report(self, done: int) -> None:
        if self.tell:
            self.tell("retrieve", min(done, self._total), self._total)

    def finish(self, choice: Choice) -> Pulled:
        """Write the list of refused files and the manifest over all batches."""
        write_quarantine(self.out, self.refused)
        manifest = json.loads((self.out / "manifest.json").read_text("utf-8"))
        cases = manifest["cases"].values()
        reasons = Counter(self.refused.values())
        for case in cases:
            reasons.update({f"annotation_{name}": n for name, n in case.get("annotations_refused", {}).items()})
        manifest["refused"] = dict(sorted(reasons.items()))
        manifest["unknown"] = sorted({name for case in cases for name in case.get("unknown", ())})
        write_json(self.out / "manifest.json", manifest)
        labelled = sum(bool(case["label"]) for case in cases)
        unlabelled = len(cases) - labelled
        refused, failed = manifest["refused"], dict(sorted(self.failed.items()))
        self.ledger.write("pulled", labelled=labelled, unlabelled=unlabelled, refused=refused, failed=failed)
        return Pulled(choice, labelled, unlabelled, refused, self.failed, tuple(manifest["unknown"]))


def _by_study(wanted: Sequence[Wanted]) -> list[list[Wanted]]:
    return [list(group) for _, group in groupby(wanted, key=lambda one: one.images.study_uid)]


def _batches(todo: Sequence[Wanted], whole: bool) -> Iterator[list[Wanted]]:
    """Yield the series of some studies at a time; all at once where class numbers follow from all names."""
    studies = _by_study(todo)
    size = max(1, len(studies)) if whole else _BATCH
    for start in range(0, len(studies), size):
        yield [one for study in studies[start : start + size] for one in study]


def _labels_of(out: Path) -> dict[str, int] | None:
    """Return the classes of an earlier run into the same folder."""
    path = out / "manifest.json"
    if not path.exists():
        return None
    return {str(name): int(number) for name, number in json.loads(path.read_text("utf-8"))["labels"].items()}


def _read_quarantine(out: Path) -> dict[str, str]:
    path = out / "quarantine.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["sha256"]: row["reason"] for row in csv.DictReader(file)}


def _stage(tell: Tell | None, name: str) -> Callable[[int, int], None] | None:
    return None if tell is None else lambda done, total: tell(name, done, total)
