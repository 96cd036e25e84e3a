"""An arm is a small set of overrides of ``train.yaml``; everything else is the same for all.

Equal means (design: an honest comparison): every arm's segmenter makes the same number of updates on equally many
images an update. GenSeg's B real and B synthetic images an update are 2 B real ones in an arm without synthetic pairs.
A run without a search phase keeps its learning rate as long as one with it, then follows the same cosine. A generator
that is trained once gets as many steps as GenSeg's gets in all. The last weights count, never the best on a few
validation cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genseg_monai.apps.studies.cells import Arm, Cell

__all__ = ["REAL_ONLY", "Steps", "arm_overrides", "base_rate", "steps_of"]

REAL_ONLY = frozenset(
    {Arm.PLAIN, Arm.AUGMENT, Arm.ROTATE, Arm.FLIP, Arm.TRANSLATE, Arm.COMBINE, Arm.COPY_PASTE, Arm.NNUNET_STYLE}
)
"""Arms without synthetic pairs."""

_MOVES = {
    Arm.ROTATE: {"rotate"},
    Arm.FLIP: {"flip"},
    Arm.TRANSLATE: {"translate"},
    Arm.COMBINE: {"rotate", "flip", "translate"},
}
_STILL = {"flip": 0.0, "pad": [0.0, 0.0], "scale": [1.0, 1.0], "translate": [0.0, 0.0], "rotate": [0.0, 0.0],
          "shear": [0.0, 0.0]}  # fmt: skip
_MOVING = {"flip": 0.5, "translate": [-0.1, 0.1], "rotate": [-15.0, 15.0]}  # the defaults of `WarpRanges`
_PASTED = 0.5  # of the images
_SGD_RATE = 0.01  # nnU-Net's


@dataclass(frozen=True)
class Steps:
    """Iterations of the phases of one run.

    Attributes:
        warm_up: stage I alone.
        search: the three stages.
        fine_tune: the derived generator alone.
        final_fit: the segmenter alone.
        pairs: steps of a WGAN-GP before the run.
        hold: updates of the final fit at the full learning rate.

    Example:
        >>> Steps(warm_up=30, search=40, fine_tune=10, final_fit=40).updates
        80
    """

    warm_up: int = 0
    search: int = 0
    fine_tune: int = 0
    final_fit: int = 0
    pairs: int = 0
    hold: int = 0

    @property
    def updates(self) -> int:
        """Updates of the segmenter."""
        return self.search + self.final_fit

    @property
    def generator(self) -> int:
        """Steps of whatever makes synthetic pairs."""
        return self.warm_up + self.search + self.fine_tune + self.pairs

    @property
    def total(self) -> int:
        """Iterations of the run."""
        return self.warm_up + self.search + self.fine_tune + self.final_fit


def steps_of(arm: Arm, updates: int, shares: Mapping[str, float], epoch: int) -> Steps:
    """Return the iterations of an arm.

    Args:
        arm: which one.
        updates: of its segmenter, a multiple of ``epoch``.
        shares: ``warm_up``, ``search``, ``fine_tune``, ``final_fit``: relative weights of GenSeg's phases.
        epoch: the run is a multiple of so many iterations.

    Example:
        >>> shares = {"warm_up": 0.3, "search": 0.35, "fine_tune": 0.15, "final_fit": 0.35}
        >>> [steps_of(arm, 100, shares, 10).updates for arm in (Arm.PLAIN, Arm.SEPARATE, Arm.GENSEG)]
        [100, 100, 100]
        >>> [steps_of(arm, 100, shares, 10).generator for arm in (Arm.PLAIN, Arm.SEPARATE, Arm.GENSEG)]
        [0, 120, 120]
    """
    fitted = shares["search"] + shares["final_fit"]
    search = round(updates * shares["search"] / fitted)
    fine_tune = round(updates * shares["fine_tune"] / fitted)
    warm_up = round(updates * shares["warm_up"] / fitted)
    warm_up += -(warm_up + fine_tune) % epoch
    if arm in (Arm.GENSEG, Arm.PAPER, Arm.SCENES, Arm.STYLES, Arm.NO_SEARCH):
        return Steps(warm_up, search, fine_tune, updates - search)
    drawn = warm_up + search + fine_tune
    if arm is Arm.SEPARATE:
        drawn += -drawn % epoch
        return Steps(fine_tune=drawn, final_fit=updates, hold=search)
    if arm is Arm.WGAN:
        return Steps(final_fit=updates, pairs=drawn, hold=search)
    return Steps(final_fit=updates, hold=0 if arm is Arm.NNUNET_STYLE else search)


def base_rate(arm: Arm, config: Mapping[str, Any]) -> float:
    """Return the learning rate that an arm's factors multiply."""
    return _SGD_RATE if arm is Arm.NNUNET_STYLE else float(config["learning_rate"])


