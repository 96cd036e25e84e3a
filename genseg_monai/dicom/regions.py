"""What SEG and RTSTRUCT have in common: named regions on the grid of an image series."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from genseg_monai.dicom.fields import Fields
from genseg_monai.dicom.geometry import LPS_TO_RAS
from genseg_monai.dicom.series import Series

__all__ = ["MAX_REGIONS", "Region", "belongs", "count_absent", "voxels_of"]

MAX_REGIONS = 4096  # of one object; each takes time that the size of the file does not show

_SERIES, _INSTANCE = 0x0020000E, 0x00081155


@dataclass(frozen=True)
class Region:
    """One segment or region of interest.

    Attributes:
        name: as the file calls it; it may hold anything a person typed.
        mask: bool (X, Y, Z) on the grid of the series; None where nothing was drawn.
        outside: voxels or contours that lie off the grid.
        absent: images that the file refers to and the series does not have: a slice may be missing at an end.
        skipped: contours that enclose nothing (points, open lines), and frames or contours between the slices.
    """

    name: str
    mask: np.ndarray | None
    outside: int = 0
    skipped: int = 0
    absent: int = 0


def voxels_of(series: Series, points: np.ndarray) -> np.ndarray:
    """Return LPS points (N, 3), in mm, as voxel coordinates (N, 3) of the series; whole numbers are voxel centres."""
    to_voxel = np.linalg.inv(series.affine) @ LPS_TO_RAS
    return np.asarray(points @ to_voxel[:3, :3].T + to_voxel[:3, 3])


def belongs(series: Series, frame_of_reference: str, instances: set[str]) -> bool:
    """Tell whether an object was drawn on a series: it names one of its images, or nothing but its frame of reference.

    Args:
        series: the image series.
        frame_of_reference: of the object; may be empty.
        instances: SOP instances the object refers to; may be empty.
    """
    if instances:
        return not instances.isdisjoint(series.sop_instances)
    known = series.uids.get("frame_of_reference", "")
    return bool(frame_of_reference) and frame_of_reference == known


def count_absent(series: Series, entries: Iterable[Fields], images: int, instances: set[str]) -> int:
    """Count the images that an object refers to and that its series lacks; what it lists of other series is left out.

    Args:
        series: the image series.
        entries: what the object lists, an item a series, each with its SeriesInstanceUID.
        images: tag of the sequence of images in an entry.
        instances: all SOP instances the object refers to.
    """
    known = series.beside.union(series.sop_instances)
    absent = instances - known
    for entry in entries:
        listed = {item.uid(_INSTANCE) for item in entry.items(images)}
        if entry.uid(_SERIES) not in ("", series.uids.get("series", "")) and listed.isdisjoint(known):
            absent -= listed
    return len(absent)
