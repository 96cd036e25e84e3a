"""Segment case after case by a few labelled ones: the one object for the command line, the server and the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from genseg_monai.data.plan import Plan
from genseg_monai.data.training_cases import training_cases
from genseg_monai.inferers.in_context import InContextSettings
from genseg_monai.inferers.in_context_inferer import InContextInferer
from genseg_monai.inferers.support_cases import apply, case_transforms, read_supports, support_plan
from genseg_monai.transforms.uncertainty import case_uncertainty

__all__ = ["InContextSegmenter", "Segmented"]


@dataclass(frozen=True)
class Segmented:
    """What was found in one case, on the grid of its image.

    Attributes:
        probabilities: K H W [D], summing to one over K.
        mask: 1 H W [D], class indices, uint8.
        uncertainty: mean entropy where there could be foreground, in [0, 1]; see `case_uncertainty`.
    """

    probabilities: MetaTensor
    mask: MetaTensor
    uncertainty: float


class InContextSegmenter:
    """Segment images by labelled ones, without training.

    Args:
        network: query ``B 1 H W``, support images and labels ``B S 1 H W`` -> logits ``B 1 H W``, such as `UniverSeg`;
            or the file of its weights.
        supports: the labelled cases: a data set in any layout `find_cases` reads (its training split, where it has
            one), or dictionaries with `image` and `label`, paths or arrays (C H W [D] and 1 H W [D]; a `MetaTensor`
            tells its affine).
        settings: how an image is segmented.
        plan: normalisation and label values; made from the supports if None.
        size: pixels on a side the network sees.
        axis: volumes are cut along it (0 right, 1 front, 2 head); None takes the one with the finest planes.
        device: where the network runs.

    Attributes:
        plan: classes, label values and normalisation.
        inferer: the same as a MONAI inferer.

    Raises:
        UserError: the supports cannot be read or do not belong together, or the weights cannot be loaded.

    Example:
        >>> from genseg_monai.data import find_cases
        >>> from genseg_monai.networks.universeg import UniverSeg
        >>> cases = find_cases("phantom://2d?cases=6&size=32")
        >>> segmenter = InContextSegmenter(UniverSeg(features=(4, 4)), cases[:5], size=32)
        >>> found = segmenter.segment(cases[5])
        >>> found.mask.shape, segmenter.plan.classes
        (torch.Size([1, 32, 32]), ('background', 'foreground'))
    """

    def __init__(
        self,
        network: nn.Module | str | Path,
        supports: str | Path | Sequence[Mapping[str, Any]],
        settings: InContextSettings | None = None,
        *,
        plan: Plan | None = None,
        size: int = 128,
        axis: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        cases = training_cases(supports) if isinstance(supports, str | Path) else supports
        self.device = torch.device(device)
        self.network = _network(network).to(self.device).eval()
        self.plan = plan or support_plan(cases)
        self.inferer = InContextInferer(read_supports(cases, self.plan, size=size, axis=axis), settings)
        self.transforms = case_transforms(self.plan)

    def segment(self, case: Mapping[str, Any] | str | Path | Tensor) -> Segmented:
        """Segment one image.

        Args:
            case: a dictionary with `image`; or the image: a path or an array C H W [D].

        Returns:
            Probabilities and mask, on the grid of the image.

        Raises:
            UserError: it cannot be read, or is a volume and the supports are pictures, or the reverse.
        """
        image = apply(self.transforms, {"image": case["image"] if isinstance(case, Mapping) else case})["image"]
        found = self.inferer(image[None].to(self.device), self.network)[0].cpu()
        back = MetaTensor(found, meta=image.meta, applied_operations=image.applied_operations)
        back.affine = image.affine
        # pictures are as they were; volumes go back to the axes they are stored in
        probabilities = self.transforms.inverse({"image": back})["image"] if self.plan.spatial_dims == 3 else back
        mask = MetaTensor(probabilities.argmax(0, keepdim=True).to(torch.uint8), meta=probabilities.meta)
        return Segmented(probabilities, mask, case_uncertainty(probabilities.as_tensor()))


def _network(given: nn.Module | str | Path) -> nn.Module:
    if isinstance(given, nn.Module):
        return given
    from genseg_monai.networks.universeg_weights import load_universeg

    return load_universeg(given)
