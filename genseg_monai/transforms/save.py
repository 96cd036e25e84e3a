"""Write predicted masks: one whole file a case, never over another."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelReader, NibabelWriter
from monai.data.utils import to_affine_nd
from monai.transforms import SaveImaged
from monai.utils import convert_to_numpy
from PIL import Image

from genseg_monai._atomic import whole_file
from genseg_monai.errors import UserError

__all__ = ["SaveMaskd", "file_name", "stem_of"]

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_VOLUMES = (".nii.gz", ".nii", ".dcm", ".mha", ".mhd", ".nrrd")
_log = logging.getLogger(__name__)


def stem_of(path: str | os.PathLike[str]) -> str:
    """Return the name of a file without the ending of an image; a folder keeps its dots.

    Example:
        >>> stem_of("scans/case_1.nii.gz"), stem_of("series/1.2.840.3")
        ('case_1', '1.2.840.3')
    """
    name = Path(path).name
    for ending in _VOLUMES + _PICTURES:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def file_name(case: str) -> str:
    """Return the name of a case with everything replaced that a file name should not have.

    Example:
        >>> file_name("a/b:c 1")
        'a_b_c 1'
    """
    return re.sub(r"[^\w.+=@ -]", "_", case)


class SaveMaskd(SaveImaged):
    """Write the predicted masks of a case, as uint8 class indices.

    A picture (PNG, JPEG, TIFF) gives `STEM.png` with rows and columns as they are; NIfTI and DICOM give `STEM.nii.gz`
    with the affine of the image. STEM is the name of the case (`case`), else that of the image file. It is a MONAI
    `SaveImaged`, so that what leaves that one out, as MONAI Label does, leaves this one out.

    Args:
        keys: the masks, 1 H W [D].
        output_dir: folder to write to.
        image_key: the image a mask belongs to; asked for its file where the mask does not know it.
        postfix: added to the stem.
        overwrite: whether a file of an earlier run may be replaced. Two images of one run never share a file, and no
            image is ever written over.
        allow_missing_keys: leave out keys that are not there.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> mask = MetaTensor(torch.ones(1, 4, 6), meta={"filename_or_obj": "photos/foot.jpg"})
        >>> _ = SaveMaskd("pred", folder)({"pred": mask})
        >>> [file.name for file in folder.iterdir()]
        ['foot.png']
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        output_dir: str | os.PathLike[str] = "./predictions",
        image_key: str = "image",
        postfix: str = "",
        overwrite: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_dir=output_dir, allow_missing_keys=allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.image_key = image_key
        self.postfix = postfix
        self.overwrite = overwrite
        self._written: dict[Path, str] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the masks and return the case as it came.

        Raises:
            UserError: the mask is none, is not on the grid of the image, or its file would replace another.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            meta = _meta_of(case, key, self.image_key)
            source = _source(meta)
            mask = self.voxels(_on_grid(case[key], source, meta), source)
            picture = source.lower().endswith(_PICTURES) and mask.ndim == 2
            path = self.output_dir / f"{self.stem(case, key)}{self.postfix}{'.png' if picture else '.nii.gz'}"
            self._claim(path, source)
            with whole_file(path) as temporary:
                if picture:
                    Image.fromarray(self.pixels(mask)).save(temporary)
                else:
                    given = case[key].affine if isinstance(case[key], MetaTensor) else meta.get("affine", np.eye(4))
                    _write_nifti(_stored(mask, source), to_affine_nd(3, convert_to_numpy(given)), temporary)
            _log.debug("wrote %s", path)
        return case

    def stem(self, case: Mapping[Hashable, Any], key: Hashable) -> str:
        """Return what the files of a case are called by."""
        return file_name(str(case.get("case") or stem_of(_source(_meta_of(case, key, self.image_key)))))

    def voxels(self, values: np.ndarray, source: str) -> np.ndarray:
        """Return what a volume holds, H W [D], of ``1 H W [D]``."""
        return _indices(values, source)

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """Return what a picture holds, H W of uint8, of `voxels`."""
        return values

    def _claim(self, path: Path, source: str) -> None:
        """Refuse a file that is another's."""
        if path in self._written:
            raise UserError(
                source,
                f"wanted a name of its own, {self._written[path]} was written to {path} before; rename one of them",
            )
        if path.exists() and os.path.realpath(path) == os.path.realpath(source):
            raise UserError(path, "wanted to write the mask, the image itself is there; choose another output folder")
        if path.exists() and not self.overwrite:
            raise UserError(
                path, "wanted to write the mask, a file is there; remove it or choose another output folder"
            )
        self._written[path] = source


def _meta_of(case: Mapping[Hashable, Any], key: Hashable, image_key: str) -> dict[str, Any]:
    """Return what the mask, or else its image, knows of its file."""
    for one in (case[key], case.get(image_key)):
        if isinstance(one, MetaTensor) and one.meta.get("filename_or_obj"):
            return dict(one.meta)
    return {}


def _source(meta: Mapping[str, Any]) -> str:
    """Return the file (the first of several channels) or folder the image was read from."""
    source = meta.get("filename_or_obj", "mask")
    return str(source if isinstance(source, str | os.PathLike) else list(source)[0])


def _on_grid(given: Any, source: str, meta: Mapping[str, Any]) -> np.ndarray:
    """Return values as they are, 1 H W [D], if they lie on the grid of the image."""
    values = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    if values.ndim not in (3, 4) or len(values) != 1:
        raise UserError(source, f"wanted a mask of one channel, 1 H W [D], got {values.shape}; take its argmax first")
    size = tuple(int(n) for n in np.atleast_1d(np.asarray(meta.get("spatial_shape", values.shape[1:]))))
    if size != values.shape[1:]:
        raise UserError(
            source, f"wanted a mask of the size of the image, {size}, got {values.shape[1:]}; invert it first"
        )
    return values


def _indices(values: np.ndarray, source: str) -> np.ndarray:
    """Return a mask 1 H W [D] as H W [D], uint8."""
    with np.errstate(invalid="ignore"):  # what is no number becomes one, and is found by the next line
        indices = values.astype(np.uint8, copy=False)
    if not np.array_equal(indices, values):
        raise UserError(source, "wanted class indices 0 to 255, got other values; take the argmax first")
    return rearrange(indices, "1 ... -> ...")


def _stored(mask: np.ndarray, source: str) -> np.ndarray:
    """Return a mask H W as H W 1, one slice in space, unless it comes from a NIfTI file of two axes."""
    if mask.ndim == 3 or (_is_nifti(source) and len(NibabelReader().read(source).shape) == 2):
        return mask
    return rearrange(mask, "H W -> H W 1")


def _is_nifti(source: str) -> bool:
    return source.lower().endswith((".nii", ".nii.gz")) and Path(source).is_file()


def _write_nifti(mask: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write a volume; its affine in both forms NIfTI has, since readers prefer one or the other."""
    volume = NibabelWriter.create_backend_obj(mask, affine=affine, dtype=mask.dtype)
    volume.set_sform(affine, code=1)
    volume.set_qform(affine, code=1)
    volume.header.set_xyzt_units("mm")
    volume.to_filename(path)
