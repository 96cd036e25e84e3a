"""A MONAI image reader for DICOM series that refuses what it cannot read rightly.

MONAI's own readers accept tilted, incomplete and mixed series without a word (see `series`). Use it as
``LoadImaged(keys="image", reader=SeriesReader, ensure_channel_first=True)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config.type_definitions import PathLike
from monai.data.image_reader import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys

from genseg_monai.dicom.series import Gaps, Series, SeriesFiles, Tilt, read_series

__all__ = ["SeriesReader"]


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

    def read(self, data: Sequence[PathLike] | PathLike | SeriesFiles, **kwargs: Any) -> Series:
        """Read one series.

        Raises:
            SeriesError: with the reason why it is not read.
        """
        source: Any = data
        if isinstance(source, list | tuple) and len(source) == 1:
            source = source[0]
        return read_series(source, tilt=self.tilt, gaps=self.gaps)

    def get_data(self, img: Series) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the float32 array (X, Y, Z) and its metadata."""
        meta = {
            MetaKeys.AFFINE: img.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: img.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(img.array.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
            "modality": img.modality,
        }
        return img.array.astype(np.float32), meta
