"""The SEG and the RTSTRUCT of a drawn study, and what all its objects have in common."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage

from tests.dicom.phi import MARK

__all__ = [
    "LABELS",
    "SPACING",
    "add_common",
    "add_meta",
    "edited",
    "ellipsoid",
    "make_uid",
    "segmentation",
    "structures",
]

LABELS = {"liver": 1, "tumour": 2}
SPACING = (0.8, 0.9, 2.5)  # mm along X (columns), Y (rows), Z (slices)
# centre and radii of each ellipsoid in voxels, as fractions of the volume
_SHAPES = {"liver": ((0.32, 0.45, 0.5), (0.22, 0.3, 0.4)), "tumour": ((0.74, 0.6, 0.5), (0.12, 0.16, 0.3))}


def make_uid(*parts: object) -> str:
    """Return the same UID for the same parts."""
    digits = int(hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:24], 16)
    return f"1.2.826.0.1.3680043.10.511.{digits}"


def add_common(dataset: Dataset, patient_id: str, which: tuple[int, int]) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = f"{MARK}Doe^Jane", patient_id
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19470311", "F", "076Y"
    dataset.StudyInstanceUID = make_uid("study", which[0])
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240229", "101112", f"{MARK}77"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = f"{MARK}8812", f"{MARK}House^Gregory"
    dataset.Manufacturer, dataset.PositionReferenceIndicator = "GE MEDICAL SYSTEMS", ""
    dataset.FrameOfReferenceUID = make_uid("frame", which[0])


def add_meta(dataset: Dataset) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, UID("1.2.826.0.1.3680043.10.511.1")
    dataset.file_meta = meta


def ellipsoid(name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    centre, radii = _SHAPES[name]
    size = np.asarray(shape, float)
    return np.asarray(centre) * (size - 1), np.asarray(radii) * size


def segmentation(images: list[Dataset], labels: np.ndarray, which: tuple[int, int]) -> Dataset:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    things = {"liver": codes.SCT.Liver, "tumour": codes.SCT.Neoplasm}
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ if number == 1 else codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=things[name],
            algorithm_type="MANUAL",
        )
        for name, number in LABELS.items()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = hd.seg.Segmentation(
            source_images=images,
            pixel_array=np.ascontiguousarray(labels.transpose(2, 1, 0)),
            segmentation_type="BINARY",
            segment_descriptions=described,
            series_instance_uid=make_uid("seg series", *which),
            series_number=100,
            sop_instance_uid=make_uid("seg", *which),
            instance_number=1,
            manufacturer="GenSeg",
            manufacturer_model_name="study",
            software_versions="1",
            device_serial_number="1",
            content_creator_name=f"{MARK}Reader^Ann",
        )
    # fixed moments, so that the same call writes the same bytes
    made.ContentDate = made.SeriesDate = made.InstanceCreationDate = "20240229"
    made.ContentTime = made.SeriesTime = made.InstanceCreationTime = "120000"
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = organisation = make_uid("dimension", *which)
    for item in made.DimensionIndexSequence:
        item.DimensionOrganizationUID = organisation
    return made


def structures(images, shape, directions, origin, which) -> Dataset:
    dataset = Dataset()
    add_common(dataset, images[0].PatientID, which)
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, make_uid("rtstruct", *which)
    dataset.SeriesInstanceUID, dataset.Modality, dataset.SeriesNumber = make_uid("rt series", *which), "RTSTRUCT", 200
    dataset.OperatorsName = ""
    dataset.StructureSetLabel, dataset.StructureSetDate, dataset.StructureSetTime = "AUTO", "20240229", "120000"
    refers = [_item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=i.SOPInstanceUID) for i in images]
    of_series = _item(SeriesInstanceUID=images[0].SeriesInstanceUID, ContourImageSequence=refers)
    of_study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=images[0].StudyInstanceUID,
        RTReferencedSeriesSequence=[of_series],
    )
    frame = images[0].FrameOfReferenceUID
    dataset.ReferencedFrameOfReferenceSequence = [
        _item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[of_study])
    ]
    rois, contours, observations = [], [], []
    for name, number in LABELS.items():
        rois.append(
            _item(ROINumber=number, ReferencedFrameOfReferenceUID=frame, ROIName=name, ROIGenerationAlgorithm="")
        )
        lines = [
            _item(
                ContourImageSequence=[refers[k]],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[round(float(v), 6) for v in (points @ directions.T + origin).ravel()],
            )
            for k in range(shape[2])
            if len(points := _outline(name, shape, k))
        ]
        contours.append(_item(ReferencedROINumber=number, ROIDisplayColor=[255, 0, 0], ContourSequence=lines))
        observations.append(
            _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="", ROIInterpreter="")
        )
    dataset.StructureSetROISequence, dataset.ROIContourSequence = rois, contours
    dataset.RTROIObservationsSequence, dataset.ApprovalStatus = observations, "UNAPPROVED"
    add_meta(dataset)
    return dataset


def _outline(name: str, shape: tuple[int, ...], k: int) -> np.ndarray:
    """Return the ellipse of slice `k` as points (N, 3) in mm along columns, rows and slices."""
    centre, radii = ellipsoid(name, shape)
    left = 1 - ((k - centre[2]) / radii[2]) ** 2
    if left <= 0:
        return np.empty((0, 3))
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    flat = [centre[i] + radii[i] * np.sqrt(left) * f(angle) for i, f in enumerate((np.cos, np.sin))]
    return np.stack([*flat, np.full_like(angle, k)], axis=1) * np.asarray(SPACING)


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def edited(path: Path, change: Callable[[Dataset], object]) -> Path:
    """Change a file in its place and return it."""
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)
    return path
