"""Which files of a folder make which series, from their headers alone.

Nothing is taken from file names or DICOMDIR. A series is split further only where several slices share a position and
one attribute (acquisition, temporal position, echo time, content time) tells complete stacks apart.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.header import Limits
from genseg_monai.dicom.image import ImageHeader, Slice, read_claim, read_image_header

__all__ = ["Scan", "SeriesFiles", "scan_folder"]

_NOT_SLICES = frozenset({"LOCALIZER", "SCREEN SAVE", "SCREENSAVE"})
_QUIET = (SeriesFault.NOT_DICOM, SeriesFault.NOT_AN_IMAGE)


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series, or of one complete stack of it.

    Attributes:
        folder: where they were looked for.
        uid: SeriesInstanceUID; empty where the files have none.
        modality: as in the files.
        headers: one a file.
        notes: what was left out, and why.
        broken: files that cannot be read, and may be slices of it.
        beside: SOP instances of the same series that are not among the files: other stacks, localizers.
    """

    folder: Path
    uid: str
    modality: str
    headers: tuple[ImageHeader, ...]
    notes: tuple[str, ...] = ()
    broken: tuple[Path, ...] = ()
    beside: frozenset[str] = frozenset()

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths of the files."""
        return tuple(header.path for header in self.headers)


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Attributes:
        series: the image series, in the order of their first files.
        others: DICOM objects that are no images: segmentations, structure sets, reports.
        refused: why each other file that claims to be DICOM is not read.
    """

    series: tuple[SeriesFiles, ...]
    others: tuple[Path, ...] = ()
    refused: tuple[SeriesError, ...] = field(default=())


def scan_folder(folder: Path, files: Iterable[Path] | None = None, limits: Limits | None = None) -> Scan:
    """Read every header below a folder, and group the images.

    Args:
        folder: looked through to the bottom; links to folders are not followed.
        files: look at these instead.
        limits: what reading one header may cost.
    """
    paths = sorted(files if files is not None else (path for path in folder.rglob("*") if path.is_file()))
    groups: dict[tuple[str, str, str], list[ImageHeader]] = defaultdict(list)
    others: list[Path] = []
    refused: list[SeriesError] = []
    for path in paths:
        try:
            header = read_image_header(path, limits)
        except SeriesError as error:
            if error.reason is SeriesFault.NOT_AN_IMAGE:
                others.append(path)
            elif error.reason is not SeriesFault.NOT_DICOM or files is not None:
                refused.append(error)
            continue
        place = "" if header.uids["series"] else str(path.parent)  # without a UID: one series a folder
        groups[header.uids["study"], header.uids["series"], place].append(header)
    series = [part for headers in groups.values() for part in _split(folder, _without_copies(headers))]
    broken = {path: read_claim(path, limits) for path in (Path(error.where) for error in refused)}
    return Scan(tuple(_with_broken(series, broken)), tuple(others), tuple(refused))


def _with_broken(series: Sequence[SeriesFiles], broken: Mapping[Path, Mapping[str, str]]) -> Iterator[SeriesFiles]:
    """Tell each series which broken files may be slices of it: by their UIDs, else by the folder it has for itself.

    A spoilt copy of an image that is there takes nothing away.
    """
    held = {header.uids["instance"] for part in series for header in part.headers} - {""}
    broken = {path: claim for path, claim in broken.items() if claim.get("instance") not in held}
    homes: dict[Path, set[str]] = defaultdict(set)
    for part in series:
        for path in part.files:
            homes[path.parent].add(part.uid)
    for part in series:
        folders = {path.parent for path in part.files}
        mine, unclear = [], 0
        for path, claim in broken.items():
            if claim.get("series"):
                mine += [path] if claim["series"] == part.uid else []
            elif path.parent in folders:
                alone = len(homes[path.parent]) == 1
                mine += [path] if alone else []
                unclear += not alone
        notes = (f"files beside it that cannot be read, and may be slices of it: {unclear}",) if unclear else ()
        yield replace(part, broken=tuple(mine), notes=(*part.notes, *notes))


def _without_copies(headers: Sequence[ImageHeader]) -> tuple[list[ImageHeader], tuple[str, ...]]:
    """Drop byte-identical copies of an instance; other files of the same instance stay, to be refused later."""
    kept: list[ImageHeader] = []
    seen: dict[str, set[bytes]] = defaultdict(set)
    counts: dict[str, int] = defaultdict(int)
    for header in headers:
        counts[header.uids["instance"]] += 1
    for header in headers:
        instance = header.uids["instance"]
        if instance and counts[instance] > 1:
            with open(header.path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            if digest in seen[instance]:
                continue
            seen[instance].add(digest)
        kept.append(header)
    dropped = len(headers) - len(kept)
    return kept, (f"{dropped} identical copies left out",) if dropped else ()


def _split(folder: Path, found: tuple[list[ImageHeader], tuple[str, ...]]) -> list[SeriesFiles]:
    headers, notes = found
    everything = {header.uids["instance"] for header in headers}
    slices = [header for header in headers if not _NOT_SLICES & set(header.image_type)]
    if slices and len(slices) < len(headers):
        notes = (*notes, f"{len(headers) - len(slices)} localizers or screen shots left out")
        headers = slices
    first = headers[0]

    def series(part: list[ImageHeader], *note: str) -> SeriesFiles:
        beside = frozenset(everything.difference(header.uids["instance"] for header in part))
        return SeriesFiles(folder, first.uids["series"], first.modality, tuple(part), (*notes, *note), beside=beside)

    for position in range(len(first.phase) + 1):
        stacks: dict[str, list[ImageHeader]] = defaultdict(list)
        for header in headers:
            key = "\\".join(header.image_type) if position == len(first.phase) else header.phase[position]
            stacks[key].append(header)
        whole = [_positions(stack) for stack in stacks.values()]
        if len(stacks) > 1 and _shared(headers) and all(p is not None and p == whole[0] for p in whole):
            return [
                series(stacks[key], f"stack {number} of {len(stacks)}")
                for number, key in enumerate(sorted(stacks, key=_in_order), 1)
            ]
    return [series(headers)]


def _in_order(key: str) -> tuple[float, str]:
    """Sort numbers as numbers, and other words after them."""
    try:
        return float(key), key
    except ValueError:
        return float("inf"), key


def _planes(headers: Iterable[ImageHeader]) -> list[Slice]:
    return [plane for header in headers for plane in header.slices]


def _key(plane: Slice) -> tuple[float, ...] | None:
    return None if plane.position is None else tuple(round(float(value), 2) for value in plane.position)


def _shared(headers: Sequence[ImageHeader]) -> bool:
    """Whether two slices share a position, being different instances."""
    keys = [_key(plane) for plane in _planes(headers)]
    instances = [header.uids["instance"] for header in headers]
    return len(set(keys)) < len(keys) and len(set(instances)) == len(instances)


def _positions(headers: Sequence[ImageHeader]) -> frozenset[tuple[float, ...]] | None:
    """The positions of a stack; None where one is missing or taken twice."""
    keys = [_key(plane) for plane in _planes(headers)]
    found = frozenset(key for key in keys if key is not None)
    return found if len(found) == len(keys) else None
