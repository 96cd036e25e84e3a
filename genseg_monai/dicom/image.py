"""What one DICOM image file says of its slices: size, encoding, place in the patient, and how to turn values grey.

Single-frame and enhanced multi-frame objects come out alike: a tuple of `Slice`. Attributes: DICOM PS3.3, C.7.6
(general), C.7.6.16 (functional groups), C.11.1 (modality LUT).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.fields import Fields
from genseg_monai.dicom.header import Limits, PixelPlace, RawHeader, guarded, read_raw_header
from genseg_monai.dicom.quarantine import needs_pixels

__all__ = ["ImageHeader", "Slice", "read_claim", "read_image_header", "read_slices", "read_uids"]

_IMAGE_TYPE, _CLASS, _INSTANCE, _MODALITY = 0x00080008, 0x00080016, 0x00080018, 0x00080060
_STUDY, _SERIES, _FRAME_OF_REFERENCE = 0x0020000D, 0x0020000E, 0x00200052
_ACQUISITION, _NUMBER, _TEMPORAL, _ECHO, _CONTENT_TIME = 0x00200012, 0x00200013, 0x00200100, 0x00180081, 0x00080033
_THICKNESS, _BETWEEN, _POSITION, _ORIENTATION = 0x00180050, 0x00180088, 0x00200032, 0x00200037
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
_SPACING, _IMAGER_SPACING = 0x00280030, 0x00181164
_ALLOCATED, _STORED, _HIGH, _SIGN = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_PADDING, _PADDING_LIMIT = 0x00280120, 0x00280121
_INTERCEPT, _SLOPE, _LUT = 0x00281052, 0x00281053, 0x00283000
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_TAGS = [value for name, value in list(globals().items()) if name.startswith("_") and type(value) is int]
# functional groups -> where in them a value lies
_IN_GROUP = {
    _POSITION: 0x00209113,
    _ORIENTATION: 0x00209116,
    _SPACING: 0x00289110,
    _THICKNESS: 0x00289110,
    _BETWEEN: 0x00289110,
    _SLOPE: 0x00289145,
    _INTERCEPT: 0x00289145,
}
_NO_IMAGES = frozenset(
    {"SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "SR", "PR", "KO", "REG", "FID", "RWV", "M3D"}
)


@dataclass(frozen=True, slots=True)
class Slice:
    """One plane: its place (LPS, mm; None where the file has none) and its grey values, `slope * stored + intercept`.

    `spacing` is between rows, then between columns; `step` is the distance to the next slice as the file claims it.
    """

    path: Path
    frame: int
    instance: str
    position: np.ndarray | None
    orientation: np.ndarray | None
    spacing: tuple[float, float] | None
    step: float
    slope: float
    intercept: float


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """One image file without its pixels."""

    path: Path
    syntax: str
    little: bool
    pixels: PixelPlace
    uids: dict[str, str]
    modality: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    frames: int
    photometric: str
    allocated: int
    stored: int
    signed: bool
    padding: tuple[int, int] | None
    phase: tuple[str, ...]
    slices: tuple[Slice, ...]

    @property
    def format(self) -> tuple[object, ...]:
        """What has to be alike in all files of one volume."""
        first = self.slices[0]
        spacing = first.spacing and tuple(round(value, 4) for value in first.spacing)
        return (self.rows, self.columns, spacing, self.modality, self.photometric, self.allocated, self.signed)


def read_image_header(path: Path, limits: Limits | None = None) -> ImageHeader:
    """Read what assembling a volume needs from one file.

    Args:
        path: the file; nothing it says is trusted.
        limits: what the reading may cost.

    Raises:
        SeriesError: not an image, or one that cannot be read, with the reason.
    """
    limits = limits or Limits()
    with guarded(path):
        raw = read_raw_header(path, _TAGS, limits)
        return _header(raw, Fields(raw.elements, raw.little, path), limits)


def read_uids(raw: RawHeader, fields: Fields) -> dict[str, str]:
    """Return the UIDs of an object; a data set may leave its identity to the file meta information."""
    return {
        "class": fields.uid(_CLASS) or raw.meta.get(0x00020002, ""),
        "instance": fields.uid(_INSTANCE) or raw.meta.get(0x00020003, ""),
        "study": fields.uid(_STUDY),
        "series": fields.uid(_SERIES),
        "frame_of_reference": fields.uid(_FRAME_OF_REFERENCE),
    }


def read_claim(path: Path, limits: Limits | None = None) -> dict[str, str]:
    """Return the UIDs of a file that cannot be read to its end, as `read_uids`; nothing where even its start cannot."""
    try:
        with guarded(path):
            raw = read_raw_header(path, [_CLASS, _INSTANCE, _STUDY, _SERIES], limits or Limits(), until=_SERIES + 1)
            return read_uids(raw, Fields(raw.elements, raw.little, path))
    except SeriesError:
        return {}


def _header(raw: RawHeader, fields: Fields, limits: Limits) -> ImageHeader:
    path, modality = raw.path, fields.word(_MODALITY)
    uids = read_uids(raw, fields)
    rows, columns = fields.whole(_ROWS, 0), fields.whole(_COLUMNS, 0)
    if not fields and not raw.pixels:
        fault = SeriesFault.TRUNCATED if needs_pixels(uids["class"]) else SeriesFault.NOT_DICOM
        raise SeriesError(path, fault, "wanted a DICOM data set, got none of its elements")
    if raw.floats:
        raise SeriesError(path, SeriesFault.VALUES, "wanted integer pixels, got a parametric map of floats")
    if modality in _NO_IMAGES or (raw.pixels is None and not rows and not needs_pixels(uids["class"])):
        raise SeriesError(
            path, SeriesFault.NOT_AN_IMAGE, f"wanted an image, got {_shown(modality)} without one to segment"
        )
    if raw.pixels is None:
        raise SeriesError(path, SeriesFault.TRUNCATED, "wanted pixels after the header, got the end of the file")
    return _image(raw, raw.pixels, fields, uids, modality, rows, columns, limits)


def _image(
    raw: RawHeader,
    pixels: PixelPlace,
    fields: Fields,
    uids: dict[str, str],
    modality: str,
    rows: int,
    columns: int,
    limits: Limits,
) -> ImageHeader:
    path, frames = raw.path, fields.count(_FRAMES, 1)
    photometric = fields.word(_PHOTOMETRIC)
    if fields.whole(_SAMPLES, 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise SeriesError(path, SeriesFault.COLOUR, "wanted grey pixels (MONOCHROME1 or 2), got colour or a palette")
    if _LUT in fields:
        raise SeriesError(path, SeriesFault.VALUES, "wanted slope and intercept, got a modality look-up table")
    allocated = fields.whole(_ALLOCATED, 0)
    stored = fields.whole(_STORED, allocated)
    if rows < 1 or columns < 1 or frames < 1 or allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise SeriesError(
            path,
            SeriesFault.UNREADABLE,
            f"wanted a size and 8, 16 or 32 bits, got {rows} x {columns} x {frames}, {stored} of {allocated} bits",
        )
    if fields.whole(_HIGH, stored - 1) != stored - 1:
        raise SeriesError(path, SeriesFault.VALUES, "wanted values in the low bits, got them shifted (HighBit)")
    if rows * columns * frames * allocated // 8 > limits.file_pixels_bytes:
        raise SeriesError(
            path, SeriesFault.TOO_LARGE, f"wanted at most {limits.file_pixels_bytes >> 20} MiB of pixels, got more"
        )
    wanted, there = rows * columns * frames * allocated // 8, raw.end - pixels.offset
    if pixels.length is not None and min(pixels.length, there) < wanted:
        raise SeriesError(
            path, SeriesFault.TRUNCATED, f"wanted {wanted} bytes of pixels, got {max(0, min(pixels.length, there))}"
        )
    signed = fields.whole(_SIGN, 0) == 1
    slices = tuple(read_slices(fields, path, uids["instance"], frames))
    return ImageHeader(
        path=path,
        syntax=raw.syntax,
        little=raw.little,
        pixels=pixels,
        uids=uids,
        modality=modality,
        image_type=fields.texts(_IMAGE_TYPE),
        rows=rows,
        columns=columns,
        frames=frames,
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        signed=signed,
        padding=_padding(fields, signed),
        phase=tuple(fields.word(tag) for tag in (_ACQUISITION, _TEMPORAL, _ECHO, _CONTENT_TIME)),
        slices=slices,
    )


def _padding(fields: Fields, signed: bool) -> tuple[int, int] | None:
    """Return the range of stored values that mean "nothing here"; its VR (US or SS) follows the pixels'."""
    if len(fields.raw(_PADDING)) < 2:
        return None
    first = fields.whole(_PADDING, 0, signed=signed)
    last = fields.whole(_PADDING_LIMIT, first, signed=signed)
    return min(first, last), max(first, last)


