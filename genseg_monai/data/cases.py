"""Find the cases of a data set, or the images to predict.

A case is a dictionary: `image` (a path; a list of paths, one a channel; or the folder of a DICOM series), `label` (a
path), `case` (its name) and `group` (the patient, or the case's own name).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from genseg_monai.data.layouts import Listing, read_layout
from genseg_monai.data.paths import image_entries, is_dicom, is_nifti, is_picture, stem
from genseg_monai.data.phantom import draw_phantom
from genseg_monai.data.series_folders import series_images
from genseg_monai.errors import UserError

__all__ = ["data_folder", "find_cases", "find_images", "list_cases"]

logger = logging.getLogger(__name__)

_PHANTOM = "phantom://"
_VERSION = 3  # of what draw_phantom draws: a cached drawing of another version is not used
_NUMBERED = re.compile(r"^(?P<case>.+)_\d{4}$")


def find_cases(root: str | Path, label_dir: str | None = None) -> list[dict[str, Any]]:
    """Find the labelled cases of a data set.

    Args:
        root: a folder with `images/` and `masks/` (or `labels/`) of equal stems, a folder in the layout of the Medical
            Segmentation Decathlon, of nnU-Net or of ``pull``, a MONAI datalist (.json), or ``phantom://2d`` and
            ``phantom://3d``, drawn on the spot (``phantom://2d?cases=24&size=64&seed=0``).
        label_dir: name of the folder of labels, where there are several.

    Returns:
        The cases in the order of their names or of the list. Images without a label and labels without an image are
        left out, and counted in a warning.

    Raises:
        UserError: nothing is found, or two cases have one name.

    Example:
        >>> cases = find_cases("phantom://2d?cases=6&size=32")
        >>> cases[0]["case"], sorted(cases[0])
        ('case_000', ['case', 'group', 'image', 'label'])
    """
    folder = data_folder(root)
    listing = list_cases(folder, label_dir)
    if not listing.cases:
        seen = [stem(p) for p in (listing.unlabelled[:1] + listing.orphans[:1])]
        more = f" (seen: {' and '.join(seen)})" if seen else ""
        raise UserError(
            folder, f"wanted images with labels of the same name, got no pair{more}; rename the files alike"
        )
    names = [case["case"] for case in listing.cases]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(folder, f"wanted one name a case, got {twice!r} twice; give the files different names")
    for paths, what in ((listing.unlabelled, "images without a label"), (listing.orphans, "labels without an image")):
        if paths:
            logger.warning("%d %s are left out; `genseg check` names them", len(paths), what)
    return listing.cases


def list_cases(root: str | Path, label_dir: str | None = None) -> Listing:
    """List cases and whatever is incomplete, without complaint: for those who report it.

    Raises:
        UserError: the folder has no known layout.
    """
    return read_layout(data_folder(root), label_dir)


def find_images(path: str | Path, channels: int = 1) -> list[dict[str, Any]]:
    """Find the images to predict, labelled or not.

    Args:
        path: a picture or a volume; a folder of them; the folder of a DICOM series; a folder of such folders; or a
            whole data set, of which the images are taken (``imagesTs`` before ``imagesTr``).
        channels: files an image: above 1, ``CASE_0000`` to ``CASE_000N`` are one image, as nnU-Net names them.

    Returns:
        Dictionaries with `image`, `case` and `group`.

    Raises:
        UserError: there is no image.

    Example:
        >>> folder = data_folder("phantom://2d?cases=6&size=32")
        >>> [case["case"] for case in find_images(folder / "images")][:2]
        ['case_000', 'case_001']
    """
    place = data_folder(path)
    if place.is_file():
        if not (is_picture(place) or is_nifti(place) or is_dicom(place)):
            raise UserError(place, "wanted PNG, JPEG, TIFF, BMP, NIfTI or DICOM, got another kind of file; convert it")
        return [_image(place)]
    if not place.is_dir():
        raise UserError(place, "wanted an image or a folder of images, there is nothing; correct the path")
    for name in ("imagesTs", "imagesTr", "images"):
        if image_entries(place / name):
            place = place / name
            break
    entries = [entry for entry in image_entries(place) if entry.is_file()]
    if entries and (channels > 1 or place.name in {"imagesTs", "imagesTr"}):
        return _channelled(entries, channels)
    images = [_image(entry) for entry in entries]
    series = series_images(place)
    if not images and not series:
        raise UserError(place, "wanted PNG, JPEG, TIFF, BMP, NIfTI or DICOM, got none of them; give another folder")
    return images + series


def data_folder(root: str | Path) -> Path:
    """Return the absolute path of a data set; ``phantom://`` ones are drawn into the cache first.

    The cache is ``GENSEG_CACHE``, else ``genseg_monai`` in ``XDG_CACHE_HOME`` or ``~/.cache``, else a temporary folder.

    Raises:
        UserError: an unknown phantom.
    """
    text = str(root)
    if not text.startswith(_PHANTOM):
        return Path(root).expanduser().absolute()
    parts = urlsplit(text)
    numbers = dict(parse_qsl(parts.query))
    if parts.netloc not in {"2d", "3d"} or set(numbers) - {"cases", "size", "seed"}:
        raise UserError(text, "wanted phantom://2d or phantom://3d with ?cases=, size=, seed=, got another; correct it")
    dims = int(parts.netloc[0])
    try:
        wish = {"cases": 24, "size": 64 if dims == 2 else 48, "seed": 0} | {k: int(v) for k, v in numbers.items()}
        return _drawn(dims, **wish)
    except ValueError as error:
        raise UserError(text, f"wanted whole numbers that fit ({error}); correct them") from error


def _drawn(dims: int, cases: int, size: int, seed: int) -> Path:
    """Return the folder of a phantom, drawing it if need be; others may be drawing the same at this moment."""
    folder = _cache() / f"phantom{_VERSION}_{dims}d_{cases}x{size}_{seed}"
    if not (folder / "splits.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft_", dir=folder.parent))
        try:
            draw_phantom(draft, spatial_dims=dims, cases=cases, size=size, seed=seed)
            draft.rename(folder)
        except OSError:
            if not (folder / "splits.json").is_file():  # nobody else put it there
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def _cache() -> Path:
    given = os.environ.get("GENSEG_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genseg_monai"
    place = Path(given).expanduser() if given else home
    try:
        place.mkdir(parents=True, exist_ok=True)
        writable = os.access(place, os.W_OK)
    except OSError:
        writable = False
    return place.absolute() if writable else Path(tempfile.gettempdir()) / "genseg_monai"


def _image(path: Path) -> dict[str, Any]:
    return {"image": str(path), "case": stem(path), "group": stem(path)}


def _channelled(entries: list[Path], channels: int) -> list[dict[str, Any]]:
    """Join the channel files of each image."""
    images: dict[str, list[Path]] = {}
    for entry in entries:
        match = _NUMBERED.match(stem(entry))
        images.setdefault(match["case"] if match else stem(entry), []).append(entry)
    for name, paths in images.items():
        if channels > 1 and len(paths) != channels:
            raise UserError(
                paths[0].parent, f"wanted {channels} files of {name!r}, got {len(paths)}; add or remove files"
            )
    return [
        {"image": str(paths[0]) if len(paths) == 1 else [str(p) for p in paths], "case": name, "group": name}
        for name, paths in images.items()
    ]