def arm_overrides(cell: Cell, config: Mapping[str, Any], *, epoch: int, factor: float) -> dict[str, Any]:
    """Return what a cell changes in ``train.yaml`` and its preset.

    Args:
        cell: which one.
        config: the merged configuration, unresolved: ``shares``, ``batch_size``, ``learning_rate``, ``warp_ranges``.
        epoch: iterations an epoch.
        factor: on the arm's learning rate.
    """
    steps = steps_of(cell.arm, cell.updates, config["shares"], epoch)
    shares: dict[str, Any] = {
        "_target_": "genseg_monai.engines.Shares",
        "warm_up": steps.warm_up,
        "search": steps.search,
        "fine_tune": steps.fine_tune,
        "final_fit": steps.final_fit,
        "hold": steps.hold / steps.final_fit,
    }
    changes: dict[str, Any] = {
        "segmenter": cell.segmenter,
        "learning_rate": factor * base_rate(cell.arm, config),
        "shares": shares,
        "max_epochs": steps.total // epoch,
        "epoch_length": epoch,
        # about ten validations while the segmenter learns
        "val_interval": max(1, cell.updates // epoch // 10),
        "baselines": [],
        "final_scores": False,
        "rehearse": False,
        "split_file": "$@output_dir + '/splits.json'",
    }
    if cell.arm in REAL_ONLY:
        # no generator: the smallest one stands in its place, and every image of an update is real
        changes |= {"synthetic": False, "batch_size": 2 * int(config["batch_size"])}
        changes |= {"augment_real": cell.arm is not Arm.PLAIN}
    if cell.arm in REAL_ONLY or cell.arm is Arm.WGAN:
        changes |= {"generator_width": 2, "discriminator_width": 4}
    ranges = dict(config.get("warp_ranges") or {})
    if cell.arm in _MOVES:
        warp = {"_target_": "genseg_monai.transforms.WarpRanges"} | _STILL
        warp |= {name: ranges.get(name, _MOVING[name]) for name in sorted(_MOVES[cell.arm])}
        changes["augment"] = {"_target_": "genseg_monai.transforms.BatchAugment", "warp": warp, "intensity": None}
    if cell.arm is Arm.COPY_PASTE:
        changes["augment#paste"] = _PASTED
    if cell.arm is Arm.WGAN:
        changes["pair_steps"] = steps.pairs
    if cell.arm is Arm.NO_SEARCH:
        changes["outer_every"] = 0
    if cell.arm is Arm.PAPER:
        changes |= {"search_fraction": 0.25, "synthesis": "masks", "warp_real": False, "synthetic_until": 1.0}
    if cell.arm in (Arm.SCENES, Arm.STYLES):
        changes["synthesis"] = str(cell.arm)
    if cell.arm is Arm.NNUNET_STYLE:
        shares["decay"] = "poly"
        mirror = {"mirror": 0.0} if ranges.get("flip") == 0 else {}
        changes |= {
            "augment": {"_target_": "genseg_monai.transforms.NnUNetAugment"} | mirror,
            "loss": {"_target_": "genseg_monai.losses.DeepSupervisionLoss"},
            "optimizer": {
                "_target_": "torch.optim.SGD",
                "params": "$@network.parameters()",
                "lr": "@learning_rate",
                "momentum": 0.99,
                "nesterov": True,
                "weight_decay": 3e-5,
            },
        }
    return changes
