"""A folder of DICOM files to a data set that training reads: volumes and label maps, without a name in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genseg_monai.dicom.annotation import is_annotation, label_map
from genseg_monai.dicom.audit import AuditLog
from genseg_monai.dicom.dataset import write_index, write_volume
from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.folder import listed_as, write_quarantine
from genseg_monai.dicom.links import Annotation, read_annotation, read_owner
from genseg_monai.dicom.output import Progress, check_folders
from genseg_monai.dicom.profile import Profile
from genseg_monai.dicom.quarantine import Quarantined
from genseg_monai.dicom.scan import SeriesFiles, scan_folder
from genseg_monai.dicom.series import Gaps, Tilt, read_series
from genseg_monai.dicom.uids import Key
from genseg_monai.dicom.vocabulary import withhold
from genseg_monai.errors import UserError

__all__ = ["Converted", "convert_folder"]


@dataclass(frozen=True)
class Converted:
    """How a run ended; series of earlier runs included."""

    labelled: int
    unlabelled: int
    refused: dict[str, int]
    """How many series, annotations and files were refused for each reason."""
    unknown: tuple[str, ...]
    """Names of regions that `labels` does not have; those that may identify somebody are withheld."""


@dataclass(frozen=True)
class _Job:
    """What all series of a run have in common."""

    out: Path
    labels: Mapping[str, int]
    key: Key
    profile: Profile
    tilt: Tilt
    gaps: Gaps
    done: Progress
    audit: AuditLog


def convert_folder(
    source: Path | str,
    out: Path | str,
    labels: Mapping[str, int] | None = None,
    *,
    key: Key,
    profile: Profile | None = None,
    tilt: Tilt | str = Tilt.REFUSE,
    gaps: Gaps | str = Gaps.REFUSE,
    also_refused: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Converted:
    """Convert every image series below a folder, with the SEG and RTSTRUCT objects that refer to it.

    Series without a region of `labels` go to `imagesTs`. Refused series and files stay where they are; `quarantine.csv`
    lists them by the SHA-256 of their (first) file. A run that was stopped goes on where it was, and ends with the same
    bytes, the audit log apart.

    Args:
        source: folder, looked through to the bottom.
        out: folder apart from it.
        labels: name of segment or region -> class; None numbers the names found that are made of known words.
        key: the secret behind the pseudonyms.
        profile: whose `quarantine` and `labels` count; None is the basic profile.
        tilt: what to do with a tilted gantry, see `read_series`.
        gaps: what to do with one missing slice, see `read_series`.
        also_refused: SHA-256 -> reason of files refused before, to be listed with those found here.
        progress: called with the number of series done and the number of all.

    Raises:
        UserError: the folders do not fit, or an earlier run used other settings.
    """
    source, out, profile = Path(source), Path(out), profile or Profile()
    check_folders(source, out)
    scan = scan_folder(source)
    refused = dict(also_refused or {})
    for fault in scan.refused:
        refused[listed_as(Path(fault.where), source, key)] = fault.reason.value
    notes: list[Annotation] = []
    for path in filter(is_annotation, scan.others):
        try:
            notes.append(read_annotation(path))
        except Quarantined as error:
            refused[listed_as(path, source, key)] = error.reason.value
    if labels is None:
        labels = _number_names(notes, key, profile)
    settings = {
        "command": "convert",
        "key": key.fingerprint,
        "profile": profile.fingerprint,
        "labels": dict(sorted(labels.items())),
        "geometry": [Tilt(tilt).value, Gaps(gaps).value],
    }
    done = Progress(out, settings)
    with AuditLog(out / "audit.jsonl", key) as audit:
        audit.write("started", series=len(scan.series), **settings, rules=profile.as_dict())
        job = _Job(out, labels, key, profile, Tilt(tilt), Gaps(gaps), done, audit)
        counts = Counter(part.uid for part in scan.series)
        for number, part in enumerate(scan.series, 1):
            _one(part, counts[part.uid] > 1, notes, job)
            if progress is not None:
                progress(number, len(scan.series))
        result = _finish(job, refused)
        audit.write("finished", labelled=result.labelled, unlabelled=result.unlabelled, refused=result.refused)
    return result


def _number_names(notes: list[Annotation], key: Key, profile: Profile) -> dict[str, int]:
    """Number the names whose every word is known, in the order of the alphabet."""
    found = {" ".join(name.split()).lower() for note in notes for name in note.names}
    allowed = {name.lower() for name in profile.labels}
    safe = sorted(name for name in found if name and withhold(name, "", allowed) == name)
    return {name: number for number, name in enumerate(safe[:255], 1)}


def _one(part: SeriesFiles, split: bool, notes: list[Annotation], job: _Job) -> None:
    """Convert one series, unless an earlier run did."""
    instances = sorted(header.uids["instance"] for header in part.headers)
    uids = frozenset({part.uid, *instances}) - {""}
    frame = part.headers[0].uids.get("frame_of_reference", "")
    mine = [note for note in notes if note.speaks_of(uids, frame)]
    case = job.key.name("case", "/".join((part.uid, instances[0] if split or not part.uid else "")))
    sizes = sorted(path.stat().st_size for path in (*part.files, *part.broken, *(note.path for note in mine)))
    signature = job.key.name("input", json.dumps([instances, sorted(note.instance for note in mine), sizes]))
    before = job.done.records.get(case)
    if before and before["signature"] == signature and _complete(job.out, before):
        return
    record: dict[str, Any] = {"signature": signature}
    try:
        record |= _convert(part, mine, case, job)
    except (Quarantined, SeriesError) as error:
        record |= {"reason": error.reason.value, "sha256": listed_as(part.files[0], part.folder, job.key)}
        _remove(job.out, case)
        job.audit.write("refused", case=case, reason=error.reason.value)
    else:
        job.audit.write("converted", case=case, patient=record["group"], label=record["label"])
    job.done.add(case, **record)


def _places(out: Path, case: str) -> dict[str, Path]:
    return {folder: out / folder / f"{case}.nii.gz" for folder in ("imagesTr", "labelsTr", "imagesTs")}


def _complete(out: Path, record: Mapping[str, Any]) -> bool:
    wanted = () if "reason" in record else ("imagesTr", "labelsTr") if record["label"] else ("imagesTs",)
    places = _places(out, record["id"])
    return all(places[folder].is_file() for folder in wanted)


def _remove(out: Path, case: str) -> None:
    for place in _places(out, case).values():
        place.unlink(missing_ok=True)


def _convert(part: SeriesFiles, mine: list[Annotation], case: str, job: _Job) -> dict[str, Any]:
    patient = read_owner(part.files, job.profile)
    try:
        series = read_series(part, tilt=job.tilt, gaps=job.gaps)
        labels, report = label_map([note.path for note in mine], series, job.labels)
    except (UserError, OSError, MemoryError):
        raise
    except Exception:  # whatever a broken file does to a decoder; its message may hold a value
        raise SeriesError(case, SeriesFault.UNREADABLE, "wanted a series that can be read") from None
    if report.absent:
        raise SeriesError(
            case, SeriesFault.INCOMPLETE, f"an annotation refers to {report.absent} images that are missing"
        )
    labelled = bool(labels.any())
    places = _places(job.out, case)
    _remove(job.out, case)
    write_volume(places["imagesTr" if labelled else "imagesTs"], series.array, series.affine)
    if labelled:
        write_volume(places["labelsTr"], labels, series.affine)
    return {
        "group": job.key.patient(patient),
        "label": labelled,
        "modality": series.modality,
        "shape": list(series.array.shape),
        "notes": list(series.notes),
        "voxels": {str(number): int((labels == number).sum()) for number in sorted(set(job.labels.values()))},
        "overlapping": report.overlapping,
        "outside": report.outside,
        "skipped": report.skipped,
        "annotations_refused": dict(sorted(Counter(error.reason.value for error in report.refused).items())),
        "unknown": sorted({withhold(n, job.key.name("name", n), _allowed(job)) for n in report.unknown}),
    }


def _allowed(job: _Job) -> set[str]:
    return {name.lower() for name in job.profile.labels}


def _finish(job: _Job, refused_files: dict[str, str]) -> Converted:
    records = sorted(job.done.records.values(), key=lambda record: record["id"])
    cases = [record for record in records if "reason" not in record]
    listed = {**refused_files, **{record["sha256"]: record["reason"] for record in records if "reason" in record}}
    reasons = Counter(listed.values())
    for case in cases:
        reasons.update({f"annotation_{name}": count for name, count in case["annotations_refused"].items()})
    unknown = tuple(sorted({name for case in cases for name in case["unknown"]}))
    refused = dict(sorted(reasons.items()))
    write_quarantine(job.out, listed)
    manifest = {
        "format": 1,
        "profile": job.profile.as_dict(),
        "key": job.key.fingerprint,
        "labels": dict(sorted(job.labels.items())),
        "cases": {
            case["id"]: {name: case[name] for name in sorted(case) if name not in ("id", "signature")} for case in cases
        },
        "refused": refused,
        "unknown": list(unknown),
    }
    write_index(job.out, cases, job.labels, manifest)
    labelled = sum(case["label"] for case in cases)
    return Converted(labelled, len(cases) - labelled, refused, unknown)
