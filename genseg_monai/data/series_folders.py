"""Which series lie in which folders, for prediction: PACS exports put one or many into a folder, and objects beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genseg_monai.data.paths import is_dicom, series_below, stem

__all__ = ["series_images"]


def series_images(place: Path) -> list[dict[str, Any]]:
    """List the image series in ``place`` and below.

    A folder that holds one series is an image by its path. Of a folder with several, each is a list of files, named
    after the folder and numbered in the order of the files. A folder with nothing but segmentations, structure sets or
    reports is passed over; one whose files cannot be read is listed: reading it tells the reason.

    Args:
        place: looked through to the bottom.

    Returns:
        Dictionaries with `image`, `case` and `group`; no two names are equal.
    """
    from genseg_monai.dicom.scan import scan_folder  # DICOM is read only where there is some

    images: list[tuple[str, str | list[str]]] = []
    folders = list(series_below(place))
    names = [stem(folder) for folder in folders]
    for folder, name in zip(folders, names, strict=True):
        scan = scan_folder(folder, [entry for entry in sorted(folder.iterdir()) if is_dicom(entry)])
        if names.count(name) > 1:
            name = "_".join(folder.relative_to(place).parts) or name
        if len(scan.series) > 1:
            listed = [[str(path) for path in (*series.files, *series.broken)] for series in scan.series]
            images += [(f"{name}_{i}", files if len(files) > 1 else files[0]) for i, files in enumerate(listed, 1)]
        elif scan.series or scan.refused:
            images.append((name, str(folder)))
    return [{"image": image, "case": name, "group": name} for name, image in images]
