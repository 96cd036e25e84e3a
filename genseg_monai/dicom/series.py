"""Read an image series into one volume, or refuse it with the reason.

Headers are parsed with bounds (`header`), slices proved to form a grid (`geometry`), pixels read into one
preallocated array (`volume`). What cannot be read rightly is refused: a volume with a missing slice, or a second
series stacked on the first, trains a network on an anatomy that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from genseg_monai.dicom.decode import check_syntax
from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.geometry import Gaps, Stack, Tilt, normal_of, plane_affine, stack_slices
from genseg_monai.dicom.header import Limits
from genseg_monai.dicom.image import ImageHeader, Slice
from genseg_monai.dicom.scan import Scan, SeriesFiles, scan_folder
from genseg_monai.dicom.volume import level_tilt, read_volume

__all__ = ["Gaps", "Limits", "Scan", "Series", "SeriesError", "SeriesFault", "SeriesFiles", "Tilt"]
__all__ += ["find_series", "read_series", "scan_folder"]


@dataclass(frozen=True)
class Series:
    """One volume and where it came from. It holds no name, number or date of a patient.

    Attributes:
        array: (X, Y, Z) = (column, row, slice), int16 where that is exact, float32 otherwise; Hounsfield units for CT.
        affine: (4, 4), voxel to RAS millimetres.
        modality: CT, MR, CR, ...
        uids: `study`, `series`, `frame_of_reference`, `class`; empty where the files have none.
        sop_instances: the SOP instance of each slice, in slice order (empty text for a filled slice).
        frames: the frame of each slice within its instance, from 0.
        files: the file of each slice (None for a filled slice).
        placed: whether the files say where the slices lie in the patient.
        facts: header values that identify nobody: image type, transfer syntax, bits, tilt.
        notes: what was left out, filled or shifted.
        beside: SOP instances of the series that make no slice of this volume: other stacks, localizers.
    """

    array: np.ndarray
    affine: np.ndarray
    modality: str
    uids: Mapping[str, str]
    sop_instances: tuple[str, ...]
    frames: tuple[int, ...]
    files: tuple[Path | None, ...]
    placed: bool
    facts: Mapping[str, object]
    notes: tuple[str, ...] = ()
    beside: frozenset[str] = frozenset()


def find_series(folder: Path | str, limits: Limits | None = None) -> list[SeriesFiles]:
    """Find the image series below a folder by their headers.

    Args:
        folder: looked through to the bottom.
        limits: what reading one header may cost.

    Returns:
        One entry a series, or a complete stack of a series; see `scan_folder` for what was refused.
    """
    return list(scan_folder(Path(folder), None, limits).series)


def read_series(
    source: SeriesFiles | Path | str | Iterable[Path | str],
    *,
    tilt: Tilt | str = Tilt.REFUSE,
    gaps: Gaps | str = Gaps.REFUSE,
    expected: int | None = None,
    limits: Limits | None = None,
) -> Series:
    """Read one series.

    Args:
        source: what `find_series` found, a folder, a file, or files.
        tilt: what to do with a tilted gantry: refuse, shear, resample.
        gaps: what to do with one missing slice: refuse, fill.
        expected: instances that the archive has of it; missing end slices cannot be seen otherwise.
        limits: memory and time.

    Returns:
        The volume with its affine.

    Raises:
        SeriesError: with the reason why it is not read.
    """
    limits = limits or Limits()
    found = source if isinstance(source, SeriesFiles) else _only_series(source, limits)
    where, headers = found.folder, found.headers
    instances = [header.uids["instance"] for header in headers if header.uids["instance"]]
    if len(set(instances)) < len(instances):
        raise SeriesError(
            where, SeriesFault.DUPLICATE, "wanted each instance once, got two files of one instance that differ"
        )
    if found.broken:
        raise SeriesError(
            where,
            SeriesFault.INCOMPLETE,
            f"wanted every slice, got {len(found.broken)} that cannot be read; send it again",
        )
    if expected is not None and len(headers) != expected:
        raise SeriesError(
            where, SeriesFault.INCOMPLETE, f"wanted the {expected} instances of the archive, got {len(headers)}"
        )
    _check_alike(headers, where)
    for header in headers:
        check_syntax(header)
    pairs = [(header, plane) for header in headers for plane in header.slices]
    stack, placed = _stack(pairs, where, Tilt(tilt), Gaps(gaps))
    depth = len(pairs) + (stack.missing is not None)
    slots = [index for index in range(depth) if index != stack.missing]
    ordered = [pairs[index] for index in stack.order]
    volume = read_volume([(*pair, slot) for pair, slot in zip(ordered, slots, strict=True)], depth, limits)
    notes = list(found.notes)
    planes: list[Slice | None] = [plane for _, plane in ordered]
    if stack.missing is not None:
        pair = volume[stack.missing - 1], volume[stack.missing + 1]
        volume[stack.missing] = (pair[0].astype(np.float32) + pair[1]) / 2
        planes.insert(stack.missing, None)
        notes.append(f"slice {stack.missing} was missing: filled with the mean of its neighbours")
    if stack.shifts is not None:
        volume = level_tilt(volume, stack.shifts)
        notes.append("tilted gantry: slices shifted onto a rectangular grid")
    first = headers[0]
    return Series(
        array=volume.transpose(2, 1, 0),
        affine=stack.affine,
        modality=first.modality,
        uids=MappingProxyType({key: value for key, value in first.uids.items() if key != "instance"}),
        sop_instances=tuple(plane.instance if plane else "" for plane in planes),
        frames=tuple(plane.frame if plane else 0 for plane in planes),
        files=tuple(plane.path if plane else None for plane in planes),
        placed=placed,
        facts=MappingProxyType({**_facts(first), "resampled": stack.shifts is not None}),
        notes=tuple(notes),
        beside=found.beside,
    )


def _only_series(source: Path | str | Iterable[Path | str], limits: Limits) -> SeriesFiles:
    """Return the one series of a folder, a file or files; a broken file is an error, for it may be a slice."""
    if isinstance(source, Path | str):
        where = Path(source)
        if not where.exists():
            raise SeriesError(where, SeriesFault.NO_IMAGES, "wanted a DICOM folder or file, got nothing there")
        scan = scan_folder(where, None if where.is_dir() else [where], limits)
    else:
        files = [Path(path) for path in source]
        where = files[0].parent if files else Path()
        scan = scan_folder(where, files, limits)
    if scan.refused:
        raise scan.refused[0]
    if not scan.series:
        reason = SeriesFault.NOT_AN_IMAGE if scan.others else SeriesFault.NO_IMAGES
        raise SeriesError(where, reason, f"wanted a series of images, got none and {len(scan.others)} other objects")
    if len(scan.series) > 1:
        stacks = len({part.uid for part in scan.series}) == 1 and scan.series[0].uid
        raise SeriesError(
            where,
            SeriesFault.SAME_POSITION if stacks else SeriesFault.SEVERAL_SERIES,
            f"wanted one series, got {len(scan.series)} {'stacks (phases, echoes) of one' if stacks else 'of them'}; "
            "take one folder each, or one entry of find_series",
        )
    return scan.series[0]


def _check_alike(headers: tuple[ImageHeader, ...], where: Path) -> None:
    """Refuse slices that cannot lie in one volume."""
    if all({"LOCALIZER", "SCREEN SAVE"} & set(header.image_type) for header in headers):
        raise SeriesError(where, SeriesFault.LOCALIZER, "wanted slices, got only localizers or screen shots")
    formats = {header.format for header in headers}
    if len(formats) > 1:
        raise SeriesError(
            where, SeriesFault.MIXED_SIZE, f"wanted slices of one size, spacing and format, got {len(formats)} kinds"
        )
    frames = {header.uids["frame_of_reference"] for header in headers}
    if len(frames) > 1:
        raise SeriesError(
            where, SeriesFault.MIXED_ORIENTATION, f"wanted one frame of reference, got {len(frames)} of them"
        )


def _stack(pairs: list[tuple[ImageHeader, Slice]], where: Path, tilt: Tilt, gaps: Gaps) -> tuple[Stack, bool]:
    """Return the grid of all slices, and whether it is one in the patient."""
    planes = [plane for _, plane in pairs]
    first = planes[0]
    spacing = first.spacing or (1.0, 1.0)
    if first.position is None or first.orientation is None or first.spacing is None:
        if len(planes) > 1:
            raise SeriesError(
                where,
                SeriesFault.NO_POSITION,
                f"wanted a position, orientation and spacing of all {len(planes)} slices or frames, got none for one",
            )
        flat = plane_affine(np.array([1.0, 0, 0, 0, 1, 0]), spacing, np.zeros(3), np.array([0, 0, first.step or 1.0]))
        return Stack((0,), flat), False
    normal_of(first.orientation, where)  # proves that the directions are directions
    if any(plane.position is None or plane.orientation is None or plane.spacing is None for plane in planes):
        raise SeriesError(where, SeriesFault.NO_POSITION, "wanted a position of every slice, got none for one")
    if np.abs(np.array([plane.orientation for plane in planes]) - first.orientation).max() > 1e-3:
        raise SeriesError(
            where, SeriesFault.MIXED_ORIENTATION, "wanted parallel slices, got several orientations in one series"
        )
    if not np.allclose([plane.spacing or () for plane in planes], first.spacing, rtol=1e-4):
        raise SeriesError(where, SeriesFault.MIXED_SIZE, "wanted one pixel spacing, got several")
    positions = np.array([plane.position for plane in planes])
    stack = stack_slices(positions, first.orientation, spacing, first.step, where, tilt=tilt, gaps=gaps)
    return stack, True


def _facts(header: ImageHeader) -> dict[str, object]:
    return {
        "image_type": tuple(part for part in header.image_type[:3] if part.isascii() and part.isupper()),
        "transfer_syntax": header.syntax,
        "photometric": header.photometric,
        "bits_stored": header.stored,
        "thickness": header.slices[0].step,
    }
