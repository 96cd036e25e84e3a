"""Read any image or label of a case: pictures, NIfTI volumes, DICOM series, one file a channel.

Pictures keep their rows and columns ``(H, W)`` (MONAI's own reader swaps them); a photograph turned by its camera's
EXIF tag is turned back, as every viewer shows it and every mask is drawn. Volumes keep the axes as stored and their
affine, millimetres in RAS. A last axis of one voxel is dropped: such a volume is a picture; a single DICOM image has
its rows and columns in the order of pictures. Colours of 16 bit are read with 8, as Pillow does.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from einops import rearrange
from monai.data.image_reader import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from PIL import Image, ImageOps

from genseg_monai.data.paths import is_dicom, is_nifti, is_picture, is_raw_radiograph
from genseg_monai.errors import UserError
from genseg_monai.transforms.one_channel import LUMINANCE

__all__ = ["CaseReader", "LabelReader"]

_Array = npt.NDArray[Any]
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_SAME_GRID = 1e-3  # mm: affines of channels that differ less are the same grid


class CaseReader(ImageReader):
    """Reader for MONAI's ``LoadImaged`` that knows every kind of image a case may have.

    Args:
        channels: turn pictures into this many channels: 1 takes the luminance of colours, 3 repeats grey. None leaves
            grey and colour as they are.

    Nothing is opened by `read`: MONAI would go on to try its other readers and hide why a file was refused. The file is
    opened by `get_data`, which raises `UserError` with the file, what was wanted, what came and what to do.

    Example:
        >>> import numpy as np, tempfile
        >>> from monai.transforms import LoadImage
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/photo.png"
        >>> Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
        >>> tuple(LoadImage(reader=CaseReader(), image_only=True, ensure_channel_first=True)(path).shape)
        (3, 4, 6)
    """

    def __init__(self, channels: int | None = None) -> None:
        if channels is not None and channels < 1:
            raise ValueError(f"channels: wanted 1 or more, got {channels}")
        self.channels = channels

    def verify_suffix(self, filename: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> bool:
        """Return whether every path is a kind of image read here."""
        return all(_is_known(p) for p in ensure_tuple(filename))

    def read(self, data: Sequence[str | os.PathLike[str]] | str | os.PathLike[str], **_: Any) -> tuple[Path, ...]:
        """Return the paths; `get_data` opens them."""
        return tuple(Path(path).expanduser() for path in ensure_tuple(data))

    def get_data(self, img: Sequence[Path]) -> tuple[_Array, dict[str, Any]]:
        """Read the files.

        Args:
            img: what `read` returned: a picture, a volume, the folder or the files of a DICOM series; several pictures
                or volumes are the channels of one image.

        Returns:
            The array, C H W [D], of the type it is stored in, and what MONAI wants to know about it: affine, shape,
            the axis of the channels, and ``modality`` if the file says so.

        Raises:
            UserError: a file is missing, broken, of an unknown kind, or the channels are not on one grid.
        """
        if len(img) > 1 and all(is_dicom(path) for path in img):
            array, affine, extra = _read_series(img)
        else:
            array, affine, extra = self._read_file(img[0])
            for path in img[1:]:
                other, other_affine, _ = self._read_file(path)
                if other.shape[1:] != array.shape[1:] or not np.allclose(affine, other_affine, atol=_SAME_GRID):
                    raise UserError(
                        path,
                        f"wanted the grid of the first channel, {img[0].name}: {_by(array.shape[1:])}, got "
                        f"{_by(other.shape[1:])} or another place in space; resample the channels to one grid",
                    )
                array = np.concatenate([array, other])
        meta = {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape[1:]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
            **extra,
        }
        # PyTorch takes neither the other byte order nor memory it may not write to
        return array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable), meta

    def _read_file(self, path: Path) -> tuple[_Array, _Array, dict[str, Any]]:
        """Return array C H W [D], affine 4 x 4 and what else is known."""
        if not path.exists():
            raise UserError(path, "wanted an image, there is no such file; correct the path")
        if path.is_dir() or is_dicom(path):
            return _read_series([path])
        if is_nifti(path):
            return _read_nifti(path)
        if is_raw_radiograph(path):
            return self._channelled(_read_radiograph(path), path), np.eye(4), {}
        if is_picture(path):
            return self._channelled(_read_picture(path, self._open), path), np.eye(4), {}
        raise UserError(
            path, "wanted PNG, JPEG, TIFF, BMP, NIfTI or a DICOM series, got another kind of file; convert it"
        )

    def _open(self, picture: Image.Image) -> _Array:
        """Return the pixels of an opened picture, H W or H W C."""
        if picture.mode not in _GREY_MODES and picture.mode != "RGB":
            picture = picture.convert("RGB")  # palettes, CMYK, YCbCr, an alpha channel
        return _grey(picture) if picture.mode in _GREY_MODES else np.asarray(picture)

    def _channelled(self, pixels: _Array, path: Path) -> _Array:
        """Return pixels H W [C] as C H W with the wanted number of channels."""
        array = pixels[None] if pixels.ndim == 2 else rearrange(pixels, "H W C -> C H W")
        if self.channels is None or len(array) == self.channels:
            return array
        if len(array) == 1:
            return np.repeat(array, self.channels, axis=0)
        if self.channels == 1 and len(array) == 3:
            grey = np.tensordot(LUMINANCE, array, 1)
            whole = np.issubdtype(array.dtype, np.integer)
            return (np.rint(grey) if whole else grey).astype(array.dtype)[None]
        raise UserError(path, f"wanted {self.channels} channels, got {len(array)}; convert the picture")


class LabelReader(CaseReader):
    """Reader of labels: one channel, raw values kept.

    The indices of a palette are the values; three equal channels are one; an alpha channel does not count. Several
    files are parts of one label: each voxel has its largest value. Whole numbers stored as floating point are rounded,
    as tools that resample labels leave them.

    Example:
        >>> import numpy as np, tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/mask.png"
        >>> Image.fromarray(np.full((2, 2, 3), 255, np.uint8)).save(path)
        >>> reader = LabelReader()
        >>> reader.get_data(reader.read(path))[0].tolist()
        [[[255, 255], [255, 255]]]
    """

    def __init__(self) -> None:
        super().__init__(channels=1)

    def get_data(self, img: Sequence[Path]) -> tuple[_Array, dict[str, Any]]:
        """Read a label: an array 1 H W [D] and its meta data, as `CaseReader.get_data`.

        Raises:
            UserError: besides what `CaseReader.get_data` raises: the label is coloured or has several channels.
        """
        array, meta = super().get_data(img)
        if len(array) == len(img) > 1:  # several masks of one case: what any of them marks
            array = array.max(axis=0, keepdims=True)
        if len(array) != 1:
            raise UserError(img[0], f"wanted one channel of class values, got {len(array)}; join them in one label")
        if np.issubdtype(array.dtype, np.floating):
            whole = np.rint(array)
            if np.allclose(array, whole, rtol=0, atol=1e-3):
                array = whole
        return array, meta

    def _open(self, picture: Image.Image) -> _Array:
        if picture.mode == "P":
            return np.asarray(picture)
        return super()._open(picture)

    def _channelled(self, pixels: _Array, path: Path) -> _Array:
        if pixels.ndim == 3 and not (pixels == pixels[..., :1]).all():
            raise UserError(
                path, "wanted a grey mask with one value a class, got colours; save class numbers as grey PNG"
            )
        return pixels[None] if pixels.ndim == 2 else pixels[None, ..., 0]


def _is_known(path: str | os.PathLike[str]) -> bool:
    return is_picture(path) or is_nifti(path) or Path(path).is_dir() or is_dicom(path) or is_raw_radiograph(path)


def _grey(picture: Image.Image) -> _Array:
    if picture.mode in {"LA", "La"}:
        picture = picture.convert("L")
    pixels = np.asarray(picture)
    return pixels.astype(np.uint8) * np.uint8(255) if pixels.dtype == bool else pixels  # white, as in any other picture


def _read_radiograph(path: Path) -> _Array:
    """Return a radiograph of JSRT, H W, bones bright, at half its size: that of its published masks."""
    pixels = np.fromfile(path, dtype=">u2").reshape(2048, 2048).astype(np.float32)
    halved = rearrange(pixels, "(H a) (W b) -> H W a b", a=2, b=2).mean((2, 3))
    bright: _Array = (4095 - np.rint(halved).clip(0, 4095)).astype(np.uint16)  # 12 bits, dense parts low in the file
    return bright


def _read_picture(path: Path, pixels_of: Any) -> _Array:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF blocks and of pictures above 89 megapixels
            with Image.open(path) as picture:
                frames = getattr(picture, "n_frames", 1)
                if frames > 1:
                    raise UserError(path, f"wanted one picture, got a file of {frames}; split it into files")
                array: _Array = pixels_of(ImageOps.exif_transpose(picture))
    except UserError:
        raise
    except Exception as error:  # a broken file can make a decoder fail in any way
        raise _unreadable(path, error) from error
    return array


def _read_nifti(path: Path) -> tuple[_Array, _Array, dict[str, Any]]:
    try:
        volume: Any = nibabel.load(path)
        array = np.asanyarray(volume.dataobj)
        affine = np.asarray(volume.affine, dtype=np.float64)
    except Exception as error:  # cut off, not gzip, not NIfTI: each fails in its own way
        raise _unreadable(path, error) from error
    if array.dtype.kind not in "biuf":
        raise UserError(path, f"wanted real numbers, got voxels of type {array.dtype}; convert the volume")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(path, "wanted voxels that fill space, got an affine without volume; repair the header")
    if array.ndim == 5 and array.shape[3] == 1:  # NIfTI keeps vectors in the fifth axis, the fourth is time
        array = array[:, :, :, 0]
    if array.ndim not in {2, 3, 4} or 0 in array.shape:
        raise UserError(
            path, f"wanted a volume with or without channels, got an array of {_by(array.shape)}; convert it"
        )
    array = array[None] if array.ndim < 4 else rearrange(array, "X Y Z C -> C X Y Z")
    return _flat(array), affine, {}


def _read_series(paths: Sequence[Path]) -> tuple[_Array, _Array, dict[str, Any]]:
    from genseg_monai.dicom.series import read_series  # DICOM is read only where there is some

    series = read_series(paths[0] if len(paths) == 1 and paths[0].is_dir() else list(paths))
    array, affine = series.array[None], np.asarray(series.affine, dtype=np.float64)
    if array.shape[-1] == 1:  # a radiograph: rows and columns, as the same image has them as a picture
        array, affine = rearrange(array, "C X Y Z -> C Y X Z"), affine[:, [1, 0, 2, 3]]
    return _flat(array), affine, {"modality": series.modality}


def _flat(array: _Array) -> _Array:
    """Return C X Y Z without a Z of one voxel."""
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    reason = reason.replace(str(path), path.name)
    return UserError(path, f"wanted an image, it cannot be read ({reason}); export or copy the file again")


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
