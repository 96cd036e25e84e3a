"""From labelled cases, in files or in memory, to the supports of a network that segments by examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Orientationd
from torch import Tensor
from tqdm import tqdm

from genseg_monai._outcome import user_error
from genseg_monai.data.facts import look_at_all
from genseg_monai.data.fingerprint import take_fingerprint
from genseg_monai.data.plan import Plan, plan_from, propose_plan
from genseg_monai.data.read import CaseReader, LabelReader
from genseg_monai.errors import UserError
from genseg_monai.inferers.support_set import SupportSet
from genseg_monai.transforms.normalise import MapLabeld, Normalised
from genseg_monai.transforms.picture_channels import PictureChannelsd
from genseg_monai.transforms.planes import PlaneGrid, Seen, best_axis, plane_spacing, to_planes

__all__ = ["Supports", "apply", "case_transforms", "read_supports", "support_plan"]

_MOST_PLANES = 64  # of a volume: more of them are alike
_MOST_EMPTY = 16  # planes of a volume without a label, which show where the object is not


@dataclass(frozen=True)
class Supports:
    """The supports and how a query is brought to them.

    Attributes:
        planes: labelled planes on the grid.
        grid: of the planes.
        axis: volumes are cut along it, in RAS; None for pictures.
    """

    planes: SupportSet
    grid: PlaneGrid
    axis: int | None


def support_plan(
    cases: Sequence[Mapping[str, Any]],
    label_values: Mapping[int, int] | None = None,
    modality: str | None = None,
    *,
    colour: bool = True,
) -> Plan:
    """Say how images are normalised and what the label values mean, from the supports.

    Args:
        cases: with `image` and `label`: paths, or arrays C H W [D] and 1 H W [D].
        label_values: raw value -> class index, where it is not plain from the labels.
        modality: ``CT``, ``MR`` or another; as the files say, or told by the intensities, if None.
        colour: whether pictures in colour keep it; else they turn grey.

    Returns:
        A plan of one channel, or of three where there are pictures in colour.

    Raises:
        UserError: cases cannot be read or do not belong together.
    """
    if not any(isinstance(case["label"], np.ndarray | Tensor) for case in cases):
        plan = propose_plan(cases, label_values=label_values, modality=modality)
    else:
        facts = look_at_all(cases)
        for error in (error for case in facts for error in case.errors):
            raise error
        plan = plan_from(take_fingerprint(facts), label_values=label_values, modality=modality, where=facts[0].label)
    return replace(plan, in_channels=3 if colour and plan.in_channels == 3 and plan.spatial_dims == 2 else 1)


def case_transforms(plan: Plan | Mapping[str, Any], keys: Sequence[str] = ("image",)) -> Compose:
    """Return what brings a case to the channels of the plan, in [0, 1], volumes to RAS, at the size it has.

    Args:
        plan: what `support_plan` gave.
        keys: ``image``, or ``image`` and ``label``. They hold paths or arrays.
    """
    plan = plan if isinstance(plan, Plan) else Plan.from_dict(plan)
    steps: list[Any] = [
        LoadFilesd("image", CaseReader()),
        PictureChannelsd("image", plan.spatial_dims, plan.in_channels),
        Normalised("image", plan.normalisation, plan.lower, plan.upper),
    ]
    if "label" in keys:
        steps += [LoadFilesd("label", LabelReader()), MapLabeld("label", plan.label_values)]
    if plan.spatial_dims == 3:
        steps.append(Orientationd(keys, axcodes="RAS", labels=None))
    return Compose(steps)


def apply(transforms: Compose, case: Mapping[str, Any]) -> dict[str, Any]:
    """Transform a case; an error meant for the user comes as it is, not inside MONAI's."""
    try:
        return dict(transforms(dict(case)))
    except Exception as error:
        told = user_error(error)
        if told is None:
            raise
        raise told from error


