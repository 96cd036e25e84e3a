"""De-identification of a folder of DICOM files: resumable, with an audit log and a list of what was refused."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genseg_monai.dicom.audit import AuditLog
from genseg_monai.dicom.deidentify import Cleaned, Deidentifier, encode
from genseg_monai.dicom.instance import read_instance
from genseg_monai.dicom.output import Progress, check_folders, hash_file, walk_files, write_atomic, write_json
from genseg_monai.dicom.profile import Profile
from genseg_monai.dicom.quarantine import Quarantined, Reason
from genseg_monai.dicom.uids import Key

__all__ = ["Summary", "deidentify_folder", "listed_as", "place_of", "write_quarantine"]


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    written: int
    """Objects in the output folder, those of earlier runs included."""
    refused: dict[str, int]
    """How many files were quarantined for each reason."""


def deidentify_folder(
    source: Path | str,
    out: Path | str,
    *,
    profile: Profile,
    key: Key,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """De-identify every DICOM file below a folder into `PATIENT/STUDY/SERIES/INSTANCE.dcm` of pseudonyms.

    Beside the objects the output holds `manifest.json` (profile, options, edition, fingerprints, counts), `audit.jsonl`
    and `quarantine.csv` (SHA-256 and reason of each refused file, which stays where it is). A run that was stopped goes
    on where it was; all but the audit log end byte-identical.

    Args:
        source: folder, looked through to the bottom.
        out: folder apart from it.
        profile: what to keep, to clean and to refuse.
        key: the secret behind the pseudonyms.
        progress: called with the number of files done and the number of all.

    Raises:
        UserError: the folders do not fit, or an earlier run used another key or profile.
    """
    source, out = Path(source), Path(out)
    check_folders(source, out)
    settings = {"command": "deidentify", "key": key.fingerprint, "profile": profile.fingerprint}
    done = Progress(out, settings)
    engine = Deidentifier(profile, key)
    paths = list(walk_files(source))
    taken = {record["path"]: name for name, record in done.records.items() if "path" in record}
    with AuditLog(out / "audit.jsonl", key) as audit:
        audit.write("started", command="deidentify", profile=profile.as_dict(), key=key.fingerprint, files=len(paths))
        for number, path in enumerate(paths, 1):
            _one(path, source, out, engine, done, taken, audit)
            if progress is not None:
                progress(number, len(paths))
        summary = _finish(out, done, profile, key)
        audit.write("finished", written=summary.written, refused=summary.refused)
    return summary


def place_of(key: Key, patient: str, dataset: Any) -> Path:
    """Return where an object goes: nothing of the path comes from a value of the file, only from keyed pseudonyms."""
    names = [
        key.name("path", str(dataset[k].value)) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    ]
    return Path(patient, *names[:2], names[2] + ".dcm")


def listed_as(path: Path, source: Path, key: Key) -> str:
    """Return what names a refused file: its SHA-256, or a pseudonym of its place where it cannot be read."""
    try:
        return hash_file(path)
    except OSError:
        return f"unreadable {key.name('file', path.relative_to(source).as_posix())}"


def _one(
    path: Path,
    source: Path,
    out: Path,
    engine: Deidentifier,
    done: Progress,
    taken: dict[str, str],
    audit: AuditLog,
) -> None:
    digest = listed_as(path, source, engine.key)
    if digest.startswith("unreadable"):  # not kept for the next run, which may be able to read it
        done.records[digest] = {"id": digest, "reason": Reason.UNREADABLE.value}
        audit.write("quarantined", reason=Reason.UNREADABLE.value, sha256="")
        return
    record = done.records.get(digest)
    if record and ("reason" in record or (out / record["path"]).is_file()):
        return
    try:
        cleaned: Cleaned = engine.process(read_instance(path))
        place = place_of(engine.key, cleaned.patient, cleaned.dataset)
        if taken.setdefault(place.as_posix(), digest) != digest:
            raise Quarantined(Reason.DUPLICATE)
        write_atomic(out / place, encode(cleaned.dataset))
    except Quarantined as refused:
        done.add(digest, reason=refused.reason.value)
        audit.write("quarantined", reason=refused.reason.value, sha256=digest)
        return
    done.add(digest, path=place.as_posix(), modality=str(cleaned.dataset.get("Modality") or ""))
    instance = str(cleaned.dataset.SOPInstanceUID)
    audit.write(
        "deidentified", patient=cleaned.patient, instance=instance, actions=dict(sorted(cleaned.counts.items()))
    )


def _finish(out: Path, done: Progress, profile: Profile, key: Key) -> Summary:
    records = done.records.values()
    refused = dict(sorted(Counter(record["reason"] for record in records if "reason" in record).items()))
    kinds = Counter(record["modality"] for record in records if "path" in record)
    write_quarantine(out, {record["id"]: record["reason"] for record in records if "reason" in record})
    write_json(
        out / "manifest.json",
        {
            "format": 1,
            "profile": profile.as_dict(),
            "codes": [list(code) for code in profile.codes],
            "key": key.fingerprint,
            "objects": dict(sorted(kinds.items())),
            "quarantined": refused,
        },
    )
    return Summary(sum(kinds.values()), refused)


def write_quarantine(out: Path, reasons: dict[str, str]) -> None:
    """Write the list of refused files, as `listed_as` names them; their own names may hold a patient's."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("sha256", "reason"))
    writer.writerows(sorted(reasons.items()))
    write_atomic(out / "quarantine.csv", text.getvalue().encode())
