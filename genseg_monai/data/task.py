"""A task of in-context segmentation: pictures of one kind, one label, and whose they are.

Butoi et al., "UniverSeg: Universal Medical Image Segmentation", ICCV 2023: every data set is cut into tasks of one
structure in one kind of 2D picture; a network sees a few labelled entries of a task (the support) and segments others
(the queries).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genseg_monai.errors import UserError

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """Entries that show the same structure.

    Attributes:
        name: of the task, unique among those read together.
        dataset: where it comes from, the first level of the sampler's hierarchy.
        subset: part of the data set, second level; empty where there is none.
        modality: such as ``CT`` or ``picture``, third level.
        axis: along which a volume was cut, fourth level; empty for pictures.
        label: name of the structure, fifth level.
        images: ``N 1 H W`` float32 in [0, 1].
        labels: ``N 1 H W`` float32, 0 or 1.
        groups: the subject of each entry; a query and its support never share one.

    Raises:
        UserError: what was wanted and what came.

    Example:
        >>> labels = torch.zeros(3, 1, 8, 8)
        >>> labels[:, :, 2:5, 2:5] = 1
        >>> task = Task("disc", "drawn", "", "picture", "", "disc", 0.5 * labels, labels, ("a", "b", "b"))
        >>> len(task), task.subjects
        (3, ('a', 'b'))
    """

    name: str
    dataset: str
    subset: str
    modality: str
    axis: str
    label: str
    images: Tensor
    labels: Tensor
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(str(group) for group in self.groups))
        images, labels, where = self.images, self.labels, f"task {self.name}"
        if images.ndim != 4 or images.shape[1] != 1 or len(images) == 0:
            raise UserError(where, f"wanted images N 1 H W with N of at least 1, got {tuple(images.shape)}")
        if labels.shape != images.shape:
            raise UserError(where, f"wanted labels {tuple(images.shape)} as the images, got {tuple(labels.shape)}")
        if images.dtype != torch.float32 or labels.dtype != torch.float32:
            raise UserError(where, f"wanted images and labels of float32, got {images.dtype} and {labels.dtype}")
        if len(self.groups) != len(images):
            raise UserError(where, f"wanted one group for each of {len(images)} entries, got {len(self.groups)}")
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):
            raise UserError(where, f"wanted images in [0, 1], got values from {low:g} to {high:g}; rescale them")
        if not bool(((labels == 0) | (labels == 1)).all()):
            raise UserError(where, "wanted labels of 0 and 1, got others; make a task of each label")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every group once, in the order of the entries."""
        return tuple(dict.fromkeys(self.groups))

    @property
    def path(self) -> tuple[str, str, str, str, str]:
        """Where the task stands in the hierarchy: data set, subset, modality, axis, label."""
        return self.dataset, self.subset, self.modality, self.axis, self.label
