"""A MONAI image reader for DICOM series that refuses what it cannot read rightly.

MONAI's own readers accept tilted, incomplete and mixed series without a word (see `series`). Use it as
``LoadImaged(keys="image", reader=SeriesReader, ensure_channel_first=True)``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from monai.config.type_definitions import PathLike
from monai.data.image_reader import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from genseg_monai.dicom.series import Gaps, SeriesFiles, Tilt, read_series

__all__ = ["SeriesReader"]

_LINE = 16  # values of a cache line
Source = SeriesFiles | tuple[Path, ...]


class SeriesReader(ImageReader):
    """Read DICOM folders, files or lists of files of one series as `X Y Z` arrays with an RAS affine.

    Args:
        tilt: what to do with a tilted gantry: refuse, shear, resample.
        gaps: what to do with one missing slice: refuse, fill.

    Example:
        >>> from monai.transforms import LoadImage
        >>> load = LoadImage(reader=SeriesReader, image_only=True)
    """

    def __init__(self, tilt: Tilt | str = Tilt.REFUSE, gaps: Gaps | str = Gaps.REFUSE) -> None:
        super().__init__()
        self.tilt, self.gaps = Tilt(tilt), Gaps(gaps)

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Take any folder, and files that end in .dcm or in nothing; headers decide later."""
        names = [filename] if isinstance(filename, str | Path) else list(filename)
        return all(Path(name).is_dir() or Path(name).suffix.lower() in ("", ".dcm", ".ima") for name in names)

    def read(self, data: Sequence[PathLike] | PathLike | SeriesFiles, **kwargs: Any) -> Source:
        """Return what to read; nothing is opened.

        MONAI's ``LoadImage`` tries its own readers when this one raises here, and those accept what was just refused.
        """
        return data if isinstance(data, SeriesFiles) else tuple(Path(path) for path in ensure_tuple(data))

    def get_data(self, img: Source) -> tuple[np.ndarray, dict[str, Any]]:
        """Read one series.

        Args:
            img: what `read` returned.

        Returns:
            The float32 array (X, Y, Z) and its metadata.

        Raises:
            SeriesError: with the reason why it is not read.
        """
        source = img[0] if isinstance(img, tuple) and len(img) == 1 else img
        series = read_series(source, tilt=self.tilt, gaps=self.gaps)
        meta = {
            MetaKeys.AFFINE: series.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: series.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(series.array.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
            "modality": series.modality,
        }
        return _contiguous(series.array), meta


def _contiguous(array: np.ndarray) -> np.ndarray:
    """Return X Y Z in C order as float32; MONAI would make that of it anyway, but four times slower.

    The values along Z lie whole slices apart, often a power of two of bytes, where all of them compete for one place
    in the cache. So each plane of constant Y is gathered first, into rows that are a cache line longer than X.
    """
    out = np.empty(array.shape, np.float32)
    wide, high, deep = array.shape
    count = min(4, os.cpu_count() or 1)

    def copy(part: int) -> None:
        plane = np.empty((deep, wide + _LINE), np.float32)[:, :wide]
        for y in range(part, high, count):
            plane[:] = array[:, y].T
            out[:, y] = plane.T

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(copy, range(count)))
    return out
