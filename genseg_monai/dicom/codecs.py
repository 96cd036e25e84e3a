"""The process that runs the codecs: a request a line on stdin, decoded frames on stdout.

It is started by `genseg_monai.dicom.decode` and holds no state between requests. Its address space is limited before
every file. Decoders are pinned (DICOM PS3.5, annex A.4 names the syntaxes).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["DECODERS", "main"]

# transfer syntax -> pydicom's name of the decoder; "itself" is GDCM called by us, as pydicom does not let it decode
# 12 bits. pylibjpeg-rle is not used: it panics on crafted input. RLE is decoded by pydicom itself.
DECODERS = {
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    "1.2.840.10008.1.2.4.51": "itself",  # JPEG extended, 8 or 12 bits
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202": "pylibjpeg",  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.4.203": "pylibjpeg",  # HTJ2K
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
}


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a codec prints must not get between the answers
    with contextlib.suppress(ImportError):  # the slow part of the start
        importlib.import_module("pydicom.pixels")
    answers.write(b"ready\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            _limit_memory(request["memory"])
            for frame in _frames(request):
                head = {"shape": frame.shape, "dtype": frame.dtype.str}
                answers.write(json.dumps(head).encode() + b"\n")
                answers.write(np.ascontiguousarray(frame).data)
        except Exception as error:  # any kind; its text may hold values of the file, so only the kind is told
            answers.write(json.dumps({"error": type(error).__name__}).encode() + b"\n")
        answers.flush()


def _frames(request: dict[str, Any]) -> Iterator[np.ndarray]:
    decoder = DECODERS[request["syntax"]]
    if decoder == "itself":
        yield from _by_gdcm(request["path"], request["frames"])
        return
    import pydicom

    data = pydicom.dcmread(request["path"], force=True)
    data.SamplesPerPixel = data.get("SamplesPerPixel") or 1
    try:
        from pydicom.pixels import get_decoder
    except ImportError:  # pydicom 2 chooses the decoder itself
        yield from data.pixel_array.reshape(request["frames"], data.Rows, data.Columns)
        return
    codec = get_decoder(request["syntax"])
    for index in range(request["frames"]):
        yield codec.as_array(data, index=index, raw=True, decoding_plugin=decoder)[0]


def _by_gdcm(path: str, frames: int) -> Iterator[np.ndarray]:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(path)
    if not reader.Read():
        raise ValueError("not readable")
    image = reader.GetImage()
    columns, rows = image.GetDimensions()[:2]
    form = image.GetPixelFormat()
    kind = np.dtype(f"<{'i' if form.GetPixelRepresentation() else 'u'}{form.GetBitsAllocated() // 8}")
    # SWIG hands the bytes over as text
    pixels = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), kind)
    yield from pixels.reshape(frames, rows, columns)


def _limit_memory(extra: int) -> None:
    """Allow as much address space as is in use now, and `extra` bytes more (where the system can)."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + extra, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    main()