class LoadFilesd(LoadImaged):
    """A `LoadImaged` that takes arrays as they are.

    Args:
        key: of the image: a path, or an array C H W [D]; a `MetaTensor` keeps its affine.
        reader: of the files.

    Example:
        >>> LoadFilesd("image", CaseReader())({"image": np.zeros((1, 4, 4), np.float32)})["image"].shape
        torch.Size([1, 4, 4])
    """

    def __init__(self, key: str, reader: CaseReader) -> None:
        super().__init__(key, reader=reader, image_only=True, ensure_channel_first=True)

    def __call__(self, data: Mapping[Any, Any], reader: Any = None) -> dict[Any, Any]:
        """Return the case with its image read."""
        value = data[self.keys[0]]
        if not isinstance(value, np.ndarray | Tensor):
            loaded: dict[Any, Any] = super().__call__(data, reader)
            return loaded
        return {**data, self.keys[0]: value if isinstance(value, MetaTensor) else MetaTensor(torch.as_tensor(value))}


def read_supports(
    cases: Sequence[Mapping[str, Any]], plan: Plan, *, size: int = 128, axis: int | None = None
) -> Supports:
    """Read labelled cases and bring their planes to one grid.

    Args:
        cases: with `image` and `label`: paths, or arrays C H W [D] and 1 H W [D].
        plan: what `support_plan` gave.
        size: pixels on a side of the planes.
        axis: volumes are cut along it (0 right, 1 front, 2 head); None takes the best one, see `best_axis`.

    Raises:
        UserError: a case cannot be read, or image and label do not fit.
    """
    transforms = case_transforms(plan, ("image", "label"))
    read: list[tuple[Tensor, Tensor, Any]] = []
    for case in tqdm(cases, desc="reading supports", disable=None, leave=False):
        found = apply(transforms, {"image": case["image"], "label": case["label"]})
        image, label = found["image"], found["label"]
        if image.shape[1:] != label.shape[1:]:
            raise UserError(
                case.get("case", "support"), f"wanted a label of the size of its image, {tuple(image.shape[1:])}, got "
                f"{tuple(label.shape[1:])}; draw it on the image itself"
            )  # fmt: skip
        read.append((image.as_tensor(), label.as_tensor(), image.affine))
    scale = None
    if plan.spatial_dims == 3:
        axis = best_axis([Seen.of(label, affine) for _, label, affine in read]) if axis is None else axis
        scale = size / max(_extent(image, affine, axis) for image, _, affine in read)
    else:
        axis = None
    grid = PlaneGrid(size, scale)
    parts = [_planes(image, label, affine, grid, axis) for image, label, affine in read]
    images, labels, positions = (torch.cat(part) for part in zip(*parts, strict=True))
    numbers = torch.cat([torch.full((len(part[0]),), i) for i, part in enumerate(parts)])
    return Supports(SupportSet(images, labels, plan.classes, positions, numbers), grid, axis)


def _planes(
    image: Tensor, label: Tensor, affine: Any, grid: PlaneGrid, axis: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return planes N C H W, their labels N 1 H W and their positions N."""
    planes, labels = to_planes(image, axis), to_planes(label, axis)[:, 0]
    positions = (torch.arange(len(planes)) + 0.5) / len(planes)
    shown = (labels != 0).flatten(1).any(1)
    if len(planes) > 1:
        full, empty = shown.nonzero()[:, 0], (~shown).nonzero()[:, 0]
        kept = torch.cat([_spread(full, _MOST_PLANES - _MOST_EMPTY), _spread(empty, _MOST_EMPTY)]).sort().values
        planes, labels, positions = planes[kept], labels[kept], positions[kept]
    fit = grid.fit(labels.shape[1:], plane_spacing(affine, axis))
    return grid.images(planes, fit), grid.labels(labels, fit)[:, None], positions


def _spread(indices: Tensor, most: int) -> Tensor:
    """Return at most so many of some indices, evenly spread."""
    if len(indices) <= most:
        return indices
    return indices[torch.linspace(0, len(indices) - 1, most).round().long()]


def _extent(image: Tensor, affine: Any, axis: int) -> float:
    """Return the longer side of the planes of a volume, in mm."""
    rows, columns = to_planes(image, axis).shape[2:]
    steps = plane_spacing(affine, axis)
    return max(rows * steps[0], columns * steps[1])
