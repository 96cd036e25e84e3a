"""Predictions to DICOM SEG, so that a viewer shows them on the images they were made from.

BINARY by default, which every viewer reads; FRACTIONAL probabilities on request. Every frame refers to its source
image, every segment has coded category and type, the algorithm and a colour: DICOM PS3.3 A.51, by highdicom (Bridge
et al. 2022, https://doi.org/10.1007/s10278-022-00683-y).
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from genseg_monai import __version__
from genseg_monai._optional import require
from genseg_monai.dicom.codes import Code, Meaning, colour_of, meaning_of
from genseg_monai.dicom.series import Series, SeriesFiles, read_series
from genseg_monai.errors import UserError

__all__ = ["missing_uids", "write_seg"]

_IN_SPACE = ("CT", "MR", "PT")  # modalities whose images always lie in a frame of reference

_EMPTY_ALLOWED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)


def write_seg(
    mask: np.ndarray,
    series: Series | SeriesFiles | Path | str | Iterable[Path | str],
    classes: Sequence[str],
    path: Path | str,
    *,
    fractional: bool = False,
    omit_empty_frames: bool = True,
    algorithm: str = "GenSeg",
    meanings: Mapping[str, Meaning] | None = None,
) -> Path:
    """Write a label map, or probabilities, as a DICOM SEG object.

    Args:
        mask: label map (X, Y, Z) of class numbers, or, with `fractional`, probabilities (K, X, Y, Z) in [0, 1] with
            the background first; on the grid of the series.
        series: the images it was made from.
        classes: names, the background first.
        path: the file to write; replaced as a whole.
        fractional: write probabilities (FRACTIONAL) instead of a mask (BINARY).
        omit_empty_frames: leave out frames without foreground; some viewers need them all.
        algorithm: name of what made it.
        meanings: codes and colours of classes by name; the others get those of `meaning_of` and `colour_of`.

    Returns:
        The path.

    Raises:
        UserError: another shape than the series, values that are no class, or images that lack a UID.
    """
    highdicom = require("highdicom", "writing a DICOM segmentation")
    found = series if isinstance(series, Series) else read_series(series)
    if lacking := missing_uids(found.uids, found.modality):
        raise UserError(path, f"wanted images with UIDs to refer to, they have no {' and no '.join(lacking)} UID")
    stored, numbers = _pixels(np.asarray(mask), found, classes, fractional, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values in the source images; their texts hold the values
        sources, stored = _sources(found, stored, path)
        told = {name: meaning_of(name) for name in classes} | dict(meanings or {})
        made = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=stored,
            segmentation_type="FRACTIONAL" if fractional else "BINARY",
            segment_descriptions=[
                _describe(highdicom, position, number, classes[number], told[classes[number]], algorithm)
                for position, number in enumerate(numbers, 1)
            ],
            series_instance_uid=highdicom.UID(),
            series_number=int(sources[0].get("SeriesNumber") or 0) % 10_000 + 10_000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="GenSeg",
            manufacturer_model_name=algorithm,
            software_versions=__version__,
            device_serial_number="none",
            series_description=f"{algorithm} segmentation"[:64],
            content_label="SEGMENTATION",
            omit_empty_frames=omit_empty_frames and bool(stored.any()),
        )
        made.ContentCreatorName = ""  # type 2: it has to be there
        _save(made, Path(path))
    return Path(path)


def missing_uids(uids: Mapping[str, str], modality: str) -> list[str]:
    """Return which of the UIDs that a segmentation has to refer to a series lacks; radiographs have no frame.

    Example:
        >>> missing_uids({"study": "1.2", "series": "", "frame_of_reference": "1.3"}, "CT")
        ['series']
    """
    wanted = ["study", "series"] + ["frame_of_reference"] * (modality in _IN_SPACE)
    return [name.replace("_", "-") for name in wanted if not uids.get(name)]


def _pixels(
    mask: np.ndarray, series: Series, classes: Sequence[str], fractional: bool, path: object
) -> tuple[np.ndarray, list[int]]:
    """Return (Z, Y, X, segments), and the class of each segment."""
    numbers = list(range(1, len(classes)))
    wanted = (len(classes), *series.array.shape) if fractional else series.array.shape
    if not numbers or mask.shape != wanted:
        raise UserError(path, f"wanted an array of {wanted} for {len(classes)} classes, got {mask.shape}")
    if series.facts.get("resampled"):
        raise UserError(path, "wanted a mask on the slices themselves, got a series whose tilt was resampled away")
    if fractional:
        if not np.isfinite(mask).all() or mask.min() < 0 or mask.max() > 1:
            raise UserError(path, "wanted probabilities from 0 to 1, got others")
        return np.ascontiguousarray(mask[1:].transpose(3, 2, 1, 0)).astype(np.float32), numbers
    found = np.unique(mask)
    if not set(found.tolist()) <= set(range(len(classes))):
        raise UserError(path, f"wanted classes 0 to {len(classes) - 1}, got {found[:20].tolist()}")
    flat = mask.transpose(2, 1, 0)
    return np.stack([flat == number for number in numbers], axis=-1).astype(np.uint8), numbers


def _sources(series: Series, stored: np.ndarray, path: object) -> tuple[list[pydicom.Dataset], np.ndarray]:
    """Return the source images without pixels and the mask in their order; filled slices have no source."""
    kept = [index for index, file in enumerate(series.files) if file is not None]
    files = list(dict.fromkeys(file for file in series.files if file is not None))
    images: list[pydicom.Dataset] = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in files]
    known = {item.value for item in require("highdicom", "writing a DICOM segmentation").SpecificCharacterSetValues}
    for image in images:
        for name in ("SOPClassUID", "SOPInstanceUID"):
            if not image.get(name):
                setattr(image, name, getattr(image.file_meta, f"MediaStorage{name}", ""))
        sets = image.get("SpecificCharacterSet") or ""
        named = {sets} if isinstance(sets, str) else {*sets} - {""}
        if "SpecificCharacterSet" in image and not named <= known:  # highdicom takes only those of the standard
            del image.SpecificCharacterSet
        for name in _EMPTY_ALLOWED:
            if name not in image:
                setattr(image, name, "")
        if not series.placed and not image.get("FrameOfReferenceUID", "absent"):
            del image.FrameOfReferenceUID  # a radiograph has none, and may not have an empty one
    if len(files) == 1 and len(kept) > 1:  # multi-frame: the mask in the order of the frames
        kept.sort(key=lambda index: series.frames[index])
        if len(kept) != int(images[0].NumberOfFrames):
            raise UserError(path, f"wanted a mask of all {int(images[0].NumberOfFrames)} frames, got {len(kept)}")
    elif len(files) != len(kept):
        raise UserError(path, "wanted one image a slice or one multi-frame image, got a mixture")
    return images, stored[kept]


def _describe(highdicom: Any, position: int, number: int, name: str, meaning: Meaning, algorithm: str) -> Any:
    return highdicom.seg.SegmentDescription(
        segment_number=position,
        segment_label=name[:64],
        segmented_property_category=_coded(highdicom, meaning.category),
        segmented_property_type=_coded(highdicom, meaning.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=algorithm,
            version=__version__,
            family=_coded(highdicom, Code("123109", "DCM", "Artificial Intelligence")),
        ),
        anatomic_regions=[_coded(highdicom, meaning.region)] if meaning.region else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*(meaning.colour or colour_of(number))),
    )


def _coded(highdicom: Any, code: Code) -> Any:
    return highdicom.sr.CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def _save(made: pydicom.Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        made.save_as(name)
        Path(name).chmod(0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
