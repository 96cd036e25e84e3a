"""Identifiers planted wherever a DICOM file can hold one; all hold the word `MARK`: a byte search finds a leak."""

from __future__ import annotations

import warnings

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset

__all__ = ["MARK", "PREAMBLE", "plant", "plant_meta"]

MARK = "ZZPHI"
PREAMBLE = f"{MARK} preamble".encode().ljust(128, b" ")

_TEXT = {
    "InstitutionName": "General Hospital",
    "InstitutionAddress": "1 Main Street",
    "StationName": "ROOM4",
    "StudyDescription": "CT liver Mrs Doe",
    "ProtocolName": "abdomen for Doe",
    "ImageComments": "called Jane",
    "PatientComments": "sister of Ann",
    "PatientAddress": "2 Elm Street",
    "OtherPatientIDs": "OLD-1",
    "PatientMotherBirthName": "Smith",
    "PatientTelephoneNumbers": "555 1234567",
    "EthnicGroup": "none",
    "Occupation": "pilot",
    "AdditionalPatientHistory": "fell at home",
    "OperatorsName": "Tech^Tim",
    "PerformingPhysicianName": "Perf^Pat",
    "NameOfPhysiciansReadingStudy": "Read^Rob",
    "DeviceSerialNumber": "SN1",
    "RequestingService": "ward 3",
    "Allergies": "nuts",
    "ContrastBolusAgent": "agent Doe",
    "DerivationDescription": "made for Doe",
    # not in the table of PS3.15, or unknown to it: free text all the same
    "ContentDescription": "for Doe",
    "AcquisitionContextDescription": "for Doe",
    "TrackingID": "Doe tracked",
    "SegmentAlgorithmName": "by Doe",
    "ManufacturerModelName": "of Doe",
    "SoftwareVersions": "for Doe",
    "ConvolutionKernel": "Doe",
    "PositionReferenceIndicator": "Doe",
}


def plant(dataset: Dataset) -> None:
    """Plant identifiers in headers, sequences, private blocks, overlays, curves, unknown tags and behind the pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, words in _TEXT.items():
            setattr(dataset, keyword, f"{MARK} {words}")
        _codes(dataset)
        _sequences(dataset)
        _odd_places(dataset)
        for item in dataset.get("SegmentSequence", []):
            item.SegmentDescription = f"{MARK} outlined by Doe"
            item.TrackingID = f"{MARK} lesion of Doe"
        for item in dataset.get("StructureSetROISequence", []):
            item.ROIDescription = f"{MARK} outlined by Doe"
        for item in dataset.get("RTROIObservationsSequence", []):
            item.ROIInterpreter = f"{MARK}^Doe"
        if "PixelData" in dataset and dataset.Modality == "CT":
            dataset.PixelData += f"{MARK} behind the pixels ".encode()


def plant_meta(meta: FileMetaDataset) -> None:
    """Plant identifiers in group 2."""
    meta.SourceApplicationEntityTitle = f"{MARK}_AE"
    meta.ImplementationVersionName = f"{MARK}_1"
    meta.PrivateInformationCreatorUID = "1.2.3.4.5"
    meta.PrivateInformation = f"{MARK} private ".encode()


def _codes(dataset: Dataset) -> None:
    """Coded strings pass the rules of their VR, so only a list of known terms can tell."""
    dataset.ScanOptions = f"{MARK}_DOE"
    dataset.RetrieveAETitle = f"{MARK}_PACS"
    if dataset.Modality == "CT":
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", f"{MARK} DOE"]
    dataset.ProcedureCodeSequence = [_code(f"{MARK}1", "99LOCAL", f"{MARK} procedure of Doe")]
    dataset.AnatomicRegionSequence = [_code("62413002", "SCT", f"{MARK} radius of Doe")]


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _sequences(dataset: Dataset) -> None:
    deep = Dataset()
    deep.PatientName, deep.StudyDate, deep.RetrieveAETitle = f"{MARK}^Deep", "20240229", f"{MARK}_AE"
    deep.add_new(0x00091010, "LO", f"{MARK} private and deep")
    for _ in range(6):
        outer = Dataset()
        outer.ReferencedImageSequence = [deep]
        outer.PatientID = f"{MARK}-nested"
        deep = outer
    deep.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    deep.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    dataset.ReferencedImageSequence = [deep]
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepDescription = f"{MARK}1", f"{MARK} step"
    dataset.RequestAttributesSequence = [request]
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", dataset.StudyInstanceUID
    dataset.ReferencedStudySequence = [study]


def _odd_places(dataset: Dataset) -> None:
    block = dataset.private_block(0x0009, f"{MARK} MAKER", create=True)
    block.add_new(0x01, "LO", f"{MARK} private")
    inner = Dataset()
    inner.PatientName = f"{MARK}^InPrivate"
    block.add_new(0x02, "SQ", [inner])
    dataset.add_new(0x00090010 + 0x0F00, "LO", f"{MARK} ORPHAN")
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "1.5")
    block.add_new(0x03, "ST", f"{MARK} file name")
    dataset.add(DataElement(0x60000010, "US", 8))
    dataset.add(DataElement(0x60000011, "US", 8))
    dataset.add(DataElement(0x60000022, "LO", f"{MARK} overlay"))
    dataset.add(DataElement(0x60000040, "CS", "G"))
    dataset.add(DataElement(0x60003000, "OW", f"{MARK}ov".encode() + b"\0"))
    dataset.add(DataElement(0x60004000, "LT", f"{MARK} overlay comment"))
    dataset.add(DataElement(0x50000022, "LO", f"{MARK} curve"))
    dataset.add(DataElement(0x50003000, "OW", f"{MARK}curve".encode()))
    dataset.add(DataElement(0x00089999, "UN", f"{MARK} unknown ".encode()))
    dataset.add(DataElement(0x00180FF6, "LO", f"{MARK} unknown text"))
    dataset.ICCProfile = f"{MARK} profile ".encode()
    dataset.DeviceUID = "1.2.826.0.1.3680043.10.511.99"
    dataset.AcquisitionDateTime = "20240229101112.000000+0100"
    dataset.AdmittingDate = "20240229"
    dataset.DataSetTrailingPadding = f"{MARK} padding ".encode()
