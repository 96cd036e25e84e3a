"""Pixel data of a de-identified object: nothing but the pixels.

Native data are cut to the size the header tells, unused high bits cleared; compressed data are taken apart into frames,
each freed from comments and trailing bytes, and put together again, one fragment a frame.
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from genseg_monai.dicom.codestream import scrub_frame
from genseg_monai.dicom.quarantine import Quarantined, Reason
from genseg_monai.dicom.rle import cut_frame

__all__ = ["NATIVE", "SYNTAXES", "clean_pixels"]

NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
_MARKED = {
    *(JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless),
    *(JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K),
}
SYNTAXES = NATIVE | _MARKED | {RLELossless}
_PIXELS, _FLOAT, _DOUBLE = 0x7FE00010, 0x7FE00008, 0x7FE00009


def clean_pixels(dataset: Dataset, syntax: str, *, high_bits_pass: bool) -> None:
    """Clean the pixel data of an object in place.

    Args:
        dataset: the object; its rows, columns, frames and bits are believed only as far as they fit.
        syntax: its transfer syntax.
        high_bits_pass: clear bits above the pixel's own; False refuses an object that has any.

    Raises:
        Quarantined: header and pixels do not fit (`pixels`), or unused bits are set (`high_bits`).
    """
    for tag, width in ((_FLOAT, 4), (_DOUBLE, 8)):
        if tag in dataset:
            data = bytes(dataset[tag].value or b"")
            dataset[tag].value = data[: _count(dataset) * width]
    if _PIXELS not in dataset:
        return
    data = bytes(dataset[_PIXELS].value or b"")
    try:
        if syntax in NATIVE:
            cleaned = _clean_native(dataset, data, syntax == ExplicitVRBigEndian, high_bits_pass)
        else:
            cleaned = _clean_frames(dataset, data, syntax)
    except Quarantined:
        raise
    except Exception:
        raise Quarantined(Reason.PIXELS) from None
    dataset[_PIXELS].value = cleaned
    dataset[_PIXELS].is_undefined_length = syntax not in NATIVE


def _count(dataset: Dataset) -> int:
    frames = int(dataset.get("NumberOfFrames") or 1)
    return int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1) * frames


def _clean_native(dataset: Dataset, data: bytes, big_endian: bool, high_bits_pass: bool) -> bytes:
    wanted = get_expected_length(dataset, unit="bytes")
    padded = wanted % 2
    if not 0 < wanted <= len(data):
        raise Quarantined(Reason.PIXELS)
    data = data[:wanted]
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated in (8, 16, 32) and 0 < stored < allocated:
        signed = int(dataset.get("PixelRepresentation") or 0) == 1
        dtype = np.dtype(f"u{allocated // 8}").newbyteorder(">" if big_endian else "<")
        values = np.frombuffer(data, dtype)
        kept = _only_stored(values, allocated, stored, int(dataset.get("HighBit") or stored - 1), signed)
        if not np.array_equal(kept, values):
            padding = _padding(dataset, dtype)
            if padding is not None:  # a fill value outside the stored bits is no overlay
                kept = np.where(values == padding, values, kept)
            if not high_bits_pass and not np.array_equal(kept, values):
                raise Quarantined(Reason.HIGH_BITS)
            data = kept.astype(dtype).tobytes()
    return data + b"\0" * padded


def _only_stored(values: np.ndarray, allocated: int, stored: int, high: int, signed: bool) -> np.ndarray:
    """Return the pixels with the bits outside `stored` cleared, or extended from the sign."""
    if high != stored - 1:
        mask = ((1 << stored) - 1) << max(high - stored + 1, 0)
        return values & values.dtype.type(mask & ((1 << allocated) - 1))
    mask = (1 << stored) - 1
    low = values & values.dtype.type(mask)
    if not signed:
        return low
    above = values.dtype.type(((1 << allocated) - 1) ^ mask)
    return np.where(low & values.dtype.type(1 << (stored - 1)), low | above, low)


def _padding(dataset: Dataset, dtype: np.dtype) -> int | None:
    value = dataset.get("PixelPaddingValue")
    if isinstance(value, bytes):
        value = int.from_bytes(value, "big" if dtype.byteorder == ">" else "little")
    return None if value is None else int(value) & ((1 << 8 * dtype.itemsize) - 1)


def _clean_frames(dataset: Dataset, data: bytes, syntax: str) -> bytes:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if syntax == RLELossless:
        size = int(dataset.Rows) * int(dataset.Columns)
        scrubbed = [cut_frame(frame, size) for frame in generate_frames(data, number_of_frames=frames)]
    else:
        scrubbed = [scrub_frame(frame) for frame in generate_frames(data, number_of_frames=frames)]
    if len(scrubbed) != frames:
        raise Quarantined(Reason.PIXELS)
    # an offset table of 32 bits cannot reach further; without one, one fragment a frame says it all
    return encapsulate(scrubbed, has_bot=sum(map(len, scrubbed)) + 8 * frames < 2**32)
