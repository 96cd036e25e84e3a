"""Several trained segmenters, each also on the mirrored image, as one: what they agree on is likelier to be right.

Members are several bundles (seeds, other training cases), or one bundle with the snapshots its training left. Each is
tempered by its own temperature, then the probabilities are averaged (Lakshminarayanan, Pritzel and Blundell, "Simple
and scalable predictive uncertainty estimation using deep ensembles", NeurIPS 2017, arXiv 1612.01474). An average of
calibrated members is a little less sure than it should be: their disagreement comes on top.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn

from genseg_monai.errors import UserError
from genseg_monai.inferers.slabs import SlabInferer
from genseg_monai.inferers.temperature import read_temperature
from genseg_monai.transforms.mask_warp import WarpRanges

__all__ = ["EnsembleInferer", "Member", "find_members", "make_inferer", "mirror_axis"]

_SAME = ("plan", "segmenter")  # what bundles have to share


@dataclass(frozen=True)
class Member:
    """One segmenter of an ensemble.

    Args:
        weights: its file; None for the network the inferer is called with.
        temperature: its logits are divided by it.

    Example:
        >>> Member(None).temperature
        1.0
    """

    weights: Path | None
    temperature: float = 1.0


class EnsembleInferer(Inferer):
    """Average the probabilities of several networks of one kind, and of mirrored images.

    Args:
        members: the first is usually the network itself.
        flip_axis: spatial axis along which the image is mirrored too; None where left is not right.

    Shape:
        Images `B C H W [D]` to the logarithm of the mean probabilities, `B K H W [D]`: its softmax is that mean.

    Raises:
        UserError: no member; or, when called, weights that do not fit.

    Example:
        >>> network = nn.Conv2d(1, 2, 1)
        >>> logits = EnsembleInferer([Member(None)], flip_axis=1)(torch.rand(1, 1, 4, 4), network)
        >>> torch.allclose(logits.exp().sum(1), torch.ones(1, 4, 4))
        True
    """

    def __init__(self, members: Sequence[Member], flip_axis: int | None = None) -> None:
        super().__init__()
        if not members:
            raise UserError("ensemble", "wanted one trained segmenter or more, got none")
        self.members, self.flip_axis = tuple(members), flip_axis
        self._networks: list[nn.Module] = []

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Return the logarithm of the mean probabilities."""
        if not self._networks:
            self._networks = [_loaded(member, network) for member in self.members]
        axes: list[tuple[int, ...]] = [()] if self.flip_axis is None else [(), (2 + self.flip_axis,)]
        total: Tensor | None = None
        for member, one in zip(self.members, self._networks, strict=True):
            for axis in axes:
                seen = one(inputs.flip(axis) if axis else inputs, *args, **kwargs)
                p = ((seen.flip(axis) if axis else seen).float() / member.temperature).softmax(1)
                total = p if total is None else total + p
        assert total is not None
        return (total / (len(self.members) * len(axes))).clamp(min=1e-12).log()


def make_inferer(
    bundle: str | Path, *, uncertainty: bool = False, others: str | Sequence[str] | None = None,
    flip_axis: int | None = None, windows: Sequence[int] | None = None,
) -> Inferer:  # fmt: skip
    """Return how a bundle calls its segmenter.

    Args:
        bundle: its folder.
        uncertainty: average an ensemble; otherwise the network is simply called.
        others: further bundles, as a list or with commas between them.
        flip_axis: see `EnsembleInferer`.
        windows: size of the windows a large image is seen in; None for an image at its working size.

    Raises:
        UserError: uncertainty is wanted of windows, which give classes and no probabilities.
    """
    if windows is not None:
        if uncertainty:
            problem = (
                "wanted a model of a working size, this one sees native windows and gives classes alone; leave it out"
            )
            raise UserError("uncertainty", problem)
        return SlabInferer(windows)
    if not uncertainty:
        return SimpleInferer()
    return EnsembleInferer(find_members(bundle, others), flip_axis)


def find_members(bundle: str | Path, others: str | Sequence[str] | None = None) -> list[Member]:
    """List the segmenters of an ensemble: those of several bundles, or one bundle's with its snapshots.

    Args:
        bundle: the folder whose network the inferer is called with.
        others: further bundles of the same plan and segmenter, as a list or with commas between them.

    Raises:
        UserError: a bundle without weights, or one that was trained for something else.
    """
    folders = [name.strip() for name in others.split(",")] if isinstance(others, str) else list(others or [])
    own = Member(None, read_temperature(bundle))
    if not folders:
        snapshots = sorted((Path(bundle) / "models" / "snapshots").glob("step_*.pt"))
        return [own, *(Member(path, own.temperature) for path in snapshots)]
    wanted = _traits(Path(bundle))
    for folder in map(Path, folders):
        if not (folder / "models" / "model.pt").is_file():
            raise UserError(folder, "wanted a trained bundle, it has no models/model.pt")
        came = _traits(folder)
        if different := [name for name in _SAME if came.get(name) != wanted.get(name)]:
            problem = f"wanted the {' and the '.join(different)} of {bundle}, got another; train both on the same data"
            raise UserError(folder, problem)
    return [own, *(Member(Path(f) / "models" / "model.pt", read_temperature(f)) for f in folders)]


def mirror_axis(augment: Any, spatial_dims: int) -> int | None:
    """Return the spatial axis that training mirrors, None where it mirrors none because left is not right there.

    Args:
        augment: of real pairs: anything with ``warp``, its `WarpRanges` or None; None for no augmentation.
        spatial_dims: 2 or 3.

    Example:
        >>> from genseg_monai.transforms import BatchAugment
        >>> mirror_axis(BatchAugment(), 2), mirror_axis(BatchAugment(), 3), mirror_axis(BatchAugment(warp=None), 2)
        (1, 0, None)
    """
    ranges: WarpRanges | None = getattr(augment, "warp", None)
    if ranges is None or ranges.flip == 0:
        return None
    return ranges.flip_axis if ranges.flip_axis is not None else (1 if spatial_dims == 2 else 0)


def _traits(bundle: Path) -> dict[str, Any]:
    path = bundle / "configs" / "inference.yaml"
    if not path.is_file():
        raise UserError(bundle, "wanted the folder of a bundle, it has no configs/inference.yaml")
    held: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return held


def _loaded(member: Member, network: nn.Module) -> nn.Module:
    if member.weights is None:
        return network
    one = copy.deepcopy(network)
    device = next(iter(network.parameters())).device
    try:
        one.load_state_dict(torch.load(member.weights, map_location=device, weights_only=True))
    except Exception as error:  # a damaged file fails in many ways
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(member.weights, f"wanted weights of the same segmenter, cannot load: {problem}") from error
    return one.train(network.training)
