"""A segmenter that follows the bundle folder it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from torch import Tensor, nn

from genseg_monai.errors import UserError
from genseg_monai.networks.segmenters import make_segmenter
from genseg_monai.networks.warm_start import misfits

__all__ = ["BundleSegmenter", "current_plan"]


def current_plan(bundle_root: str | Path, read: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan of a bundle as its ``inference.yaml`` holds it now.

    A server that keeps the bundle's config in memory asks again before each image: a training in place changes it.

    Args:
        bundle_root: the folder of the bundle; ``.`` where it is not known, as in an export.
        read: the plan as it was read; the answer where there is no such file.
    """
    config = Path(bundle_root) / "configs" / "inference.yaml"
    if str(bundle_root) == "." or not config.is_file():
        return dict(read)
    plan: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))["plan"]
    return plan


class BundleSegmenter(nn.Module):
    """The segmenter of a bundle; when weights come that it does not fit, it is built anew as the bundle now says.

    MONAI Label builds the network once, when its server starts, and loads ``model.pt`` whenever that file is new. A
    training in place may have changed the kind of image, the classes or the segmenter in between.

    Args:
        bundle_root: the folder of the bundle.
        **settings: arguments of `make_segmenter`.

    Raises:
        UserError: weights do not fit what the bundle's config describes.

    Example:
        >>> import torch
        >>> segmenter = BundleSegmenter(".", name="unet_small", spatial_dims=2, in_channels=1, out_channels=2)
        >>> segmenter(torch.zeros(1, 1, 32, 32)).shape
        torch.Size([1, 2, 32, 32])
    """

    def __init__(self, bundle_root: str | Path, **settings: Any) -> None:
        super().__init__()
        self.bundle_root = str(bundle_root)
        self.network = make_segmenter(**settings)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits `B K H W [D]` of an image `B C H W [D]`."""
        return self.network(image)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the weights under the names they have without this class."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take weights, all of them whatever `strict` says: some of them would give masks that mean nothing."""
        weights = dict(state_dict)
        if misfits(self.network, weights):
            self._rebuild()
        wrong = misfits(self.network, weights)
        if wrong:
            raise UserError(
                Path(self.bundle_root) / "models" / "model.pt",
                f"wanted weights of the segmenter in configs/inference.yaml, {len(wrong)} do not fit it "
                f"({wrong[0]}); train again",
            )
        return self.network.load_state_dict(weights, assign=assign)

    def _rebuild(self) -> None:
        config = Path(self.bundle_root) / "configs" / "inference.yaml"
        if not config.is_file():
            return
        parser = ConfigParser()
        parser.read_config(str(config))
        parser["bundle_root"] = self.bundle_root
        fresh = parser.get_parsed_content("network_def")
        device = next(self.network.parameters()).device
        self.network = fresh.network.to(device).train(self.training)
