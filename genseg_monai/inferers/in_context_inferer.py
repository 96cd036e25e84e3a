"""Segmenting by examples as a MONAI inferer: whole pictures and volumes, at the size they have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from einops import rearrange
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from torch import Tensor, nn
from tqdm import tqdm

from genseg_monai.inferers.in_context import InContextSettings, in_context
from genseg_monai.inferers.support_cases import Supports
from genseg_monai.inferers.thresholds import fit_offsets
from genseg_monai.transforms.planes import from_planes, plane_spacing, to_planes

__all__ = ["InContextInferer"]

logger = logging.getLogger(__name__)

_FITTED_BY = 16  # supports by which the offsets are fitted: more cost more and change little


class InContextInferer(Inferer):
    """Segment pictures and volumes by labelled planes; a volume plane by plane along the axis of the supports.

    Args:
        supports: what `read_supports` gave.
        settings: how a plane is segmented.

    Example:
        >>> from genseg_monai.inferers.support_set import SupportSet
        >>> from genseg_monai.transforms.planes import PlaneGrid
        >>> planes = SupportSet(torch.rand(3, 1, 8, 8), torch.ones(3, 1, 8, 8, dtype=torch.uint8), ("", "organ"))
        >>> inferer = InContextInferer(Supports(planes, PlaneGrid(8), axis=None))
        >>> network = lambda query, images, labels: 20 * labels.mean(1) - 10
        >>> inferer(torch.rand(2, 1, 20, 30), network).shape
        torch.Size([2, 2, 20, 30])
    """

    def __init__(self, supports: Supports, settings: InContextSettings | None = None) -> None:
        super().__init__()
        self.supports, self.settings = supports, settings or InContextSettings()
        self._planes = supports.planes
        self._offsets: tuple[Any, Tensor] | None = None

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor] | nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Segment a batch.

        Args:
            inputs: B C H W, or B 1 X Y Z in RAS, in [0, 1], with the channels C of the supports; a `MetaTensor` tells
                the spacing.
            network: query, support images, support labels -> logits; see `in_context`.
            args: for the form of MONAI's inferers; nothing.
            kwargs: for the form of MONAI's inferers; nothing.

        Returns:
            B K H W [D], probabilities, on the grid of the inputs.

        Raises:
            ValueError: pictures, and the supports are volumes, or the reverse; or other channels.
        """
        axis = self.supports.axis
        channels = self.supports.planes.images.shape[1]
        if inputs.ndim != (4 if axis is None else 5) or inputs.shape[1] != channels:
            raise ValueError(f"wanted B {channels} {'H W' if axis is None else 'X Y Z'}, got {tuple(inputs.shape)}")
        affines = _affines(inputs)
        values = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        found = [self._segment(one, affine, network) for one, affine in zip(values, affines, strict=True)]
        known = MetaTensor([]).copy_meta_from(inputs, copy_attr=False) if isinstance(inputs, MetaTensor) else None
        return torch.stack(found) if known is None else convert_to_dst_type(torch.stack(found), known)[0]

    def _segment(self, image: Tensor, affine: np.ndarray, network: Any) -> Tensor:
        """Segment one image, C H W [D]."""
        if self._planes.images.device != image.device:
            self._planes = self._planes.to(image.device)
        grid, axis, offsets = self.supports.grid, self.supports.axis, self._fitted(network)
        stack = to_planes(image, axis)
        fit = grid.fit(stack.shape[2:], plane_spacing(affine, axis))
        queries = grid.images(stack, fit)
        found = []
        for i in tqdm(range(len(queries)), desc="planes", disable=None if len(queries) > 1 else True, leave=False):
            place = None if axis is None else (i + 0.5) / len(queries)
            told = in_context(network, queries[i], self._planes, self.settings, place, offsets)
            found.append(grid.back(told, fit))
        return from_planes(torch.stack(found), axis)

    def _fitted(self, network: Any) -> Tensor:
        """Return the offsets of a network, fitted once."""
        if self._offsets is None or self._offsets[0] is not network:
            chosen = self.settings
            size = min(chosen.support_size, _FITTED_BY)
            told = fit_offsets(network, self._planes, support_size=size, held=chosen.calibrate, seed=chosen.seed)
            logger.debug("offsets of the logits: %s", told.tolist())
            self._offsets = network, told
        return self._offsets[1]


def _affines(inputs: Tensor) -> np.ndarray:
    """Return B 4 4: the affines of a batch; the unit matrix where it knows none."""
    if not isinstance(inputs, MetaTensor):
        return np.tile(np.eye(4), (len(inputs), 1, 1))
    affine = np.asarray(inputs.affine.cpu(), dtype=np.float64)
    affine = affine if affine.ndim == 3 else rearrange(affine, "I J -> 1 I J")
    return np.broadcast_to(affine, (len(inputs), *affine.shape[1:]))