def read_slices(fields: Fields, path: Path, instance: str, frames: int) -> Iterator[Slice]:
    """Yield the planes of a single-frame or multi-frame object, in frame order.

    Raises:
        SeriesError: numbers that cannot be a position, an orientation, a spacing or a slope.
    """
    shared = next(iter(fields.items(_SHARED)), fields)
    groups = fields.items(_PER_FRAME)
    if groups and len(groups) != frames:
        raise SeriesError(
            path, SeriesFault.UNREADABLE, f"wanted {frames} groups for {frames} frames, got {len(groups)}"
        )
    for frame in range(frames):
        scopes = (*((groups[frame],) if groups else ()), shared, fields)

        def numbers(tag: int, scopes: tuple[Fields, ...] = scopes) -> tuple[float, ...]:
            for scope in scopes:
                inner = scope if scope is fields else next(iter(scope.items(_IN_GROUP[tag])), None)
                if inner is not None and (found := inner.numbers(tag)):
                    return found
            return ()

        position, orientation = numbers(_POSITION), numbers(_ORIENTATION)
        spacing = numbers(_SPACING) or fields.numbers(_IMAGER_SPACING)
        if len(position) not in (0, 3) or len(orientation) not in (0, 6) or len(spacing) not in (0, 2):
            raise SeriesError(path, SeriesFault.GEOMETRY, "wanted 3, 6 and 2 numbers of position, orientation, spacing")
        if any(not 1e-6 < value < 1e4 for value in spacing) or any(abs(value) > 1e6 for value in position):
            raise SeriesError(path, SeriesFault.GEOMETRY, "wanted a plausible position and spacing in mm, got others")
        slope = next(iter(numbers(_SLOPE)), 1.0)
        if slope == 0:
            raise SeriesError(path, SeriesFault.VALUES, "wanted a slope other than zero")
        step = abs(next(iter(numbers(_BETWEEN) or numbers(_THICKNESS)), 0.0))
        yield Slice(
            path=path,
            frame=frame,
            instance=instance,
            position=np.array(position) if position else None,
            orientation=np.array(orientation) if orientation else None,
            spacing=(spacing[0], spacing[1]) if spacing else None,
            step=step,
            slope=slope,
            intercept=next(iter(numbers(_INTERCEPT)), 0.0),
        )


def _shown(modality: str) -> str:
    """A modality as a message may show it: one of the known ones, or none of the file's own words."""
    return modality if modality in _NO_IMAGES else "an object"
