"""A finished training opened again: its data on the working grid, its networks, its transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.networks.utils import one_hot
from torch import Tensor, nn

from genseg_monai.apps.reporting.sources import Run
from genseg_monai.errors import UserError

__all__ = ["Opened", "find_data", "spread"]

_BATCH = 8


def find_data(run: Run, data: str | None = None) -> str | None:
    """Return where the data of a run lie, None where they are gone.

    Args:
        run: the training.
        data: a place given instead of the one in ``run.json``.

    Raises:
        UserError: nothing lies at the place that was given.
    """
    place = data if data is not None else str(run.record.get("dataset_dir") or "")
    if place.startswith("phantom://") or (place and Path(place).exists()):
        return place
    if data is not None:
        raise UserError("--data", f"wanted the data set of the training, there is no {data}")
    return None


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` of the numbers below `count`, evenly spread.

    Example:
        >>> spread(10, 3), spread(2, 3)
        ([0, 4, 9], [0, 1])
    """
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


class Opened:
    """The config of a finished training, evaluated piece by piece. Nothing in its folder is changed.

    Args:
        run: the training.
        data: where its data lie.
        device: where the networks run.
        scored: the cases of the scores, where the config does not know them.

    Raises:
        UserError: the folder has no config.
    """

    def __init__(
        self, run: Run, data: str, device: str = "cpu", scored: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        config = run.root / "configs" / "train.yaml"
        if not config.is_file():
            raise UserError(run.root, "wanted the output folder of a training, it has no configs/train.yaml")
        self.run, self.device, self.scored = run, torch.device(device), scored
        self.parser = ConfigParser()
        self.parser.read_config(str(config))
        for name, value in {
            "bundle_root": str(run.root), "output_dir": str(run.root), "dataset_dir": data, "device": device,
        }.items():  # fmt: skip
            self.parser[name] = value
        self.classes = len(self.parser["plan"]["classes"])

    def part(self, name: str) -> Any:
        """Return an entry of the config, evaluated."""
        return self.parser.get_parsed_content(name)

    def cases(self, split: str) -> list[Mapping[str, Any]]:
        """Return the cases of ``train`` or ``score`` (those of the scores)."""
        if split == "score" and self.scored is not None:
            return list(self.scored)
        return list(self.part(f"{split}#dataset").data)

    def load(self, cases: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
        """Return images ``B C H W [D]`` and one-hot masks ``B K H W [D]`` on the working grid."""
        bring = self.part("train#preprocessing")
        items = [bring(dict(case)) for case in cases]
        images = torch.stack([torch.as_tensor(item["image"]).float() for item in items])
        labels = torch.stack([torch.as_tensor(item["label"]) for item in items])
        return _plain(images).to(self.device), one_hot(_plain(labels).to(self.device).long(), self.classes).float()

    def segmenter(self, arm: str | None = None) -> nn.Module | None:
        """Return a trained segmenter, that of the run itself by default; None where it was not kept."""
        models = self.run.root / "models"
        path = models / "model.pt" if arm in (None, self.run.own) else models / "baselines" / f"{arm}.pt"
        if not path.is_file():
            return None
        network: nn.Module = self.parser.get_parsed_content("network_def", instantiate=True)
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return network.to(self.device).eval()

    @torch.inference_mode()
    def call(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Return what a network makes of inputs, in small batches."""
        return torch.cat([network(inputs[i : i + _BATCH]) for i in range(0, len(inputs), _BATCH)])

    @torch.inference_mode()
    def predicted(self, network: nn.Module, case: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Return image ``C H W [D]`` in [0, 1], true and found class indices ``H W [D]``, at the native size."""
        item = self.part("score#preprocessing")(dict(case))
        logits = network(torch.as_tensor(item["image"])[None].to(self.device))[0].cpu()
        found = self.part("score#postprocessing")({**item, "pred": logits})["pred"]
        native = {"image": case["image"]}
        for name in ("load_image", "match_channels", "normalise"):
            native = self.part(name)(native)
        return _plain(native["image"]), _plain(item["label"])[0].long(), _plain(found)[0].long()


def _plain(tensor: Any) -> Tensor:
    """Return a tensor without MONAI's metadata."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else torch.as_tensor(tensor)
