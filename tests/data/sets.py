"""Small data sets in every layout, for the tests to read and to break."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

PALETTE = [0, 0, 0, 200, 10, 10, 10, 200, 10] + [0] * 759


def picture(path: Path, array: Any) -> Path:
    """Save an array as a picture; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def volume(path: Path, array: Any, affine: Any = None) -> Path:
    """Save an array as NIfTI; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(np.asarray(array), np.eye(4) if affine is None else np.asarray(affine)).to_filename(path)
    return path


def pictures(root: Path, count: int = 6, *, masks: str = "masks", size: tuple[int, int] = (20, 24)) -> Path:
    """Draw ``images/`` and masks of 0 and 255; no two images are equal."""
    random = np.random.default_rng(0)
    for i in range(count):
        picture(root / "images" / f"c{i}.png", random.integers(0, 256, size, dtype=np.uint8))
        mask = np.zeros(size, np.uint8)
        mask[4:9, 5 : 8 + i] = 255
        picture(root / masks / f"c{i}.png", mask)
    return root


def volumes(root: Path, count: int = 5, *, affine: Any = None, listed: bool = True, channels: int = 0) -> Path:
    """Draw the Decathlon layout, or nnU-Net's with ``channels`` files an image."""
    random = np.random.default_rng(0)
    affine = np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine
    names = [f"v{i}" for i in range(count)]
    for name in names:
        label = np.zeros((10, 12, 8), np.uint8)
        label[2:5, 3:6, 2:4], label[6:8, 3:6, 2:4] = 1, 2
        volume(root / "labelsTr" / f"{name}.nii.gz", label, affine)
        for suffix in [f"_{c:04d}" for c in range(channels)] or [""]:
            volume(
                root / "imagesTr" / f"{name}{suffix}.nii.gz", random.normal(size=(10, 12, 8)).astype(np.float32), affine
            )
    if listed:
        pairs = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names]
        content = {
            "modality": {"0": "MRI"},
            "labels": {"0": "background", "1": "liver", "2": "tumour"},
            "training": pairs,
        }
        (root / "dataset.json").write_text(json.dumps(content))
    return root


def splits(root: Path, **parts: list[str]) -> Path:
    """Write ``splits.json``."""
    (root / "splits.json").write_text(json.dumps(parts))
    return root
