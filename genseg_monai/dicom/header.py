"""The header of one DICOM file, read with nothing trusted: bounded bytes, bounded steps, bounded inflation.

pydicom splits the data set into raw elements (it converts no value, so it warns of none); the few values wanted
are decoded here. The pixels are not read, only where they lie. Encoding rules: DICOM PS3.5 and PS3.10.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.weigh import weigh

__all__ = [
    "DEFLATED",
    "NATIVE",
    "Limits",
    "PixelPlace",
    "RawHeader",
    "check_weight",
    "guarded",
    "inflated_pixels",
    "read_raw_header",
]

IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
NATIVE = frozenset({IMPLICIT, EXPLICIT, BIG, DEFLATED})
_UNDEFINED = 0xFFFFFFFF
_PIXELS = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class Limits:
    """What one file, or one series, may cost.

    Attributes:
        steps: reads that parsing one header may take; bounds its time and its memory.
        header_bytes: bytes of one header.
        inflated_bytes: bytes of one deflated data set after inflation.
        file_pixels_bytes: bytes of the decoded pixels of one file.
        series_pixels_bytes: bytes of the decoded pixels of one series.
        worker_bytes: address space of the process that runs the codecs.
        seconds: time for the decoding of one file.
        drawing_seconds: time for the regions of one annotation, from reading to the last voxel.
    """

    steps: int = 1_500_000
    header_bytes: int = 512 << 20
    inflated_bytes: int = 512 << 20
    file_pixels_bytes: int = 4 << 30
    series_pixels_bytes: int = 8 << 30
    worker_bytes: int = 6 << 30
    seconds: float = 120.0
    drawing_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class PixelPlace:
    """Where the pixels lie in a file; `length` is None for encapsulated (compressed) pixels, in bytes else."""

    offset: int
    length: int | None


@dataclass(frozen=True, slots=True)
class RawHeader:
    """The raw elements of one file before its pixels, and how they are encoded; `end` is its (inflated) size."""

    path: Path
    meta: dict[int, str]
    syntax: str
    little: bool
    elements: Dataset
    pixels: PixelPlace | None
    floats: bool
    end: int


class _Bounded(io.BufferedReader):
    """A file that ends its reader's work after so many reads or bytes."""

    def __init__(self, raw: io.RawIOBase | io.BytesIO, limits: Limits) -> None:
        super().__init__(raw, 1 << 14)
        self._steps, self._bytes = limits.steps, limits.header_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._bytes:  # before memory is taken for a length that may be a lie
            raise OverflowError
        data = super().read(size)
        self._steps -= 1
        self._bytes -= len(data)
        if self._steps < 0 or self._bytes < 0:
            raise OverflowError
        return data


def read_raw_header(path: Path, tags: list[int], limits: Limits, until: int = _FLOAT_PIXELS[0]) -> RawHeader:
    """Split the header of a file into raw elements.

    Args:
        path: the file.
        tags: the tags to keep; the rest is skipped.
        limits: what the reading may cost.
        until: the tag to stop at; what follows may be cut off or broken.

    Returns:
        The elements, unconverted, and the place of the pixels.

    Raises:
        SeriesError: not DICOM, not parseable, too deep, too large, or cut off.
    """
    with guarded(path), _Bounded(open(path, "rb", buffering=0), limits) as file:  # noqa: SIM115 - _Bounded closes it
        return _parse(file, path, tags, limits, until)


def check_weight(path: Path, limits: Limits) -> None:
    """Refuse a file whose data set is small as bytes and huge once it is parsed whole.

    Raises:
        OverflowError: more elements, in all sequences together, than the limit of steps.
        SeriesError: no data set, or a deflated one that is too large.
    """
    with open(path, "rb") as file:
        syntax = (_file_meta(file) or {}).get(0x00020010) or _guess_encoding(file, path)[2]
        how, start = {"implicit": syntax == IMPLICIT, "little": syntax != BIG}, file.tell()
        if syntax == DEFLATED:
            weigh(inflate(file.read(limits.header_bytes), path, limits), **how, budget=[limits.steps])
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            weigh(data, **how, budget=[limits.steps], start=start)


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn whatever parsing raises into a `SeriesError` without the values that its text may hold; mute warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SeriesError:
        raise
    except OverflowError:
        raise SeriesError(path, SeriesFault.TOO_LARGE, "wanted a header within the limits, got a longer one") from None
    except (RecursionError, MemoryError):
        raise SeriesError(
            path, SeriesFault.UNREADABLE, "wanted a header that can be parsed, got one nested too deep or too large"
        ) from None
    except OSError as error:
        raise SeriesError(path, SeriesFault.UNREADABLE, f"cannot be opened: {type(error).__name__}") from None
    except Exception as error:  # pydicom raises many kinds on broken files
        raise SeriesError(
            path, SeriesFault.UNREADABLE, f"wanted a header that can be parsed, got {type(error).__name__}"
        ) from None


