"""A NIfTI volume as the DICOM series it could have come from, so that an archive can be tried with open data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

__all__ = ["uid_of", "write_series"]


def uid_of(*parts: object) -> str:
    """Return the same UID for the same parts."""
    digits = int(hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:24], 16)
    return f"1.2.826.0.1.3680043.10.511.{digits}"


def write_series(image: Path, folder: Path, modality: str = "MR") -> str:
    """Write one series, a file a slice along the third axis.

    Args:
        image: NIfTI volume. Values are rounded; those of MR that are no whole numbers of 16 bits are scaled to 4095.
        folder: for the files.
        modality: MR or CT.

    Returns:
        The SeriesInstanceUID; it follows from the name of the image.
    """
    volume = nibabel.load(image)
    values = np.asarray(volume.dataobj, dtype=np.float64)
    if modality == "MR" and not (np.abs(values).max() <= 32767 and np.array_equal(values, np.rint(values))):
        values = values * (4095 / np.abs(values).max())
    voxels = np.rint(values).astype("<i2")
    case = image.name.removesuffix(".nii.gz")
    # NIfTI counts to the right, the front and the head, DICOM to the left, the back and the head
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(volume.affine, dtype=np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    directions, origin = affine[:3, :3] / spacing, affine[:3, 3]
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(voxels.shape[2]):
        data = _described(case, modality)
        data.SOPInstanceUID, data.InstanceNumber = uid_of(case, "instance", k), k + 1
        data.ImagePositionPatient = [_number(v) for v in origin + directions[:, 2] * spacing[2] * k]
        data.ImageOrientationPatient = [_number(v) for v in (*directions[:, 0], *directions[:, 1])]
        data.PixelSpacing, data.SliceThickness = [_number(spacing[1]), _number(spacing[0])], _number(spacing[2])
        data.Columns, data.Rows = voxels.shape[:2]
        data.PixelData = np.ascontiguousarray(voxels[..., k].T).tobytes()
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)
    return uid_of(case, "series")


def _described(case: str, modality: str) -> Dataset:
    """Return what all slices have in common."""
    data = Dataset()
    data.SOPClassUID, data.Modality = {"MR": MRImageStorage, "CT": CTImageStorage}[modality], modality
    data.StudyInstanceUID, data.SeriesInstanceUID = uid_of(case, "study"), uid_of(case, "series")
    data.FrameOfReferenceUID = uid_of(case, "frame")
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = case, case, "", ""
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "", ""
    data.StudyDate = data.SeriesDate = data.ContentDate = "20240101"
    data.StudyTime = data.SeriesTime = data.ContentTime = "120000"
    data.Manufacturer, data.PositionReferenceIndicator, data.SeriesNumber, data.AcquisitionNumber = "", "", 1, 1
    data.ImageType, data.PatientPosition = ["DERIVED", "PRIMARY", "OTHER" if modality == "MR" else "AXIAL"], "HFS"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    if modality == "CT":
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType, data.KVP = 0, 1, "HU", None
    else:
        data.ScanningSequence, data.SequenceVariant, data.ScanOptions = "RM", "NONE", ""
        data.MRAcquisitionType, data.EchoTime, data.RepetitionTime, data.EchoTrainLength = "3D", None, None, None
    return data


def _number(value: float) -> float:
    return round(float(value), 6)
