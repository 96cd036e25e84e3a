"""The planes of the cases of one data set, and the tasks they make."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from torch import Tensor
from tqdm import tqdm

from genseg_monai.data.plan import Plan, propose_plan
from genseg_monai.data.read import CaseReader, LabelReader
from genseg_monai.data.task import Task
from genseg_monai.errors import UserError
from genseg_monai.transforms.normalise import MapLabel, Normalisation, Normalise
from genseg_monai.transforms.planes import PlaneGrid, plane_spacing, to_planes

__all__ = ["PlaneSettings", "cut_tasks"]

logger = logging.getLogger(__name__)

_AXES = "xyz"
_FEWEST = 2  # subjects of a task: the query's and one other


@dataclass(frozen=True)
class PlaneSettings:
    """How cases become planes.

    Args:
        size: pixels on a side.
        window: HU that become 0 and 1 in CT.

    Raises:
        UserError: a number is out of range.

    Example:
        >>> PlaneSettings().window
        (-500.0, 1000.0)
    """

    size: int = 128
    window: tuple[float, float] = (-500.0, 1000.0)

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        object.__setattr__(self, "window", tuple(float(bound) for bound in self.window))
        if self.size < 16:
            raise UserError("size", f"wanted 16 pixels or more, got {self.size}")
        if len(self.window) != 2 or not self.window[0] < self.window[1]:
            raise UserError("window", f"wanted two intensities in HU, the lower first, got {self.window}")


@dataclass(frozen=True)
class _Place:
    """Where a plane stands in the hierarchy."""

    subset: str
    axis: str
    label: str


def cut_tasks(cases: Sequence[Mapping[str, Any]], dataset: str, settings: PlaneSettings) -> Iterator[Task]:
    """Cut cases into planes and gather the planes of one kind and label; labels of a single subject are left out.

    Args:
        cases: with `image`, `label` and `group`.
        dataset: the name of the data set.
        settings: of the planes.

    Raises:
        UserError: the cases do not belong together.
    """
    plan = propose_plan(cases)
    groups = {group: f"{dataset}-{i:04d}" for i, group in enumerate(sorted({str(case["group"]) for case in cases}))}
    found: dict[_Place, list[tuple[Tensor, Tensor, str]]] = {}
    failed = 0
    for case in tqdm(cases, desc=dataset, disable=None, leave=False):
        try:
            image, label = _read(case, plan, settings)
        except UserError as error:
            logger.debug("left out: %s", error)
            failed += 1
            continue
        for place, picture, mask in _planes(image, label, plan, settings):
            found.setdefault(place, []).append((picture, mask, groups[str(case["group"])]))
    if failed:
        logger.warning("%s: %d of %d cases cannot be used; `genseg check` tells why", dataset, failed, len(cases))
    for place in sorted(found, key=lambda p: (p.label, p.axis, p.subset)):
        pictures, masks, subjects = zip(*found[place], strict=True)
        if len(set(subjects)) < _FEWEST:
            continue
        name = "/".join(part for part in (dataset, place.subset, plan.modality, place.axis, place.label) if part)
        images, labels = torch.stack(pictures)[:, None], torch.stack(masks)[:, None]
        yield Task(name, dataset, place.subset, plan.modality, place.axis, place.label, images, labels, subjects)


def _read(case: Mapping[str, Any], plan: Plan, settings: PlaneSettings) -> tuple[MetaTensor, MetaTensor]:
    """Return image in [0, 1] and label as class indices, volumes in RAS."""
    read, read_label = CaseReader(channels=1), LabelReader()
    image, meta = read.get_data(read.read(case["image"]))
    label, _ = read_label.get_data(read_label.read(case["label"]))
    if image.shape[1:] != label.shape[1:] or len(image) != 1:
        raise UserError(case["case"], f"wanted image and label 1 H W [D], got {image.shape} and {label.shape}")
    mode, lower, upper = plan.normalisation, plan.lower, plan.upper
    if mode is Normalisation.WINDOW:
        lower, upper = settings.window
    values = MetaTensor(Normalise(mode, lower, upper)(np.array(image)), affine=meta["affine"])
    classes = MetaTensor(MapLabel(plan.label_values)(np.array(label)), affine=meta["affine"])
    if plan.spatial_dims == 2:
        return values, classes
    turn = Orientation(axcodes="RAS", labels=None)
    return turn(values), turn(classes)


def _planes(
    image: MetaTensor, label: MetaTensor, plan: Plan, settings: PlaneSettings
) -> Iterator[tuple[_Place, Tensor, Tensor]]:
    """Yield each plane of a case that shows a label: where it stands, picture H W, mask H W."""
    grid = PlaneGrid(settings.size)
    for axis in (None,) if plan.spatial_dims == 2 else (0, 1, 2):
        pictures, masks = to_planes(image.as_tensor(), axis), to_planes(label.as_tensor(), axis)[:, 0]
        fit = grid.fit(masks.shape[1:], plane_spacing(image.affine, axis))
        for index, name in enumerate(plan.classes[1:], 1):
            area = (masks == index).flatten(1).sum(1)
            chosen = {"": 0} if axis is None else {"middle": len(masks) // 2, "largest": int(area.argmax())}
            for subset, place in chosen.items():
                mask = grid.labels((masks[place : place + 1] == index).to(torch.uint8), fit)[0].float()
                if mask.any():
                    picture = grid.images(pictures[place : place + 1], fit)[0, 0].clamp(0, 1)
                    yield _Place(subset, "" if axis is None else _AXES[axis], name), picture, mask
