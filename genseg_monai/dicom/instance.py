"""One DICOM file read whole, for de-identification: bounded, silent, and with a reason where it is refused."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import config, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from genseg_monai.dicom.header import Limits, check_weight
from genseg_monai.dicom.quarantine import Quarantined, Reason, needs_pixels

__all__ = ["quiet", "read_instance"]

_FILE_BYTES = 8 << 30
_INFLATED_BYTES = 1 << 30
_INFLATED_RATIO = 100
_PROBE = 1 << 20
_LIMITS = Limits(inflated_bytes=_INFLATED_BYTES, header_bytes=_FILE_BYTES)
_UNDEFINED = 0xFFFFFFFF
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning and logging: both quote the values they complain about."""
    settings, logger = config.settings, logging.getLogger("pydicom")
    reading, writing, level = settings.reading_validation_mode, settings.writing_validation_mode, logger.level
    logger.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings.reading_validation_mode = settings.writing_validation_mode = config.IGNORE
        try:
            yield
        finally:
            settings.reading_validation_mode, settings.writing_validation_mode = reading, writing
            logger.setLevel(level)


def read_instance(path: Path) -> FileDataset:
    """Read a DICOM file, with or without file meta information.

    Raises:
        Quarantined: it is no DICOM file, too large, nested too deep or broken; no message holds a value of it.
    """
    try:
        with quiet():
            return _read(path)
    except Quarantined:
        raise
    except (InvalidDicomError, IsADirectoryError):
        raise Quarantined(Reason.NOT_DICOM) from None
    except RecursionError:
        raise Quarantined(Reason.TOO_DEEP) from None
    except (MemoryError, OverflowError):
        raise Quarantined(Reason.TOO_LARGE) from None
    except Exception:  # whatever a broken file does to the parser
        raise Quarantined(Reason.UNREADABLE) from None


def _read(path: Path) -> FileDataset:
    size = path.stat().st_size
    if size > _FILE_BYTES:
        raise Quarantined(Reason.TOO_LARGE)
    with path.open("rb") as file:
        start = file.read(132)
        file.seek(0)
        if start[128:132] == b"DICM":
            meta = read_file_meta_info(path)
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                _check_inflation(path, size)
            check_weight(path, _LIMITS)
            return _whole(dcmread(file))
        # without meta information a data set begins with a tag of group 8, in either byte order
        if start[:2] not in (b"\x08\x00", b"\x00\x08"):
            raise Quarantined(Reason.NOT_DICOM)
        check_weight(path, _LIMITS)
        dataset = _whole(dcmread(file, force=True))
    if "SOPInstanceUID" not in dataset:
        raise Quarantined(Reason.NOT_DICOM)
    return dataset


def _whole(dataset: FileDataset) -> FileDataset:
    """Refuse a data set that is cut off: a value shorter than its length says, or an image without pixels."""
    for tag in sorted(dataset.keys()):
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement) and len(element.value or b"") < element.length != _UNDEFINED:
            raise Quarantined(Reason.UNREADABLE)
    kind = str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    if needs_pixels(kind) and _PIXELS.isdisjoint(dataset.keys()):
        raise Quarantined(Reason.UNREADABLE)
    return dataset


def _check_inflation(path: Path, size: int) -> None:
    """Inflate into nothing, so that a bomb is found before it goes off."""
    with path.open("rb") as file:
        file.seek(132)
        head = file.read(16)  # (0002,0000) UL 4, then the length of group 2
        if head[:4] != b"\x02\x00\x00\x00":
            raise Quarantined(Reason.UNREADABLE)
        file.seek(132 + 12 + int.from_bytes(head[8:12], "little"))
        inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        limit = min(_INFLATED_BYTES, max(_INFLATED_RATIO * size, _PROBE))
        while (chunk := inflater.unconsumed_tail or file.read(_PROBE)) and not inflater.eof:
            total += len(inflater.decompress(chunk, _PROBE))
            if total > limit:
                raise Quarantined(Reason.TOO_LARGE)
