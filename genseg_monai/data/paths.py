"""Which files are images, what they are called without their suffix, and which folders are DICOM series."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "NIFTI",
    "PICTURES",
    "image_entries",
    "is_dicom",
    "is_nifti",
    "is_picture",
    "is_raw_radiograph",
    "is_series",
    "series_below",
    "stem",
]

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
NIFTI = (".nii.gz", ".nii")
_DICOM = (".dcm", ".dicom", ".ima")
_NO_IMAGES = frozenset({"dicomdir", "thumbs.db", "desktop.ini"})


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of a picture (PNG, JPEG, TIFF, BMP, GIF)."""
    return os.fspath(path).lower().endswith(PICTURES)


def is_raw_radiograph(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a chest radiograph as JSRT publishes it: ``.IMG``, 2048 x 2048 numbers of 16 bit, no header."""
    path = Path(path)
    return path.suffix.lower() == ".img" and path.is_file() and path.stat().st_size == 2 * 2048**2


def is_nifti(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of a NIfTI volume."""
    return os.fspath(path).lower().endswith(NIFTI)


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file is DICOM: by its suffix, or without a known suffix by the letters at byte 128."""
    path = Path(path)
    if not path.is_file() or path.name.lower() in _NO_IMAGES or path.name.startswith("."):
        return False
    if path.suffix.lower() in _DICOM:
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # 1.2.840.113 is a file name, not a suffix
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_series(path: str | os.PathLike[str]) -> bool:
    """Whether a folder directly holds DICOM files."""
    folder = Path(path)
    return folder.is_dir() and any(is_dicom(entry) for entry in folder.iterdir())


def series_below(folder: Path) -> Iterator[Path]:
    """Yield every folder from ``folder`` down that directly holds DICOM files, in the order of their names."""
    for place, below, _ in os.walk(folder):
        below.sort()
        if is_series(place):
            yield Path(place)


def stem(path: str | os.PathLike[str]) -> str:
    """Return the name without the suffix of a known kind of image; a folder keeps its whole name.

    Example:
        >>> stem("imagesTr/liver_07.nii.gz"), stem("images/a.b.png"), stem("scans/1.2.840")
        ('liver_07', 'a.b', '1.2.840')
    """
    name = Path(path).name
    for suffix in (*NIFTI, *PICTURES, *_DICOM, ".img"):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def image_entries(folder: Path) -> list[Path]:
    """Return the pictures, volumes and DICOM series folders directly in ``folder``, in the order of their names."""
    if not folder.is_dir():
        return []
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return [
        entry for entry in entries if (is_picture(entry) or is_nifti(entry)) and entry.is_file() or is_series(entry)
    ]
