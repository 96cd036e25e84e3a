"""Bring an image of any size to the working size of a data set, and a prediction back, exactly.

Forward: scale with the aspect kept (in 3D to a wanted spacing first) so that all of the image fits, then pad on both
sides. Axes stay what they are, so one factor and one padding an axis say everything, and the affine follows. Backward:
cut the padding off and scale to the size the image had; the affine it had is put back as it was stored.

Images are scaled by an antialiased linear filter, labels so that they stay labels, predictions come back linearly.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, ensure_tuple_rep
from torch import Tensor

from genseg_monai.errors import UserError
from genseg_monai.transforms.grid_fit import GridFit, GridMode, fit_grid, resize, resize_label

__all__ = ["ToWorkingGrid", "ToWorkingGridd"]


class ToWorkingGrid(InvertibleTransform):
    """Bring one image to the working grid; `inverse` brings it, or a prediction made on it, back.

    Args:
        size: the working size, one number for each spatial axis.
        spacing: the wanted spacing of each axis in mm; None leaves the spacing to the size (pictures).
        mode: `bilinear` for images, `nearest` for labels (see `resize_label` for labels that shrink).
        max_upscale: the largest enlargement without `spacing`.

    An image is padded with the smallest value of each channel (black before and after normalising), a label with 0.

    Raises:
        ValueError: size, spacing or mode mean nothing.

    Example:
        >>> grid = ToWorkingGrid((64, 64))
        >>> image = MetaTensor(torch.rand(1, 37, 91))
        >>> grid(image).shape, grid.inverse(grid(image)).shape
        (torch.Size([1, 64, 64]), torch.Size([1, 37, 91]))
    """

    def __init__(
        self,
        size: Sequence[int],
        spacing: Sequence[float] | None = None,
        mode: GridMode | str = GridMode.BILINEAR,
        max_upscale: float = 2.0,
    ) -> None:
        self.size = tuple(int(s) for s in size)
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise ValueError(f"size: wanted 2 or 3 numbers above 0, got {size}")
        if spacing is not None and (len(spacing) != len(self.size) or min(spacing) <= 0):
            raise ValueError(f"spacing: wanted {len(self.size)} numbers above 0, in mm, got {spacing}")
        if mode not in list(GridMode):
            raise ValueError(f"mode: wanted one of {', '.join(GridMode)}, got {mode!r}")
        if max_upscale <= 0:
            raise ValueError(f"max_upscale: wanted a factor above 0, got {max_upscale}")
        self.spacing = tuple(float(s) for s in spacing) if spacing is not None else None
        self.mode = GridMode(mode)
        self.max_upscale = max_upscale

    def __call__(self, image: Tensor) -> MetaTensor:
        """Return the image on the working grid.

        Args:
            image: C H W [D]; without an affine of its own, voxels of 1 mm.

        Raises:
            UserError: it has another number of axes.
        """
        known: MetaTensor = image if isinstance(image, MetaTensor) else MetaTensor(torch.as_tensor(image))
        if known.ndim != len(self.size) + 1:
            where = known.meta.get("filename_or_obj", "image")
            raise UserError(
                where, f"wanted channels and an image of {len(self.size)} axes, got shape {tuple(known.shape)}"
            )
        values, affine = known.as_tensor(), _affine(known)
        factors = None
        if self.spacing is not None:
            native = np.linalg.norm(affine[:3, : len(self.size)], axis=0)
            factors = [float(n / s) for n, s in zip(native, self.spacing, strict=True)]
        fit = fit_grid(values.shape[1:], self.size, factors, self.max_upscale)
        inner = (
            resize_label(values, fit.inner) if self.mode is GridMode.NEAREST else resize(values, fit.inner, self.mode)
        )
        out = _like(known, _padded(inner, fit, self.mode), affine @ fit.index_map())
        info = {"mode": str(self.mode), "affine": affine.tolist(), "inner": fit.inner, "before": fit.before}
        return self.push_transform(out, orig_size=fit.native, extra_info=info)

    def inverse(self, image: MetaTensor) -> MetaTensor:
        """Return it, C H W [D], on the native grid, with the native affine.

        Class probabilities come back linearly, in float32; a label, and whatever MONAI's `Invertd(nearest_interp=True)`
        brings back, by the nearest voxel.

        Raises:
            UserError: it does not have the working size.
        """
        record = self.pop_transform(image)
        info, native = record[TraceKeys.EXTRA_INFO], tuple(int(n) for n in record[TraceKeys.ORIG_SIZE])
        if tuple(image.shape[1:]) != self.size:
            where = image.meta.get("filename_or_obj", "image")
            raise UserError(where, f"wanted a prediction of the working size {self.size}, got {tuple(image.shape[1:])}")
        inside = tuple(slice(b, b + i) for b, i in zip(info["before"], info["inner"], strict=True))
        cut = image.as_tensor()[(slice(None), *inside)]
        return _like(image, resize(cut, native, info["mode"]), np.asarray(info["affine"]))


class ToWorkingGridd(MapTransform, InvertibleTransform):
    """Dictionary form of `ToWorkingGrid`.

    Args:
        keys: images and labels of one case.
        size: the working size.
        spacing: the wanted spacing of each axis in mm, or None.
        mode: `bilinear` or `nearest`, one for all keys or one for each.
        max_upscale: the largest enlargement without `spacing`.
        allow_missing_keys: leave out keys that are not there.

    Example:
        >>> grid = ToWorkingGridd(("image", "label"), (32, 32), mode=("bilinear", "nearest"))
        >>> case = grid({"image": torch.rand(3, 20, 40), "label": torch.ones(1, 20, 40)})
        >>> case["image"].shape, int(case["label"].sum())
        (torch.Size([3, 32, 32]), 512)
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int],
        spacing: Sequence[float] | None = None,
        mode: GridMode | str | Sequence[GridMode | str] = GridMode.BILINEAR,
        max_upscale: float = 2.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        modes = ensure_tuple_rep(mode, len(self.keys))
        self.grids = tuple(ToWorkingGrid(size, spacing, each, max_upscale) for each in modes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case on the working grid."""
        case = dict(data)
        for key, grid in self.key_iterator(case, self.grids):
            case[key] = grid(case[key])
        return case

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case on its native grid."""
        case = dict(data)
        for key, grid in self.key_iterator(case, self.grids):
            case[key] = grid.inverse(case[key])
        return case


def _affine(image: MetaTensor) -> np.ndarray:
    """Return the affine of an image as 4 x 4, float64."""
    given = image.affine.cpu().numpy().astype(np.float64)
    whole = np.eye(4)
    axes = len(given) - 1
    whole[:axes, :axes], whole[:axes, 3] = given[:-1, :-1], given[:-1, -1]
    return whole


def _like(image: MetaTensor, values: Tensor, affine: np.ndarray) -> MetaTensor:
    """Return new values that know what the image knows, save for the affine."""
    out = MetaTensor(values, meta=image.meta, applied_operations=image.applied_operations)
    out.affine = torch.from_numpy(affine)
    return out


def _padded(inner: Tensor, fit: GridFit, mode: GridMode) -> Tensor:
    """Return the image in the middle of the working grid."""
    out = inner.new_zeros((len(inner), *fit.size))
    if mode is GridMode.BILINEAR:
        out += rearrange(inner, "C ... -> C (...)").amin(1).reshape(-1, *[1] * len(fit.size))
    inside = tuple(slice(b, b + i) for b, i in zip(fit.before, fit.inner, strict=True))
    out[(slice(None), *inside)] = inner
    return out
