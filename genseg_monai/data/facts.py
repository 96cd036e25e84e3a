"""Look at each case once and keep what the fingerprint, the plan and the faults are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from torch import Tensor
from tqdm import tqdm

from genseg_monai.data.read import CaseReader, LabelReader
from genseg_monai.errors import UserError

__all__ = ["CaseFacts", "look_at", "look_at_all"]

_SAMPLE = 20_000  # intensities kept of an image: a percentile of them is good to a fraction of a percent
_MOST_VALUES = 512  # distinct label values kept: no label has more
_SAME_PLACE = 1e-2  # mm and direction: labels are often written again by tools that round


@dataclass(frozen=True)
class CaseFacts:
    """What was seen in one case.

    Attributes:
        case: its name; `image` and `label`: the first path of each.
        size: spatial size of the image, C left out.
        channels: of the image.
        dtype: the type the intensities are stored in.
        affine: 4 x 4, RAS, mm; the unit matrix for pictures.
        modality: as the file says (DICOM), else empty.
        intensities: an even sample of the finite ones, all channels.
        bounds: the lowest and highest finite intensity.
        foreground: a sample of those where the label is not its lowest value.
        label_size: spatial size of the label; empty without label.
        label_affine: of the label.
        same_place: whether image and label lie at the same place in space.
        values: label value -> voxels.
        lossy: whether the label is stored in a format that changes values (JPEG).
        digest: of the pixels: equal for equal images.
        errors: messages of what could not be read.
    """

    case: str
    image: str
    label: str = ""
    size: tuple[int, ...] = ()
    channels: int = 0
    dtype: str = ""
    affine: npt.NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    modality: str = ""
    intensities: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    bounds: tuple[float, float] = (0.0, 0.0)
    foreground: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    label_size: tuple[int, ...] = ()
    label_affine: npt.NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    same_place: bool = True
    values: Mapping[float, int] = field(default_factory=dict)
    lossy: bool = False
    digest: str = ""
    errors: tuple[UserError, ...] = ()

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres between voxels on each axis; pixels of a picture measure 1."""
        lengths = np.sqrt((self.affine[:3, :3] ** 2).sum(0))
        return tuple(float(v) for v in lengths[: len(self.size)])

    @property
    def ras_size(self) -> tuple[int, ...]:
        """The size of a volume with its axes in the order right, front, head; of a picture as it is."""
        return tuple(self.size[axis] for axis in self._ras_axes())

    @property
    def ras_spacing(self) -> tuple[float, ...]:
        """The spacing in the order of `ras_size`."""
        return tuple(self.spacing[axis] for axis in self._ras_axes())

    def _ras_axes(self) -> list[int]:
        if len(self.size) != 3:
            return list(range(len(self.size)))
        order = nibabel.io_orientation(self.affine)[:, 0]  # type: ignore[no-untyped-call]
        return [int(np.flatnonzero(order == world)[0]) for world in range(3)]

    @property
    def is_picture(self) -> bool:
        """Whether it is a photograph or the like: two axes and no place in space."""
        return len(self.size) == 2 and bool((self.affine == np.eye(4)).all())


def look_at_all(cases: Iterable[Mapping[str, Any]], *, description: str = "looking at cases") -> list[CaseFacts]:
    """Look at every case, with progress and time left on a terminal."""
    return [look_at(case) for case in tqdm(list(cases), desc=description, disable=None, leave=False)]


def look_at(case: Mapping[str, Any]) -> CaseFacts:
    """Read the image and, if it has one, the label of a case. What cannot be read ends up in `errors`.

    Args:
        case: a dictionary with `image` and perhaps `label` and `case`; paths, or arrays C H W [D].
    """
    image = case["image"]
    first = _name(image[0] if isinstance(image, list | tuple) else image)
    facts: dict[str, Any] = {"case": str(case.get("case", first)), "image": first}
    errors: list[UserError] = []
    array: npt.NDArray[Any] | None = None
    reader, label_reader = CaseReader(), LabelReader()
    try:
        array, meta = _read(reader, image)
    except UserError as error:
        errors.append(error)
    else:
        facts |= _of_image(array, meta)
    if case.get("label") is not None:
        facts["label"] = _name(case["label"])
        facts["lossy"] = facts["label"].lower().endswith((".jpg", ".jpeg"))
        try:
            label, label_meta = _read(label_reader, case["label"])
        except UserError as error:
            errors.append(error)
        else:
            facts |= _of_label(label)
            facts["label_affine"] = label_meta["affine"]
            if array is not None:
                near = np.allclose(label_meta["affine"], facts["affine"], atol=_SAME_PLACE)
                pictures = (np.asarray(facts["affine"]) == np.eye(4)).all() or (label_meta["affine"] == np.eye(4)).all()
                facts["same_place"] = bool(near or pictures and array.ndim == 3)
                if array.shape[1:] == label.shape[1:]:
                    facts["foreground"] = _sample(array[:, label[0] != label.min()])
    return CaseFacts(**facts, errors=tuple(errors))


def _read(reader: CaseReader, value: Any) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Read a file; an array in memory is as it is, with the affine it knows."""
    if isinstance(value, np.ndarray | Tensor):
        return np.asarray(value), {"affine": np.asarray(getattr(value, "affine", np.eye(4)), dtype=np.float64)}
    return reader.get_data(reader.read(value))


def _name(value: Any) -> str:
    if isinstance(value, list | tuple):
        return _name(value[0])
    return "array" if isinstance(value, np.ndarray | Tensor) else str(value)


def _of_image(array: npt.NDArray[Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    sample = _sample(array)
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    digest = hashlib.blake2b(array.tobytes(), digest_size=16, person=str(array.shape).encode()[:16])
    return {
        "size": tuple(array.shape[1:]),
        "channels": array.shape[0],
        "dtype": str(array.dtype),
        "affine": np.asarray(meta["affine"], dtype=np.float64),
        "modality": str(meta.get("modality") or ""),
        "intensities": sample,
        "bounds": (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0),
        "digest": digest.hexdigest(),
    }


def _of_label(label: npt.NDArray[Any]) -> dict[str, Any]:
    found, counts = np.unique(label, return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
    values = {float(found[i]): int(counts[i]) for i in sorted(kept)}
    return {"label_size": tuple(label.shape[1:]), "values": values}


def _sample(array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return at most `_SAMPLE` finite values, evenly spread; a step prime to the sizes does not follow the rows."""
    flat = np.asarray(array).ravel()
    step = flat.size // _SAMPLE + 1
    values = flat[:: step + (step > 1 and step % 2 == 0)].astype(np.float64)
    return np.asarray(values[np.isfinite(values)])