def _parse(file: BinaryIO, path: Path, tags: list[int], limits: Limits, until: int) -> RawHeader:
    meta = _file_meta(file)
    if meta is None:
        implicit, little, syntax = _guess_encoding(file, path)
        meta = {}
    else:
        syntax = meta.get(0x00020010, "")
        if any(value and not _UID.fullmatch(value) for value in meta.values()):
            raise SeriesError(path, SeriesFault.BAD_UID, "wanted UIDs in the file meta information, got others")
        if not syntax:
            implicit, little, syntax = _guess_encoding(
                file, path, SeriesFault.TRUNCATED if meta else SeriesFault.NOT_DICOM
            )
        implicit, little = syntax == IMPLICIT, syntax != BIG
    if syntax == DEFLATED:
        if path.stat().st_size > limits.header_bytes:
            raise OverflowError
        file = _Bounded(io.BytesIO(inflate(file.read(), path, limits)), limits)
    elements = read_dataset(
        file,
        implicit,
        little,
        # as plain numbers: pydicom's own comparison takes ten times as long
        stop_when=lambda tag, vr, length: int(tag) >= until,
        specific_tags=list(tags),  # the last elements wanted lie before 7FE0
    )
    place, end = file.tell(), file.seek(0, io.SEEK_END)
    if place > end:  # pydicom steps over the end without a word
        raise SeriesError(path, SeriesFault.TRUNCATED, "wanted a whole data set, got one that ends inside an element")
    file.seek(place)
    pixels, floats = _pixel_place(file, implicit, little)
    return RawHeader(path, meta, syntax, little, elements, pixels, floats, end)


def _file_meta(file: BinaryIO) -> dict[int, str] | None:
    """Read group 2 (explicit little endian, PS3.10); None where there is none. Leaves the file at the data set."""
    start = file.read(132)
    if start[128:] != b"DICM":
        file.seek(0)
        if start[:2] != b"\x02\x00":  # some writers leave out the preamble only
            return None
    meta: dict[int, str] = {}
    while True:
        place = file.tell()
        head = file.read(8)
        if len(head) < 8:
            break
        group, element, vr, length = struct.unpack("<HH2sH", head)
        if group != 2:
            break
        if vr in _LONG:
            (length,) = struct.unpack("<L", file.read(4))
        value = file.read(min(length, 1 << 16)) if vr == b"UI" else b""
        file.seek(place + len(head) + (4 if vr in _LONG else 0) + length)
        if vr == b"UI":
            meta[group << 16 | element] = value.decode("ascii", "replace").strip(" \0")
    file.seek(place)
    return meta


def _guess_encoding(file: BinaryIO, path: Path, fault: SeriesFault = SeriesFault.NOT_DICOM) -> tuple[bool, bool, str]:
    """Tell (implicit, little endian, syntax) from the first element of a data set whose meta information does not."""
    place = file.tell()
    head = file.read(8)
    file.seek(place)
    if len(head) == 8 and head[:2] in (b"\x08\x00", b"\x00\x08"):
        little = head[:2] == b"\x08\x00"
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        length = struct.unpack("<L", head[4:])[0]
        if explicit or (little and length < 1 << 16):
            return not explicit, little, (EXPLICIT if explicit else IMPLICIT) if little else BIG
    raise SeriesError(path, fault, "wanted a DICOM file, got none (no DICM mark, or no data set)")


def inflate(data: bytes, path: Path, limits: Limits) -> bytes:
    """Inflate a deflated data set, up to the limit.

    Raises:
        SeriesError: it is larger than the limit, or cannot be inflated.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        out = inflater.decompress(data, limits.inflated_bytes)
    except zlib.error:
        raise SeriesError(path, SeriesFault.UNREADABLE, "wanted a deflated data set, got a broken one") from None
    if inflater.unconsumed_tail:
        raise SeriesError(
            path, SeriesFault.TOO_LARGE, f"wanted at most {limits.inflated_bytes >> 20} MiB inflated, got more"
        )
    return out


def inflated_pixels(path: Path, place: PixelPlace, limits: Limits) -> bytes:
    """Return the pixel bytes of a deflated file; its `place` counts in inflated bytes."""
    with open(path, "rb") as file:
        _file_meta(file)
        data = inflate(file.read(limits.header_bytes), path, limits)
    return data[place.offset : place.offset + (place.length or 0)]


def _pixel_place(file: BinaryIO, implicit: bool, little: bool) -> tuple[PixelPlace | None, bool]:
    """Read the head of the pixel element the file stands at; True where its pixels are floats."""
    head = file.read(8)
    if len(head) < 8:
        return None, False
    order = "<" if little else ">"
    group, element = struct.unpack(order + "HH", head[:4])
    tag = group << 16 | element
    if tag in _FLOAT_PIXELS:
        return None, True
    if tag != _PIXELS:
        return None, False
    # pydicom may have found explicit what was announced as implicit: believe the bytes
    if head[4:6] in (b"OB", b"OW"):
        head = head[:4] + file.read(4)
    (length,) = struct.unpack(order + "L", head[4:8])
    return PixelPlace(file.tell(), None if length == _UNDEFINED else length), False
