"""Data sets as their authors publish them: other folder names, suffixes, several masks a case, one folder a video.

Four shapes cover those that the presets are for; all of them are told by names, no image is opened.

* Two folders: ``Original/`` + ``Ground Truth/`` (CVC-ClinicDB), ``CXR_png/`` + ``mask/`` with ``_mask`` (Shenzhen).
* Two folders of parts that make one mask: ``leftMask/`` + ``rightMask/`` (Montgomery), ``left lung/`` + ``right lung/``
  below ``fold1/`` and ``fold2/`` (JSRT with the SCR masks).
* One folder for each split or each patient, every one of them ``images/`` + ``labels/``: FUSeg's ``train/``,
  ``validation/``, ``test/``; FetReg's ``Video001/``, ...
* A tree in which a suffix tells masks: ``_segmentation`` (ISIC), ``_mask``, ``_mask_1`` (BUSI), `` Mask`` beside
  `` Image`` (BUID), ``_contour`` beside ``_orig`` (DermIS, DermQuest), ``_lesion`` (PH2).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from genseg_monai.data.paths import image_entries, is_picture, is_raw_radiograph, stem

__all__ = ["Found", "PublicLayout", "mask_case", "read_public_layout"]

_IMAGES = ("images", "image", "original", "cxr_png", "all247images")
_MASKS = ("masks", "labels", "ground truth", "ground_truth", "groundtruth", "mask", "label")
_PARTS = ({"leftmask", "rightmask"}, {"left lung", "right lung"})
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_KINDS = ("mask", "segmentation", "contour", "lesion")
_OF_MASK = re.compile(rf"^(?P<case>.+?)[ _-](?P<kind>{'|'.join(_KINDS)})(?:[ _-]\d+)?$", re.IGNORECASE)
_OF_IMAGE = re.compile(r"^(?P<case>.+?)[ _-](?:orig|image)$", re.IGNORECASE)
_NO_IMAGE = re.compile(r"[ _-](?:superpixels|roi)$", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """A case: an image and the masks that make its label together.

    Example:
        >>> Found("c1", Path("1.png"), (Path("1_mask.png"), Path("1_mask_1.png"))).group
        ''
    """

    name: str
    image: Path
    masks: tuple[Path, ...]
    group: str = ""
    split: str | None = None


@dataclass(frozen=True)
class PublicLayout:
    """What `read_public_layout` found.

    Attributes:
        cases: images with their masks.
        unlabelled: images without one, where others have one.
        orphans: masks without an image.

    Example:
        >>> PublicLayout((), (), ()).cases
        ()
    """

    cases: tuple[Found, ...]
    unlabelled: tuple[Path, ...]
    orphans: tuple[Path, ...]


def mask_case(name: str) -> str:
    """Return the case a mask belongs to, by its stem.

    Example:
        >>> [mask_case(name) for name in ("ISIC_0000001_segmentation", "benign (1)_mask_1", "1 Benign Mask", "c7")]
        ['ISIC_0000001', 'benign (1)', '1 Benign', 'c7']
    """
    match = _OF_MASK.match(name)
    return match["case"] if match else name


def read_public_layout(root: Path) -> PublicLayout | None:
    """Tell how a folder is laid out and list what it holds; None if it is none of these.

    Args:
        root: the folder; one that holds a single folder and nothing else is entered.
    """
    for read in (_parts, _nested, _two_folders, _tree):
        found = read(root)
        if found is not None and found.cases:
            return found
    below = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    return read_public_layout(below[0]) if len(below) == 1 and below[0].is_dir() else None


def _two_folders(root: Path, split: str | None = None, group: str = "", prefix: str = "") -> PublicLayout | None:
    """Read a folder of images beside a folder of masks."""
    folders = {entry.name.lower(): entry for entry in root.iterdir() if entry.is_dir()}
    images = next((folders[name] for name in _IMAGES if name in folders), None)
    masks = next((folders[name] for name in _MASKS if name in folders), None)
    if images is None or masks is None:
        return None
    groups = _sequences(root)
    return _join(_entries(images), {None: _entries(masks)}, split, group, prefix, groups)


def _nested(root: Path) -> PublicLayout | None:
    """Read folders that each are a folder of images beside one of masks: splits, or patients."""
    parts, read_before = [], False
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        split, form = _SPLITS.get(folder.name.lower()), folder.name.lower() in _FORMATS
        name = "" if split or form else folder.name
        held = _two_folders(folder, split, name, name)
        if held is None or (form and read_before):  # the same pictures in another format: CVC-ClinicDB's PNG and TIF
            continue
        parts.append(held)
        read_before = read_before or form
    if not parts:
        return None
    names = [case.name for part in parts for case in part.cases]
    if len(names) > len(set(names)):
        return None
    return PublicLayout(*(tuple(one for part in parts for one in getattr(part, name)) for name in _FIELDS))


_FORMATS = frozenset({"bmp", "jpeg", "jpg", "png", "tif", "tiff"})
_FIELDS = ("cases", "unlabelled", "orphans")


def _parts(root: Path) -> PublicLayout | None:
    """Read masks that come in parts, each kind in folders of its own."""
    folders = [path for path in sorted(root.rglob("*")) if path.is_dir()]
    for wanted in _PARTS:
        parts: dict[str | None, list[Path]] = {}
        for folder in folders:
            if folder.name.lower() in wanted:
                parts.setdefault(folder.name.lower(), []).extend(_entries(folder))
        if len(parts) < len(wanted):
            continue
        images = next((f for name in _IMAGES for f in folders if f.name.lower() == name and _entries(f)), None)
        if images is not None:
            return _join(_entries(images), parts)
    return None


def _tree(root: Path) -> PublicLayout | None:
    """Read a tree in which a suffix tells masks from images."""
    pictures = [path for path in sorted(root.rglob("*")) if is_picture(path) and not path.name.startswith(".")]
    marked = {path: match for path in pictures if (match := _OF_MASK.match(stem(path)))}
    kinds = {match["kind"].lower() for match in marked.values()}
    kind = next((kind for kind in _KINDS if kind in kinds), None)
    if kind is None:
        return None
    masks = [path for path, match in marked.items() if match["kind"].lower() == kind]
    images = [path for path in pictures if path not in marked and not _NO_IMAGE.search(stem(path))]
    keys = [_image_case(stem(path)) for path in images]
    twice = len(keys) > len(set(keys))  # numbers that start again in each folder
    place = {path: f"{path.parent.name}_" if twice else "" for path in pictures}
    by_case: dict[str, list[Path]] = {}
    for path in masks:
        by_case.setdefault(place[path] + mask_case(stem(path)), []).append(path)
    cases, unlabelled = [], []
    for path, key in zip(images, keys, strict=True):
        mine = by_case.pop(place[path] + key, None)
        if mine is None:
            unlabelled.append(path)
        else:
            cases.append(Found(place[path] + key, path, tuple(mine), split=_split_of(path.relative_to(root))))
    if len({case.split for case in cases}) < 2:  # one split is none
        cases = [Found(case.name, case.image, case.masks) for case in cases]
    near = {case.image.parent for case in cases}
    left = [path for path in unlabelled if path.parent in near]
    return PublicLayout(tuple(cases), tuple(left), tuple(path for paths in by_case.values() for path in paths))


def _join(
    images: Iterable[Path],
    parts: dict[str | None, list[Path]],
    split: str | None = None,
    group: str = "",
    prefix: str = "",
    groups: dict[str, str] | None = None,
) -> PublicLayout:
    """Pair images with masks of equal stems, once the masks' suffix is off; every part has to be there."""
    pools: list[dict[str, Path]] = []
    for paths in parts.values():
        exact = {stem(path): path for path in paths}
        pools.append({mask_case(name): path for name, path in exact.items()} | exact)
    cases, unlabelled, used = [], [], set[Path]()
    for image in images:
        key = stem(image)
        mine = [pool[name] for pool in pools for name in (key, _image_case(key)) if name in pool]
        mine = list(dict.fromkeys(mine))
        if len(mine) < len(pools):
            unlabelled.append(image)
            continue
        used |= set(mine)
        name = key if not prefix or key.startswith(prefix) else f"{prefix}_{key}"
        cases.append(Found(name, image, tuple(mine), (groups or {}).get(key, group), split))
    orphans = tuple(path for paths in parts.values() for path in paths if path not in used)
    return PublicLayout(tuple(cases), tuple(unlabelled), orphans)


def _entries(folder: Path) -> list[Path]:
    radiographs = sorted(path for path in folder.iterdir() if is_raw_radiograph(path)) if folder.is_dir() else []
    return image_entries(folder) + radiographs


def _image_case(name: str) -> str:
    match = _OF_IMAGE.match(name)
    return match["case"] if match else name


def _split_of(path: Path) -> str | None:
    """Return the split that a folder on the way to a file names, as ISIC's do."""
    words: Iterator[str] = (word for part in path.parts[:-1] for word in re.split(r"[\W_]+", part.lower()))
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def _sequences(root: Path) -> dict[str, str]:
    """Return the video of each frame, where a ``metadata.csv`` tells it (CVC-ClinicDB)."""
    table = next((path for folder in (root, root.parent) for path in [folder / "metadata.csv"] if path.is_file()), None)
    if table is None:
        return {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"frame_id", "sequence_id"} <= set(rows[0]):
        return {}
    return {row["frame_id"]: f"sequence {row['sequence_id']}" for row in rows if row["sequence_id"]}
