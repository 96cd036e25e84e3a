"""A CT series as one enhanced multi-frame object."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from tests.dicom.objects import make_uid

__all__ = ["make_enhanced"]


def make_enhanced(
    slices: Sequence[Dataset], order: Sequence[int], *, per_frame: bool = True, shared_groups: bool = True
) -> Dataset:
    """Join slices, in the given order, into one object.

    The first slice's orientation and spacing are shared, or stand in every frame's own groups.
    """
    first = slices[0]
    data = Dataset()
    data.file_meta = first.file_meta
    for keyword in ("Modality", "ImageType", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows"):
        setattr(data, keyword, first[keyword].value)
    for keyword in (
        "Columns",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
    ):
        setattr(data, keyword, first[keyword].value)
    data.SOPClassUID, data.SOPInstanceUID = EnhancedCTImageStorage, make_uid("enhanced")
    data.PixelRepresentation, data.NumberOfFrames = first.PixelRepresentation, len(order)
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.SliceThickness
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    data.SharedFunctionalGroupsSequence = [shared if shared_groups else Dataset()]
    frames = []
    for index in order:
        position, values, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = slices[index].ImagePositionPatient
        values.RescaleSlope, values.RescaleIntercept = slices[index].RescaleSlope, slices[index].RescaleIntercept
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [values]
        if not shared_groups:
            group.PixelMeasuresSequence, group.PlaneOrientationSequence = [measures], [orientation]
        frames.append(group)
    if per_frame:
        data.PerFrameFunctionalGroupsSequence = frames
    data.PixelData = b"".join(slices[index].PixelData for index in order)
    return data
