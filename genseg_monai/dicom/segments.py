"""DICOM SEG objects to regions on the grid of an image series, through affines.

Binary, fractional (half of the maximum and more counts), overlapping and label-map segmentations; frames that were
left out are empty. Frames are placed by position and orientation, never by index: DICOM PS3.3 A.51, C.8.20.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genseg_monai.dicom.decode import check_syntax, decode_files
from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.fields import Fields
from genseg_monai.dicom.geometry import LPS_TO_RAS, plane_affine
from genseg_monai.dicom.header import DEFLATED, Limits, PixelPlace, RawHeader, guarded, inflated_pixels, read_raw_header
from genseg_monai.dicom.image import ImageHeader, Slice, read_slices, read_uids
from genseg_monai.dicom.regions import MAX_REGIONS, Region, belongs, count_absent, voxels_of
from genseg_monai.dicom.resample import nearest
from genseg_monai.dicom.series import Series

__all__ = ["SEGMENTATION_CLASSES", "read_segments"]

SEGMENTATION_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
_TYPE, _MAXIMUM, _SEGMENTS, _NUMBER, _LABEL = 0x00620001, 0x0062000E, 0x00620002, 0x00620004, 0x00620005
_IDENTIFICATION, _REFERENCED = 0x0062000A, 0x0062000B
_DERIVATION, _SOURCE, _INSTANCE = 0x00089124, 0x00082112, 0x00081155
_SERIES_REFERENCES, _INSTANCES = 0x00081115, 0x0008114A
_FRAMES, _ROWS, _COLUMNS, _ALLOCATED = 0x00280008, 0x00280010, 0x00280011, 0x00280100
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_TAGS = [value for name, value in list(globals().items()) if name.startswith("_") and type(value) is int]
_TAGS += [0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00200052, 0x00080060]
_ALIGNED = 0.02  # voxels; grids closer than this are one grid


@dataclass(frozen=True)
class _Frames:
    """A SEG object taken apart."""

    names: dict[int, str]
    kind: str
    half: float
    planes: tuple[Slice, ...]
    segments: tuple[int, ...]  # of each frame; 0 for a label map, whose pixels tell
    sources: tuple[str, ...]  # the image instance each frame was made from, if it says so
    absent: int  # images it refers to that the series does not have
    pixels: np.ndarray  # (frames, rows, columns)


def read_segments(path: Path, series: Series, limits: Limits | None = None) -> Iterator[Region]:
    """Yield the segments of a SEG object on the grid of a series.

    Args:
        path: the file; nothing it says is trusted.
        series: the images it was drawn on.
        limits: memory and time.

    Raises:
        SeriesError: it cannot be read, or was not drawn on this series.
    """
    limits = limits or Limits()
    with guarded(path):
        raw = read_raw_header(path, _TAGS, limits)
        found = _take_apart(raw, Fields(raw.elements, raw.little, path), series, limits)
    for number, name in found.names.items():
        mine = [k for k, segment in enumerate(found.segments) if segment in (0, number)]
        frames = [_binary(found, k, number) for k in mine]
        full = [(k, frame) for k, frame in zip(mine, frames, strict=True) if frame.any()]
        mask, outside = None, 0
        places = [_indices(found, k, frame, series) for k, frame in full]
        if any(place is None for place in places):
            mask = nearest([(found.planes[k], frame) for k, frame in full], series)
        elif full:
            mask = np.zeros(series.array.shape, bool)
            for place in places:
                assert place is not None
                inside = ((place >= 0) & (place < np.array(mask.shape))).all(axis=1)
                mask[tuple(place[inside].T)] = True
                outside += int((~inside).sum())
        yield Region(name, mask, outside, absent=found.absent)


def _take_apart(raw: RawHeader, fields: Fields, series: Series, limits: Limits) -> _Frames:
    path, count = raw.path, fields.count(_FRAMES, 1)
    rows, columns, allocated = fields.whole(_ROWS, 0), fields.whole(_COLUMNS, 0), fields.whole(_ALLOCATED, 0)
    if raw.pixels is None or rows < 1 or columns < 1 or count < 1 or allocated not in (1, 8, 16):
        raise SeriesError(path, SeriesFault.UNREADABLE, "wanted a segmentation of 1, 8 or 16 bits, got another object")
    if rows * columns * count * max(1, allocated // 8) > limits.file_pixels_bytes:
        raise SeriesError(
            path, SeriesFault.TOO_LARGE, f"wanted at most {limits.file_pixels_bytes >> 20} MiB of pixels, got more"
        )
    groups = fields.items(_PER_FRAME)
    shared = next(iter(fields.items(_SHARED)), fields)
    sources = tuple(_source(group) for group in groups)
    entries = fields.items(_SERIES_REFERENCES)
    listed = {item.uid(_INSTANCE) for entry in entries for item in entry.items(_INSTANCES)} | set(sources)
    uids = read_uids(raw, fields)
    listed -= {""}
    if not belongs(series, uids["frame_of_reference"], listed):
        raise SeriesError(path, SeriesFault.SEVERAL_SERIES, "wanted a segmentation of this series, got one of another")
    kind = fields.word(_TYPE) or "BINARY"
    planes = tuple(read_slices(fields, path, uids["instance"], count))
    segments = tuple(0 if kind == "LABELMAP" else _segment(group) or _segment(shared) for group in groups)
    if len(segments) != count:
        raise SeriesError(path, SeriesFault.UNREADABLE, f"wanted functional groups of {count} frames, got others")
    names = {item.whole(_NUMBER, 0): item.name(_LABEL) for item in fields.items(_SEGMENTS)}
    if len(names) > MAX_REGIONS:
        raise SeriesError(path, SeriesFault.TOO_LARGE, f"wanted at most {MAX_REGIONS} segments, got {len(names)}")
    pixels = _pixels(raw, raw.pixels, (count, rows, columns), allocated, uids, planes, limits)
    absent = count_absent(series, entries, _INSTANCES, listed)
    maximum = fields.whole(_MAXIMUM, 255)
    names.pop(0, None)  # the background of a label map
    return _Frames(names, kind, max(1.0, maximum / 2), planes, segments, sources, absent, pixels)


def _segment(group: Fields) -> int:
    return next((item.whole(_REFERENCED, 0) for item in group.items(_IDENTIFICATION)), 0)


def _source(group: Fields) -> str:
    derived = [source for item in group.items(_DERIVATION) for source in item.items(_SOURCE)]
    return derived[0].uid(_INSTANCE) if len(derived) == 1 else ""


def _pixels(
    raw: RawHeader,
    place: PixelPlace,
    shape: tuple[int, int, int],
    allocated: int,
    uids: dict[str, str],
    planes: tuple[Slice, ...],
    limits: Limits,
) -> np.ndarray:
    """Return (frames, rows, columns); one bit a pixel is packed across frames, lowest bit first."""
    header = ImageHeader(
        path=raw.path,
        syntax=raw.syntax,
        little=raw.little,
        pixels=place,
        uids=uids,
        modality="SEG",
        image_type=(),
        rows=shape[1],
        columns=shape[2],
        frames=shape[0],
        photometric="MONOCHROME2",
        allocated=allocated,
        stored=allocated,
        signed=False,
        padding=None,
        phase=(),
        slices=planes,
    )
    check_syntax(header)
    if place.length is None:
        out = np.zeros(shape, np.uint16)

        def sink(_: ImageHeader, frame: int, stored: np.ndarray) -> None:
            out[frame] = stored

        decode_files([header], sink, limits)
        return out
    size = (int(np.prod(shape, dtype=np.int64)) * allocated + 7) // 8
    if raw.syntax == DEFLATED:
        data = inflated_pixels(raw.path, place, limits)[:size]
    else:
        with open(raw.path, "rb") as file:
            file.seek(place.offset)
            data = file.read(size)
    if len(data) < size:
        raise SeriesError(raw.path, SeriesFault.TRUNCATED, f"wanted {size} bytes of pixels, got {len(data)}")
    if allocated == 1:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return np.asarray(bits[: int(np.prod(shape))].reshape(shape))
    kind = np.dtype(f"{'<' if raw.little else '>'}u{allocated // 8}")
    return np.frombuffer(data, kind).reshape(shape)


def _binary(found: _Frames, frame: int, number: int) -> np.ndarray:
    if found.kind == "LABELMAP":
        return np.asarray(found.pixels[frame] == number)
    return np.asarray(found.pixels[frame] >= (found.half if found.kind == "FRACTIONAL" else 1))


def _indices(found: _Frames, k: int, frame: np.ndarray, series: Series) -> np.ndarray | None:
    """Return the voxels (N, 3) of the series that the foreground of a frame covers; None where the grids differ."""
    rows, columns = np.nonzero(frame)
    plane = found.planes[k]
    if plane.position is None or plane.orientation is None or plane.spacing is None:
        return _by_source(found, k, rows, columns, series)
    affine = LPS_TO_RAS @ plane_affine(plane.orientation, plane.spacing, plane.position, np.zeros(3))
    ends = np.array([[0, 0], [frame.shape[1] - 1, 0], [0, frame.shape[0] - 1]])
    corners = voxels_of(series, ends @ affine[:3, :2].T + affine[:3, 3])
    along = [(corners[i + 1] - corners[0]) / max(1, ends[i + 1].max()) for i in range(2)]
    whole = np.rint(corners[0])
    if np.abs(corners[0] - whole).max() > _ALIGNED or any(
        np.abs(np.abs(axis) - np.eye(3)[np.abs(axis).argmax()]).max() * max(frame.shape) > _ALIGNED * 10
        for axis in along
    ):
        return None
    steps = np.rint(np.array(along))
    return np.asarray((whole + columns[:, None] * steps[0] + rows[:, None] * steps[1]).astype(np.int64))


def _by_source(found: _Frames, k: int, rows: np.ndarray, columns: np.ndarray, series: Series) -> np.ndarray:
    """Place a frame without a position on the image it was made from."""
    source = found.sources[k]
    if source not in series.sop_instances or found.pixels.shape[1:] != series.array.shape[1::-1]:
        raise SeriesError(
            found.planes[k].path,
            SeriesFault.NO_POSITION,
            "wanted a position or a source image of every frame, got none",
        )
    depth = np.full(len(rows), series.sop_instances.index(source))
    return np.stack([columns, rows, depth], axis=1)
