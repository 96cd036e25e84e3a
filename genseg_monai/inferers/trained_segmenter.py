"""Segment case after case with a trained bundle, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks.utils import one_hot

from genseg_monai.data.plan import Plan
from genseg_monai.errors import UserError
from genseg_monai.inferers.in_context_segmenter import Segmented
from genseg_monai.inferers.support_cases import apply
from genseg_monai.inferers.temperature import read_temperature
from genseg_monai.transforms.uncertainty import case_uncertainty

__all__ = ["TrainedSegmenter"]


class TrainedSegmenter:
    """What `predict` does to one image, without files.

    Args:
        bundle: the folder of what a training left.
        device: where the network runs.

    Attributes:
        plan: classes, label values and normalisation.

    Raises:
        UserError: no bundle, or no weights.
    """

    def __init__(self, bundle: str | Path, device: torch.device | str = "cpu") -> None:
        config, weights = Path(bundle) / "configs" / "inference.yaml", Path(bundle) / "models" / "model.pt"
        for path, what in ((config, "the folder of a bundle"), (weights, "the weights of a trained segmenter")):
            if not path.is_file():
                raise UserError(path, f"wanted {what}, there is no such file; train first")
        parser = ConfigParser()
        parser.read_config(str(config))
        parser.update({"bundle_root": str(Path(bundle).resolve()), "device": str(device)})
        self.plan, self.device = Plan.from_dict(parser["plan"]), torch.device(device)
        self.network, self.transforms, self.inferer = (
            parser.get_parsed_content(name) for name in ("network", "preprocessing", "inferer")
        )
        self.network.load_state_dict(torch.load(weights, map_location=self.device, weights_only=True))
        self.network.eval()
        self.temperature = read_temperature(bundle)

    @torch.inference_mode()
    def segment(self, case: Mapping[str, Any] | str | Path) -> Segmented:
        """Segment one image.

        Args:
            case: a dictionary with `image`, a path; or the path.

        Returns:
            Probabilities and mask, on the grid of the image; the probabilities are 0 and 1 where the bundle was trained
            on native patches.

        Raises:
            UserError: it cannot be read, or is not of the kind the bundle was trained on.
        """
        image = apply(self.transforms, {"image": case["image"] if isinstance(case, Mapping) else case})["image"]
        told = self.inferer(image[None].as_tensor().to(self.device), self.network).float().cpu()
        # a model of native patches tells classes, not logits
        native = self.plan.native
        found = (one_hot(told, len(self.plan.classes)) if native else (told / self.temperature).softmax(1))[0]
        back = MetaTensor(found, meta=image.meta, applied_operations=image.applied_operations)
        back.affine = image.affine
        probabilities = self.transforms.inverse({"image": back})["image"] if image.applied_operations else back
        mask = MetaTensor(probabilities.argmax(0, keepdim=True).to(torch.uint8), meta=probabilities.meta)
        return Segmented(probabilities, mask, case_uncertainty(probabilities.as_tensor()))
