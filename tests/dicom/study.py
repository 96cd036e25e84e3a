"""A study drawn for the tests: a CT series, its SEG and its RTSTRUCT, straight or oblique, identifiers planted or not.

Two ellipsoids, "liver" (1) and "tumour" (2), that do not touch, in a noisy body. The SEG holds their voxels, the
RTSTRUCT the analytic ellipses of every slice, so both lead to the same label map. Arrays are (X, Y, Z).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import CTImageStorage

from tests.dicom.objects import LABELS, SPACING, add_common, add_meta, ellipsoid, make_uid, segmentation, structures
from tests.dicom.phi import MARK, PREAMBLE, plant, plant_meta

__all__ = ["LABELS", "Study", "make_uid", "write_study"]

_COLUMNS, _ROWS = 40, 32  # unequal on purpose: a swapped axis shows


@dataclass(frozen=True)
class Study:
    """What was drawn, and where."""

    folder: Path
    images: tuple[Path, ...]  # in slice order, though the file names are shuffled
    seg: Path | None
    rtstruct: Path | None
    volume: np.ndarray  # int16 HU, (X, Y, Z)
    labels: np.ndarray  # uint8, (X, Y, Z)
    affine: np.ndarray  # RAS, mm
    uids: tuple[str, ...]  # every original instance, series, study and frame-of-reference UID
    patient_id: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what must not be found in any output."""
        return (MARK, self.patient_id, "19470311", "20240229", *self.uids)


def write_study(
    folder: Path,
    *,
    slices: int = 8,
    oblique: bool = False,
    phi: bool = True,
    seg: bool = True,
    rtstruct: bool = True,
    patient: int = 1,
    series: int = 1,
    seed: int = 0,
) -> Study:
    """Write one study below `folder`.

    Args:
        folder: where to write; made if missing.
        slices: number of CT slices.
        oblique: tilt the stack out of the axes of the patient.
        phi: plant identifiers wherever a file can hold one, in the names of files and folders too.
        seg: write the DICOM SEG (needs highdicom).
        rtstruct: write the RTSTRUCT.
        patient: number of the patient; the identifier follows from it.
        series: number of the series within the study.
        seed: of the noise.
    """
    shape = (_COLUMNS, _ROWS, slices)
    labels, volume = _draw(shape, seed)
    directions, origin = _geometry(oblique)
    scaled = directions * np.asarray(SPACING)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.block(
        [[scaled, origin[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]
    )

    patient_id = f"{MARK}-{84736250 + patient}"
    images = [_slice(volume, k, directions, origin, patient_id, (patient, series)) for k in range(slices)]
    objects = {}
    if seg:
        objects["seg"] = segmentation(images, labels, (patient, series))
    if rtstruct:
        objects["rtstruct"] = structures(images, shape, directions, origin, (patient, series))
    uids = {str(d[k].value) for d in (*images, *objects.values()) for k in _UIDS if k in d}

    home = folder / (f"{MARK}_Jane_Doe" if phi else f"patient{patient}") / f"series{series}"
    home.mkdir(parents=True, exist_ok=True)
    stem = f"{MARK}_Doe_" if phi else ""
    order = np.random.default_rng(seed).permutation(slices)
    paths = [home / f"{stem}ct_{patient}_{order[k]:04d}.dcm" for k in range(slices)]
    named = {name: home / f"{stem}{name}_{patient}.dcm" for name in objects}
    for dataset, path in (*zip(images, paths, strict=True), *((objects[name], named[name]) for name in objects)):
        if phi:
            plant(dataset)
        _write(path, dataset, phi)
    return Study(
        folder,
        tuple(paths),
        named.get("seg"),
        named.get("rtstruct"),
        volume,
        labels,
        affine,
        tuple(sorted(uids)),
        patient_id,
    )


_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")


def _draw(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    grid = np.indices(shape).astype(float)
    labels = np.zeros(shape, np.uint8)
    for name, value in LABELS.items():
        centre, radii = ellipsoid(name, shape)
        labels[sum(((grid[i] - centre[i]) / radii[i]) ** 2 for i in range(3)) <= 1] = value
    levels = np.array([40, 110, 70])[labels]
    volume = levels + np.random.default_rng(seed).integers(-15, 16, shape)
    volume[:2] = volume[-2:] = -1000  # air at the sides
    return labels, volume.astype(np.int16)


def _geometry(oblique: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit vectors of columns, rows and slices as columns (LPS), and the first voxel's position."""
    directions = np.eye(3)
    if oblique:
        a, b = np.deg2rad(20), np.deg2rad(-12)
        about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
        directions = about_z @ about_x
    return directions, np.array([-15.5, -20.25, 100.0])


def _slice(volume, k, directions, origin, patient_id, which) -> Dataset:
    dataset = Dataset()
    add_common(dataset, patient_id, which)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, make_uid("ct", *which, k)
    dataset.SeriesInstanceUID, dataset.Modality = make_uid("series", *which), "CT"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 2 + which[1], k + 1, 1
    dataset.ImageType, dataset.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], "ABDOMEN"
    dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20240229"
    dataset.SeriesTime = dataset.ContentTime = "101213.5"
    dataset.SeriesDescription, dataset.KVP, dataset.ConvolutionKernel = "Liver portal venous 3mm", 120, "STANDARD"
    dataset.ImagePositionPatient = [_ds(v) for v in origin + directions[:, 2] * SPACING[2] * k]
    dataset.ImageOrientationPatient = [_ds(v) for v in (*directions[:, 0], *directions[:, 1])]
    dataset.PixelSpacing, dataset.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = volume.shape[1], volume.shape[0], 1
    dataset.PatientPosition, dataset.PhotometricInterpretation = "HFS", "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    dataset.PixelData = (volume[..., k].T + 1024).astype("<u2").tobytes()
    add_meta(dataset)
    return dataset


def _ds(value: float) -> float:
    return round(float(value), 8)


def _write(path: Path, dataset: Dataset, phi: bool) -> None:
    whole = FileDataset(None, dataset, preamble=PREAMBLE if phi else b"\0" * 128, file_meta=dataset.file_meta)
    if phi:
        plant_meta(whole.file_meta)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(path, whole, enforce_file_format=True)
