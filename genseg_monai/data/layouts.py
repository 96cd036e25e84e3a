"""The layouts a data set may have: which image belongs to which label, and what belongs to nothing.

A layout is read from the names of its files alone; no image is opened.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genseg_monai.data.paths import image_entries, stem
from genseg_monai.data.public_layouts import mask_case, read_public_layout
from genseg_monai.errors import UserError

__all__ = ["Listing", "read_json", "read_layout"]

logger = logging.getLogger(__name__)

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")  # nnU-Net: CASE_0000, CASE_0001, ...
_SECTIONS = {"training": None, "train": "train", "validation": "val", "val": "val", "testing": "test", "test": "test"}
_LABEL_FOLDERS = ("masks", "labels")
_WANTED = (
    "wanted images/ with masks/ or labels/, imagesTr/ with labelsTr/, dataset.json, cases.csv or a datalist .json, "
)


@dataclass
class Listing:
    """What a data set holds.

    Attributes:
        cases: dictionaries with `image`, `label`, `case`, `group` and, where the layout names it, `split`.
        unlabelled: images without a label.
        orphans: labels without an image, and files that are listed but not there.
    """

    cases: list[dict[str, Any]] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)
    orphans: list[Path] = field(default_factory=list)

    def add(
        self,
        image: Path | list[Path],
        label: Path | list[Path],
        name: str,
        split: str | None = None,
        group: str = "",
    ) -> None:
        """Take a pair in, or what is missing of it into `orphans`; several masks make one label together."""
        paths = image if isinstance(image, list) else [image]
        masks = label if isinstance(label, list) else [label]
        missing = [path for path in (*paths, *masks) if not path.exists()]
        if missing:
            self.orphans += missing
            return
        shown: str | list[str] = [str(path) for path in paths] if isinstance(image, list) else str(image)
        marked: str | list[str] = [str(path) for path in masks] if len(masks) > 1 else str(masks[0])
        case: dict[str, Any] = {"image": shown, "label": marked, "case": name, "group": group or name}
        if split:
            case["split"] = split
        self.cases.append(case)


def read_layout(root: Path, label_dir: str | None = None) -> Listing:
    """Find out the layout of a folder or datalist file and list what it holds.

    Args:
        root: an absolute path.
        label_dir: name of the folder of labels, where it is not `masks`, `labels` or `labelsTr`.

    Raises:
        UserError: it is no known layout, or a list in it cannot be read.
    """
    if root.is_file() and root.suffix.lower() == ".json":
        return _listed(root, read_json(root))
    if not root.is_dir():
        raise UserError(root, f"{_WANTED}got {'another file' if root.exists() else 'nothing there'}; correct the path")
    listing = _folder(root, label_dir)
    table = root / "cases.csv"
    return _tabled(table, listing) if table.is_file() else listing


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(path, f"wanted JSON, it cannot be read ({error}); mend or remove the file") from error


def _folder(root: Path, label_dir: str | None) -> Listing:
    described = root / "dataset.json"
    if described.is_file() and label_dir is None:
        description = read_json(described)
        if isinstance(description, dict) and isinstance(description.get("training"), list):
            return _listed(described, description)
    if (root / "imagesTr").is_dir():
        listing = Listing()
        _pair(listing, root / "imagesTr", root / (label_dir or "labelsTr"), channels=True)
        if label_dir is None and (root / "imagesTs").is_dir() and (root / "labelsTs").is_dir():
            _pair(listing, root / "imagesTs", root / "labelsTs", channels=True, split="test")
        return listing
    if (root / "images").is_dir():
        names = [label_dir] if label_dir else [name for name in _LABEL_FOLDERS if (root / name).is_dir()]
        if not names or not (root / names[0]).is_dir():
            wanted = label_dir or " or ".join(f"{name}/" for name in _LABEL_FOLDERS)
            raise UserError(
                root, f"wanted the folder {wanted} beside images/, it is not there; add it or give label_dir"
            )
        listing = Listing()
        _pair(listing, root / "images", root / names[0])
        return listing
    if (root / "cases.csv").is_file():
        return Listing()
    if label_dir is None and (public := read_public_layout(root)) is not None:
        listing = Listing(unlabelled=list(public.unlabelled), orphans=list(public.orphans))
        for case in public.cases:
            listing.add(case.image, list(case.masks), case.name, case.split, case.group)
        return listing
    found = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))[:5]
    raise UserError(root, f"{_WANTED}got {', '.join(found) or 'an empty folder'}; arrange the files so")


def _pair(listing: Listing, images: Path, labels: Path, *, channels: bool = False, split: str | None = None) -> None:
    """Pair the entries of two folders by equal stems."""
    pictures: dict[str, list[Path]] = {}
    for entry in image_entries(images):
        match = _CHANNEL.match(stem(entry)) if channels else None
        pictures.setdefault(match["case"] if match else stem(entry), []).append(entry)
    masks: dict[str, Path] = {}
    for entry in image_entries(labels):
        if stem(entry) in masks:
            raise UserError(entry, f"wanted one label a case, got {masks[stem(entry)].name} too; remove one of them")
        masks[stem(entry)] = entry
    if not channels:  # masks named after their image with a suffix, such as _mask or _segmentation
        for name in set(masks) - set(pictures):
            if (case := mask_case(name)) in pictures and case not in masks:
                masks[case] = masks.pop(name)
    for name, paths in pictures.items():
        many = [path for path in paths if channels and _CHANNEL.match(stem(path))]
        if len(paths) > 1 and len(many) < len(paths):
            raise UserError(paths[0], f"wanted one image a case, got {paths[1].name} too; remove one of them")
        if name in masks:
            listing.add(paths if len(paths) > 1 else paths[0], masks[name], name, split)
        else:
            listing.unlabelled += paths
    listing.orphans += [path for name, path in masks.items() if name not in pictures]


def _listed(path: Path, description: Any) -> Listing:
    """Read the lists of a Decathlon ``dataset.json`` or of a MONAI datalist."""
    if not isinstance(description, dict) or not any(isinstance(description.get(key), list) for key in _SECTIONS):
        raise UserError(path, 'wanted {"training": [{"image": ..., "label": ...}, ...]}, got other JSON; add this list')
    listing = Listing()
    for section, split in _SECTIONS.items():
        for number, entry in enumerate(description.get(section) or []):
            if isinstance(entry, str):
                entry = {"image": entry}
            if not isinstance(entry, Mapping) or not entry.get("image"):
                raise UserError(
                    path, f'wanted {{"image": ..., "label": ...}} as {section}[{number}], got {entry!r}; mend it'
                )
            _add_entry(listing, path.parent, entry, split)
    return listing


def _add_entry(listing: Listing, base: Path, entry: Mapping[str, Any], split: str | None) -> None:
    raw = entry["image"]
    image: Path | list[Path] = [base / p for p in raw] if isinstance(raw, list) else _channel_files(base / raw)
    first = image[0] if isinstance(image, list) else image
    match = _CHANNEL.match(stem(first)) if isinstance(image, list) else None
    name = str(entry.get("case") or (match["case"] if match else stem(first)))
    group = str(entry.get("group") or entry.get("patient") or entry.get("subject") or name)
    if entry.get("label"):
        listing.add(_normal(image), _normal(base / entry["label"]), name, split or entry.get("split"), group)
    else:
        listing.unlabelled += image if isinstance(image, list) else [image]


def _normal(path: Any) -> Any:
    """Drop the ``./`` Decathlon writes, without following links."""
    return [_normal(p) for p in path] if isinstance(path, list) else Path(os.path.normpath(path))


def _channel_files(path: Path) -> Path | list[Path]:
    """Return the channel files of an image listed without its channel number, as nnU-Net's first version did."""
    if path.exists():
        return path
    suffix = path.name[len(stem(path)) :]
    found = sorted(path.parent.glob(f"{stem(path)}_[0-9][0-9][0-9][0-9]{suffix}"))
    return found[0] if len(found) == 1 else found or path


def _tabled(table: Path, listing: Listing) -> Listing:
    """Let ``cases.csv`` (case, group, image, label) name groups, and list the cases if it names their files."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(table, f"wanted a CSV table in UTF-8, it cannot be read ({error}); save it again") from error
    if not rows or "case" not in rows[0]:
        raise UserError(
            table, "wanted the columns case,group[,image,label] with a row a case, got none; write its head line"
        )
    if rows[0].get("image"):
        listed = Listing()
        for row in rows:
            if not row.get("label"):
                listed.unlabelled.append(table.parent / (row.get("image") or ""))
                continue
            image = table.parent / (row.get("image") or "")
            listed.add(image, table.parent / row["label"], row["case"], row.get("split"), row.get("group") or "")
        return listed
    groups = {row["case"]: row["group"] for row in rows if row.get("group")}
    _warn_unknown(table, groups, {case["case"] for case in listing.cases})
    for case in listing.cases:
        case["group"] = groups.get(case["case"], case["group"])
    return listing


def _warn_unknown(table: Path, named: Iterable[str], known: set[str]) -> None:
    unknown = sorted(set(named) - known)
    if unknown:
        logger.warning("%s names %d cases that have no labelled image", table.name, len(unknown))
