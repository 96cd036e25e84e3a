"""Pictures of cases as data URIs: images, masks and outlines of masks, small enough to put many into one page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from scipy import ndimage
from torch import Tensor

__all__ = ["data_uri", "mask_tile", "outlined", "plane", "tile"]

TRUTH, FOUND = (86, 180, 233), (230, 159, 0)
"""Sky blue and orange of Okabe and Ito (2008): told apart by people of any colour vision, and on grey."""
CLASSES = np.array([(0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167)])
"""Black for the background, then one colour a class; further classes go round."""

_SIDE = 256  # pixels of the longer side of a picture


def plane(volume: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Return what a page can show: a picture as it is, of a volume the axial plane with most of a mask.

    Args:
        volume: C H W, or C X Y Z.
        mask: H W, or X Y Z; of a volume without one the middle plane is shown.

    Returns:
        C H W; of a volume rows run from front to back.

    Example:
        >>> plane(np.zeros((1, 4, 6, 3))).shape
        (1, 6, 4)
    """
    if volume.ndim == 3:
        return volume
    z = volume.shape[-1] // 2 if mask is None or not mask.any() else int((mask > 0).sum((0, 1)).argmax())
    return np.ascontiguousarray(volume[..., z].swapaxes(-1, -2)[..., ::-1, :])


def tile(image: Tensor | np.ndarray, side: int = _SIDE) -> np.ndarray:
    """Return an image C H W in [0, 1] as H W 3, uint8, its longer side as wanted."""
    array = np.asarray(image, dtype=np.float32)
    array = array if len(array) == 3 else np.repeat(array[:1], 3, axis=0)
    pixels = np.rint(np.moveaxis(array, 0, -1).clip(0, 1) * 255).astype(np.uint8)
    return _scaled(pixels, side, Image.Resampling.BICUBIC)


def mask_tile(mask: Tensor | np.ndarray, side: int = _SIDE) -> np.ndarray:
    """Return class indices H W as H W 3, uint8, a colour a class."""
    indices = np.asarray(mask).astype(np.int64)
    colours = CLASSES[1:][(indices - 1) % (len(CLASSES) - 1)] * (indices > 0)[..., None]
    return _scaled(colours.astype(np.uint8), side, Image.Resampling.NEAREST)


def outlined(image: np.ndarray, truth: np.ndarray, found: np.ndarray, side: int = _SIDE) -> np.ndarray:
    """Return an image with the outlines of two masks: the true one blue and solid, the found one orange and dashed.

    Args:
        image: C H W in [0, 1].
        truth: H W, class indices.
        found: likewise.
        side: of the picture in pixels.
    """
    pixels = tile(image, side)
    height, width = pixels.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    for mask, colour, dashed in ((truth, TRUTH, False), (found, FOUND, True)):
        big = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST))
        line = np.zeros((height, width), dtype=bool)
        for index in np.unique(big[big > 0]):
            inside = big == index
            line |= inside & ~ndimage.binary_erosion(inside, iterations=2, border_value=1)
        if dashed:
            line &= (rows + columns) % 10 < 7
        pixels[ndimage.binary_dilation(line) & ~line] = pixels[ndimage.binary_dilation(line) & ~line] // 3
        pixels[line] = colour
    return pixels


def data_uri(pixels: np.ndarray) -> str:
    """Return a picture H W 3 as a data URI: JPEG for photographs, PNG where few colours make it smaller."""
    picture = Image.fromarray(pixels)
    best = b""
    for kind, options in (("PNG", {"optimize": True}), ("JPEG", {"quality": 88})):
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        if not best or len(stream.getvalue()) < 0.6 * len(best):  # PNG loses nothing: JPEG has to earn its place
            best, name = stream.getvalue(), kind.lower()
    return f"data:image/{name};base64,{base64.b64encode(best).decode('ascii')}"


def _scaled(pixels: np.ndarray, side: int, how: Image.Resampling) -> np.ndarray:
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = factor < 1 and how is not Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS if small else how)).copy()
