"""A CT series in memory, slice by slice, to be broken by the tests and written to a folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.dicom.objects import make_uid

__all__ = ["STEP", "make_slices", "write_slices"]

STEP = 2.5
ROWS, COLUMNS = 12, 16


def make_slices(count: int = 20, *, series: int = 1, step: tuple[float, float, float] = (0, 0, STEP)) -> list[Dataset]:
    """Return slices whose stored value is 1000 + 10 * index + column."""
    found = []
    for index in range(count):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, make_uid("slices", series, index)
        data.StudyInstanceUID, data.SeriesInstanceUID = make_uid("study"), make_uid("slices", series)
        data.FrameOfReferenceUID, data.Modality = make_uid("frame"), "CT"
        data.ImageType, data.InstanceNumber, data.AcquisitionNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], index + 1, 1
        data.ImagePositionPatient = [float(a + b * index) for a, b in zip((-10, -20, 30), step, strict=True)]
        data.ImageOrientationPatient, data.PixelSpacing, data.SliceThickness = [1, 0, 0, 0, 1, 0], [0.5, 0.7], STEP
        data.Rows, data.Columns, data.SamplesPerPixel = ROWS, COLUMNS, 1
        data.PhotometricInterpretation, data.RescaleSlope, data.RescaleIntercept = "MONOCHROME2", 1, -1024
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.PixelData = stored(index).tobytes()
        found.append(data)
    return found


def stored(index: int) -> np.ndarray:
    """Return the stored values (rows, columns) of one slice."""
    return (1000 + 10 * index + np.arange(COLUMNS)[None] + np.zeros((ROWS, 1))).astype("<i2")


def write_slices(folder: Path, slices: Iterable[Dataset]) -> Path:
    """Write slices under shuffled names."""
    slices = list(slices)
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in zip(range(len(slices)), np.random.default_rng(0).permutation(len(slices)), strict=True):
        data = slices[index]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some are wrong on purpose
            data.file_meta.MediaStorageSOPClassUID = data.get("SOPClassUID", CTImageStorage)
            data.file_meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID", "1.2.3")
            data.save_as(folder / f"{name:03d}.dcm", enforce_file_format=True)
    return folder
