"""Bring an image of any size to the working size of a data set, and a prediction back, exactly.

Forward: scale with the aspect kept (in 3D to a wanted spacing first) so that all of the image fits, then pad on both
sides. Axes stay what they are, so one factor and one padding an axis say everything, and the affine follows. Backward:
cut the padding off and scale to the size the image had; the affine it had is put back as it was stored.

Both scalings are those of `torch.nn.functional.interpolate` with `align_corners=False`: images by a triangle filter as
wide as the step (antialiased: no lost lines in a photograph shrunk tenfold), labels by the nearest voxel, predictions
back linearly.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from einops import rearrange
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, ensure_tuple_rep
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.errors import UserError

__all__ = ["GridFit", "GridMode", "ToWorkingGrid", "ToWorkingGridd", "fit_grid", "resize"]


class GridMode(StrEnum):
    """How values between voxels are found; the names are MONAI's, `bilinear` is linear in 3D too."""

    BILINEAR = "bilinear"
    NEAREST = "nearest"


@dataclass(frozen=True)
class GridFit:
    """How an image lies in the working grid; one number for each spatial axis.

    Attributes:
        native: its size.
        inner: the size it is scaled to.
        before: voxels of padding before it.
        after: voxels of padding after it.

    Example:
        >>> GridFit(native=(100, 50), inner=(64, 32), before=(0, 16), after=(0, 16)).size
        (64, 64)
    """

    native: tuple[int, ...]
    inner: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """The working size."""
        return tuple(b + n + a for b, n, a in zip(self.before, self.inner, self.after, strict=True))

    def index_map(self) -> np.ndarray:
        """Return the map from a working voxel to the native voxel at its place, 4 x 4, float64."""
        whole = np.eye(4)
        for axis, (native, inner, before) in enumerate(zip(self.native, self.inner, self.before, strict=True)):
            step = native / inner
            whole[axis, axis] = step
            whole[axis, 3] = (0.5 - before) * step - 0.5  # centres: native + 1/2 = (working - before + 1/2) step
        return whole


def fit_grid(
    native: Sequence[int],
    size: Sequence[int],
    factors: Sequence[float] | None = None,
    max_upscale: float = 2.0,
) -> GridFit:
    """Say how an image lies in the working grid.

    Args:
        native: size of the image.
        size: working size.
        factors: scale of each axis that brings the image to the wanted spacing. Without them the image is made as
            large as fits, but not beyond `max_upscale`: there is nothing to see in a tenfold enlarged thumbnail. With
            them it is never enlarged beyond them, and shrunk with the aspect kept where it does not fit.
        max_upscale: the largest enlargement without `factors`.

    Example:
        >>> fit_grid((100, 50), (64, 64))
        GridFit(native=(100, 50), inner=(64, 32), before=(0, 16), after=(0, 16))
    """
    wished = tuple(factors) if factors is not None else (max_upscale,) * len(native)
    # one factor for all axes on top of the wish keeps the aspect
    shrink = min(1.0, *(s / (n * w) for n, s, w in zip(native, size, wished, strict=True)))
    inner = tuple(min(s, max(1, round(n * w * shrink))) for n, s, w in zip(native, size, wished, strict=True))
    before = tuple((s - i) // 2 for s, i in zip(size, inner, strict=True))
    after = tuple(s - i - b for s, i, b in zip(size, inner, before, strict=True))
    return GridFit(tuple(native), inner, before, after)


def resize(image: Tensor, size: Sequence[int], mode: GridMode | str) -> Tensor:
    """Scale an image to a size.

    Args:
        image: C H W [D].
        size: the wanted spatial size.
        mode: `bilinear` (antialiased when it shrinks) or `nearest`.

    Returns:
        C H W [D], float32 when `bilinear`, of the type it had when `nearest`.

    Example:
        >>> resize(torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]), (1, 1), "bilinear")
        tensor([[[1.5000]]])
    """
    size = tuple(size)
    if tuple(image.shape[1:]) == size:
        return image if mode == GridMode.NEAREST else image.to(torch.float32)
    if mode == GridMode.NEAREST:
        # every whole number of a label is exact in float64
        return F.interpolate(image[None].to(torch.float64), size, mode="nearest-exact")[0].to(image.dtype)
    image = image.to(torch.float32)
    if len(size) == 2:
        return _antialiased(image[None], size)[0]
    # the filter is a product over the axes: two of them in one pass, the third in a second
    planes = _antialiased(image, size[1:])
    lines = rearrange(planes, "C X Y Z -> C 1 X (Y Z)")
    lines = _antialiased(lines, (size[0], size[1] * size[2]))
    return rearrange(lines, "C 1 X (Y Z) -> C X Y Z", Y=size[1])


def _antialiased(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Scale the last two axes of a tensor of four."""
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


class ToWorkingGrid(InvertibleTransform):
    """Bring one image to the working grid; `inverse` brings it, or a prediction made on it, back.

    Args:
        size: the working size, one number for each spatial axis.
        spacing: the wanted spacing of each axis in mm; None leaves the spacing to the size (pictures).
        mode: `bilinear` for images, `nearest` for labels.
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
        inner = resize(values, fit.inner, self.mode)
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
