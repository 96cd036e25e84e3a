"""Write predictions on DICOM series as DICOM SEG, at the end of a bundle's postprocessing."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from monai.config import KeysCollection
from monai.transforms import MapTransform

from genseg_monai.data.paths import is_dicom, is_series
from genseg_monai.dicom.codes import load_codes
from genseg_monai.dicom.scan import scan_folder
from genseg_monai.dicom.segmentation import missing_uids, write_seg
from genseg_monai.dicom.series import read_series
from genseg_monai.errors import UserError
from genseg_monai.metrics.calibration import temper
from genseg_monai.transforms.save import file_name

__all__ = ["SaveSegd", "SegKind", "check_series"]


class SegKind(StrEnum):
    """What a DICOM SEG holds."""

    BINARY = "binary"
    """The most probable class of each voxel; what every viewer reads."""
    FRACTIONAL = "fractional"
    """The probability of each class, in steps of 1/255."""


class SaveSegd(MapTransform):
    """Write `STEM.dcm`, a DICOM SEG that refers to the series the image was read from.

    STEM is the name of the case, as for `SaveMaskd`. The file names the patient and study of its series, for it has to
    find its way back to them.

    Args:
        keys: probabilities on the grid of the image, K X Y Z, or K H W for a single image as `CaseReader` reads it; or,
            for a binary SEG, class indices with K of 1.
        output_dir: folder to write to.
        cases: the images, as `find_images` returns them; each has to be a DICOM series.
        classes: names, the background first.
        kind: binary or fractional.
        codes: what the classes mean, as `load_codes` takes it; None for the built-in codes.
        overwrite: whether a file of an earlier run may be replaced; an image never is.
        temperature: that makes the probabilities honest, see `genseg_monai.metrics.calibration`; 1 leaves them.

    Raises:
        UserError: a case is no DICOM series, or has no UIDs to refer to; told before anything is predicted.

    Example:
        >>> SaveSegd("pred", "masks", cases=[], classes=["background", "liver"]).kind
        <SegKind.BINARY: 'binary'>
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike[str],
        cases: Iterable[Mapping[str, Any]],
        classes: Sequence[str],
        kind: SegKind | str = SegKind.BINARY,
        codes: Mapping[str, Any] | str | None = None,
        overwrite: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(keys)
        self.temperature = temperature
        if kind not in list(SegKind):
            raise UserError("dicom_seg", f"wanted {' or '.join(SegKind)}, got {kind!r}")
        self.kind = SegKind(kind)
        self.output_dir, self.classes, self.overwrite = Path(output_dir), list(classes), overwrite
        self.meanings = load_codes(codes, self.classes[1:]) if codes is not None else {}
        self.sources = {str(case["case"]): _files(case["image"]) for case in cases}
        check_series(self.sources)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write one case and return it as it came."""
        case = dict(data)
        name = str(case["case"])
        for key in self.key_iterator(case):
            series = read_series(_source(self.sources[name]))
            path = self.output_dir / f"{file_name(name)}.dcm"
            if path.exists() and any(file and os.path.samefile(path, file) for file in series.files):
                raise UserError(path, "wanted to write the SEG, an image is there; choose another output folder")
            if path.exists() and not self.overwrite:
                raise UserError(path, "wanted to write the SEG, a file is there; choose another output folder")
            fractional, classes = self.kind is SegKind.FRACTIONAL, len(case[key]) == 1
            if fractional and classes:
                raise UserError(
                    "dicom_seg", "wanted probabilities, a model of native windows gives classes; take binary"
                )
            values = _on_slices(
                temper(torch.as_tensor(case[key]), self.temperature, dim=0) if fractional else case[key]
            )
            mask = values.clip(0, 1) if fractional else (values[0] if classes else values.argmax(0)).astype(np.uint8)
            write_seg(mask, series, self.classes, path, fractional=fractional, meanings=self.meanings)
        return case


def check_series(sources: Mapping[str, Sequence[Path]]) -> None:
    """Refuse images that a DICOM SEG cannot refer to. Files that cannot be read are left to those who read them.

    Args:
        sources: case -> the folder or the files it is read from.

    Raises:
        UserError: not DICOM, or without UIDs.
    """
    others = [paths[0] for paths in sources.values() if not all(is_dicom(path) or is_series(path) for path in paths)]
    if others:
        more = f" and {len(others) - 1} more that are none" if len(others) > 1 else ""
        raise UserError(
            others[0], f"wanted a DICOM series to write a DICOM SEG for, got another kind of image{more}; "
            "leave out --dicom-seg, or give the series"
        )  # fmt: skip
    for paths in sources.values():
        whole = len(paths) == 1 and paths[0].is_dir()
        for series in scan_folder(paths[0] if whole else paths[0].parent, None if whole else paths).series:
            if lacking := missing_uids(series.headers[0].uids, series.modality):
                raise UserError(
                    paths[0], f"wanted a series that a DICOM SEG can refer to, it has no {' and no '.join(lacking)} "
                    "UID; leave out --dicom-seg"
                )  # fmt: skip


def _files(image: str | Sequence[str]) -> list[Path]:
    return [Path(image)] if isinstance(image, str) else [Path(path) for path in image]


def _source(paths: Sequence[Path]) -> Path | list[Path]:
    return paths[0] if len(paths) == 1 else list(paths)


def _on_slices(values: Any) -> np.ndarray:
    """Return probabilities as K X Y Z, float32."""
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float32)
    return rearrange(array, "K H W -> K W H 1") if array.ndim == 3 else array
