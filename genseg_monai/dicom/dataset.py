"""A data set in the layout of the Medical Segmentation Decathlon, written so that the same input gives the same bytes.

`imagesTr` and `labelsTr` hold the labelled cases, `imagesTs` the others; `dataset.json`, `cases.csv` and
`manifest.json` tell what there is. Every name is a pseudonym.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

from genseg_monai.dicom.output import gzip_bytes, write_atomic, write_json
from genseg_monai.errors import UserError

__all__ = ["load_labels", "write_index", "write_volume"]


def load_labels(path: Path | str) -> dict[str, int]:
    """Read `labels.yaml`: names of segments and regions -> class number; several names may have one class.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    try:
        found = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(path, f"wanted a readable YAML file, got {type(error).__name__}; correct the file") from None
    fits = isinstance(found, Mapping) and found and all(_is_class(number) for number in found.values())
    if not fits:
        raise UserError(
            path, "wanted names with class numbers from 1 to 255, got something else; write {liver: 1, tumour: 2}"
        )
    return {str(name): number for name, number in found.items()}


def _is_class(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 255


def write_volume(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write a NIfTI file, compressed, without any text and time stamp.

    Args:
        path: the file, `*.nii.gz`.
        array: (X, Y, Z).
        affine: (4, 4), voxel to RAS millimetres.
    """
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    write_atomic(path, gzip_bytes(image.to_bytes()))


def write_index(
    out: Path, cases: Iterable[Mapping[str, Any]], labels: Mapping[str, int], manifest: dict[str, Any]
) -> None:
    """Write `dataset.json`, `cases.csv` and `manifest.json`.

    Args:
        out: the data set.
        cases: with `id`, `group`, `modality`, and whether it has a `label`.
        labels: name -> class.
        manifest: what else the manifest tells.
    """
    cases = sorted(cases, key=lambda case: case["id"])
    training = [case["id"] for case in cases if case["label"]]
    test = [case["id"] for case in cases if not case["label"]]
    classes: dict[int, list[str]] = {0: ["background"]}
    for name, number in sorted(labels.items()):
        classes.setdefault(number, []).append(name)
    modalities = Counter(case["modality"] for case in cases)
    common = min(modalities, key=lambda name: (-modalities[name], name)) if modalities else ""
    write_json(
        out / "dataset.json",
        {
            "name": "GenSeg",
            "tensorImageSize": "3D",
            "modality": {"0": common},
            "labels": {str(number): "/".join(names) for number, names in sorted(classes.items())},
            "numTraining": len(training),
            "numTest": len(test),
            "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in training],
            "test": [f"./imagesTs/{case}.nii.gz" for case in test],
        },
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "group", "image", "label"))
    for case in cases:
        name = f"{case['id']}.nii.gz"
        places = (f"imagesTr/{name}", f"labelsTr/{name}") if case["label"] else (f"imagesTs/{name}", "")
        writer.writerow((case["id"], case["group"], *places))
    write_atomic(out / "cases.csv", text.getvalue().encode())
    write_json(out / "manifest.json", manifest)
