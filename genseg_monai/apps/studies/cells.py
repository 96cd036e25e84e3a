"""The cells of a study: each combination of arm, seed, number of training cases and segmenter is one training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

__all__ = ["OWN_SEGMENTER", "Arm", "Cell", "Purpose", "pilots_of", "scored_cells"]

_PILOT = 1 / 3
"""Length of a run that only compares learning rates, as a share of a full one."""


class Arm(StrEnum):
    """What is compared."""

    PLAIN = "plain"
    """Real pairs as they are."""
    AUGMENT = "augment"
    """Strong random geometric and intensity augmentation of the real pairs: the bar that matters."""
    ROTATE = "rotate"
    """Real pairs, rotated at random."""
    FLIP = "flip"
    """Real pairs, mirrored at random."""
    TRANSLATE = "translate"
    """Real pairs, shifted at random."""
    COMBINE = "combine"
    """Real pairs, rotated, mirrored and shifted at random."""
    COPY_PASTE = "copy_paste"
    """As ``augment``, and with objects of other cases pasted in: a scene without a generator."""
    WGAN = "wgan"
    """Augmented real pairs and those of a WGAN-GP of image and mask, trained once."""
    SEPARATE = "separate"
    """Augmented real pairs and those of a mask-to-image generator that was trained once, then frozen; no stage III."""
    NO_SEARCH = "no_search"
    """GenSeg's three phases with alpha left uniform; the derived generator has the first candidate everywhere."""
    GENSEG = "genseg"
    """GenSeg: three stages, the architecture searched, derived, fine-tuned; the final fit on real and synthetic."""
    PAPER = "paper"
    """GenSeg as published: cases kept for the search, a generator of unmoved pairs, synthetic pairs to the end."""
    SCENES = "scenes"
    """GenSeg whose synthetic pairs are scenes: objects made part of the real images of other cases."""
    STYLES = "styles"
    """GenSeg whose synthetic images take the look of real ones: the background of one case, the objects of another."""
    NNUNET_STYLE = "nnunet_style"
    """DynUNet with deep supervision, nnU-Net's augmentation list, SGD with Nesterov momentum, poly decay."""
    INCONTEXT = "incontext"
    """UniverSeg with the training cases as its support set: no training."""


class Purpose(StrEnum):
    """Why a cell is run."""

    SCORE = "score"
    RATE = "rate"
    """A shorter run that compares learning rates on the validation cases."""


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        arm: what is compared.
        seed: of the training and of the draw of its cases.
        size: number of training cases.
        segmenter: a `Segmenter`, or the arm's own.
        updates: of the segmenter, from first to last; 0 without training.
        factor: on the arm's learning rate; None where it is chosen on the validation cases first.
        purpose: why it is run.

    Example:
        >>> Cell(Arm.PLAIN, seed=0, size=40, segmenter="unet", updates=1000).id
        'plain_n40_s0_unet'
        >>> Cell(Arm.PLAIN, seed=0, size=40, segmenter="unet", updates=300, factor=0.3, purpose=Purpose.RATE).id
        'plain_n40_s0_unet_x0.3'
    """

    arm: Arm
    seed: int
    size: int
    segmenter: str
    updates: int
    factor: float | None = None
    purpose: Purpose = Purpose.SCORE

    @property
    def id(self) -> str:
        """The name of the cell's folder."""
        rate = f"_x{self.factor:g}" if self.purpose is Purpose.RATE else ""
        return f"{self.arm}_n{self.size}_s{self.seed}_{self.segmenter}{rate}"


OWN_SEGMENTER = {Arm.NNUNET_STYLE: "dynunet_deep", Arm.INCONTEXT: "universeg"}
"""Arms that come with their segmenter."""


def pilots_of(cell: Cell, factors: Sequence[float], *, seed: int, size: int, epoch: int) -> list[Cell]:
    """Return the shorter runs that choose the learning rate of ``cell``; none where there is nothing to choose.

    All cells of an arm and segmenter share them: one seed, one size.

    Args:
        cell: the cell to be scored.
        factors: on the arm's learning rate.
        seed: of the shorter runs.
        size: training cases of the shorter runs.
        epoch: updates that a run is a multiple of.
    """
    if len(factors) < 2 or cell.arm is Arm.INCONTEXT:
        return []
    updates = max(epoch, int(cell.updates * _PILOT) // epoch * epoch)
    pilot = replace(cell, seed=seed, size=size, updates=updates, purpose=Purpose.RATE)
    return [replace(pilot, factor=factor) for factor in factors]


def scored_cells(
    arms: Iterable[Arm],
    seeds: Sequence[int],
    sizes: Sequence[int],
    segmenters: Sequence[str],
    updates: int,
    factor: float | None = None,
) -> list[Cell]:
    """Return the cells whose scores count, in the order in which they run: seed by seed, all arms of each.

    Args:
        arms: what is compared; those with a segmenter of their own run once.
        seeds: of the trainings.
        sizes: numbers of training cases.
        segmenters: their names.
        updates: of the segmenter in each cell.
        factor: on the learning rates, where there is nothing to choose.
    """
    return [
        Cell(arm, seed, size, segmenter, 0 if arm is Arm.INCONTEXT else updates, factor)
        for seed in seeds
        for size in sorted(sizes, reverse=True)
        for arm in arms
        for segmenter in ([OWN_SEGMENTER[arm]] if arm in OWN_SEGMENTER else segmenters)
    ]
