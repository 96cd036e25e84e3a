"""Stored pixels to grey values, slice by slice, in one preallocated array.

The array is int16 as long as every value is exact in it, and becomes float32 (of the same values) at the first slice
that is not. Modality LUT: DICOM PS3.3 C.11.1; padding: C.7.5.1.1.2; MONOCHROME1: C.7.6.3.1.2.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from genseg_monai.dicom.decode import decode_files
from genseg_monai.dicom.faults import SeriesError, SeriesFault
from genseg_monai.dicom.header import DEFLATED, Limits, inflated_pixels
from genseg_monai.dicom.image import ImageHeader, Slice

__all__ = ["Place", "read_volume"]

AIR = -1024  # Hounsfield units of what lies outside a CT's reconstruction circle
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 81, 91, 203))
_AS_STORED = frozenset({"CT", "MR", "PT"})  # MONOCHROME1 tells how these are shown, not what the values mean

Place = tuple[ImageHeader, Slice, int]
"""A slice, the file it lies in, and its index in the volume."""


def read_volume(places: Sequence[Place], slices: int, limits: Limits) -> np.ndarray:
    """Read slices into a volume.

    Args:
        places: what goes where; all of one size.
        slices: slices of the volume; those without a place stay zero.
        limits: memory and time.

    Returns:
        int16 or float32 of shape (slices, rows, columns).

    Raises:
        SeriesError: pixels that cannot be decoded, or are cut off.
    """
    first = places[0][0]
    if slices * first.rows * first.columns * 4 > limits.series_pixels_bytes:
        raise SeriesError(
            first.path, SeriesFault.TOO_LARGE, f"wanted at most {limits.series_pixels_bytes >> 20} MiB, got more"
        )
    volume = _Volume((slices, first.rows, first.columns))
    of_file: dict[int, dict[int, tuple[Slice, int]]] = {}
    headers: dict[int, ImageHeader] = {}
    for header, plane, index in places:
        of_file.setdefault(id(header), {})[plane.frame] = (plane, index)
        headers[id(header)] = header
    compressed = [header for header in headers.values() if header.pixels.length is None]
    for key, header in headers.items():
        if header.pixels.length is not None:
            _read_native(header, of_file[key], volume, limits)
    if compressed:

        def sink(header: ImageHeader, frame: int, stored: np.ndarray) -> None:
            wanted = of_file[id(header)].get(frame)
            if wanted:
                volume.put(stored.copy(), header, *wanted)

        decode_files(compressed, sink, limits)
    return volume.finish(first.modality)


def _read_native(header: ImageHeader, wanted: dict[int, tuple[Slice, int]], volume: _Volume, limits: Limits) -> None:
    kind = np.dtype(f"{'<' if header.little else '>'}{'i' if header.signed else 'u'}{header.allocated // 8}")
    shape, size = (header.rows, header.columns), header.rows * header.columns * kind.itemsize
    if header.syntax == DEFLATED:
        data = inflated_pixels(header.path, header.pixels, limits)
        for frame, (plane, index) in wanted.items():
            stored = np.frombuffer(data, kind, size // kind.itemsize, frame * size).reshape(shape)
            volume.put(stored.astype(kind.newbyteorder("=")), header, plane, index)
        return
    with open(header.path, "rb", buffering=0) as file:
        for frame, (plane, index) in wanted.items():
            stored = volume.slot(index, kind)
            file.seek(header.pixels.offset + frame * size)
            if file.readinto(stored.data.cast("B")) != size:
                raise SeriesError(header.path, SeriesFault.TRUNCATED, f"wanted {size} bytes of pixels, got fewer")
            if not kind.isnative:
                stored = stored.byteswap(inplace=True).view(kind.newbyteorder("="))
            volume.put(stored, header, plane, index)


class _Volume:
    """The array, exact in int16 or turned to float32, and the padded pixels still to be filled."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._out = np.zeros(shape, np.int16)
        self._padded: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def slot(self, index: int, kind: np.dtype) -> np.ndarray:
        """Return memory for the stored values of one slice: that of the slice itself where it fits."""
        if self._out.dtype == np.int16 and kind.itemsize == 2:
            return self._out[index].view(kind)
        return np.empty(self._out.shape[1:], kind)

    def put(self, stored: np.ndarray, header: ImageHeader, plane: Slice, index: int) -> None:
        """Turn stored values (rows, columns), which are overwritten, into grey values of slice `index`."""
        least, most = _stored_range(header)
        low, high = int(stored.min()), int(stored.max())
        if low < least or high > most:
            _drop_high_bits(stored, header)
            low, high = int(stored.min()), int(stored.max())
        slope, intercept = plane.slope, plane.intercept
        if header.photometric == "MONOCHROME1" and header.modality not in _AS_STORED:
            intercept += slope * (least + most)  # slope * (least + most - stored) + intercept
            slope = -slope
        padding = None
        if header.padding and header.padding[0] <= high and header.padding[1] >= low:
            padding = (stored >= header.padding[0]) & (stored <= header.padding[1])
        with self._lock:
            self._rescale(stored, slope, intercept, (low, high), index)
            if header.modality == "CT" and header.syntax in _LOSSY and header.padding:
                np.maximum(self._out[index], AIR, out=self._out[index])  # padding comes back blurred
            if padding is not None and padding.any():
                self._padded[index] = padding
                if header.modality == "CT":
                    self._out[index][padding] = AIR

    def _rescale(self, stored: np.ndarray, slope: float, intercept: float, span: tuple[int, int], index: int) -> None:
        ends = sorted(slope * value + intercept for value in span)
        exact = slope == int(slope) and intercept == int(intercept) and ends[0] >= -32768 and ends[1] <= 32767
        if not exact and self._out.dtype == np.int16:
            stored = stored.copy()  # its memory is about to be given up
            self._out = self._out.astype(np.float32)
        out = self._out[index]
        if out.dtype != np.int16:
            np.add(stored * slope, intercept, out=out, casting="unsafe")
        elif slope == 1 and stored.dtype.itemsize == 2 and span[1] <= 32767 and abs(intercept) <= 32767:
            np.add(stored.view(np.int16), np.int16(intercept), out=out)
        else:
            np.add(stored.astype(np.int64) * int(slope), int(intercept), out=out, casting="unsafe")

    def finish(self, modality: str) -> np.ndarray:
        """Give padded pixels the least value of the rest (a CT's are air already), and hand the array over."""
        if self._padded and modality != "CT":
            rest = [plane[~self._padded[i]] if i in self._padded else plane for i, plane in enumerate(self._out)]
            least = min((part.min() for part in rest if part.size), default=0)
            for index, padding in self._padded.items():
                self._out[index][padding] = least
        return self._out


def _stored_range(header: ImageHeader) -> tuple[int, int]:
    if header.signed:
        return -(1 << header.stored - 1), (1 << header.stored - 1) - 1
    return 0, (1 << header.stored) - 1


def _drop_high_bits(stored: np.ndarray, header: ImageHeader) -> None:
    """Clear what lies above the stored bits (old files keep overlays there), and extend the sign."""
    if header.signed:
        spare = 8 * stored.dtype.itemsize - header.stored
        np.left_shift(stored, spare, out=stored)
        np.right_shift(stored, spare, out=stored)
    else:
        np.bitwise_and(stored, (1 << header.stored) - 1, out=stored)


def level_tilt(volume: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Shift every slice in its plane, with linear interpolation.

    Args:
        volume: (slices, rows, columns).
        shifts: (slices, 2), pixels along columns and rows.

    Returns:
        float32 of the same shape; what comes from outside has the least value of the volume.
    """
    outside = float(volume.min())
    planes = [
        ndimage.shift(plane.astype(np.float32), (along_rows, along_columns), order=1, cval=outside)
        for plane, (along_columns, along_rows) in zip(volume, shifts, strict=True)
    ]
    return np.stack(planes)
