"""Look at a finished training with its own data: cases, synthetic images and what they are worth, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genseg_monai.apps.reporting.opened import Opened, spread
from genseg_monai.apps.reporting.pictures import data_uri, mask_tile, outlined, plane, tile
from genseg_monai.apps.reporting.sources import CaseResult, arm_title
from genseg_monai.engines.conditions import Conditions, PairKind, Place, kind_of
from genseg_monai.inferers.generator_files import load_generator
from genseg_monai.metrics.calibration import Calibration, calibrate, sample_voxels
from genseg_monai.metrics.kernel_distance import KINDS, SMALLEST, KernelDistance, kernel_distance, texture_features
from genseg_monai.metrics.synthetic import (
    Memorisation,
    diversity,
    memorisation,
    nearest_is_trained,
    obedience,
    thumbnails,
)

__all__ = [
    "CaseLook",
    "SyntheticLook",
    "Tested",
    "how_far_apart",
    "look_at_calibration",
    "look_at_cases",
    "look_at_synthetic",
]

_MOST = 64  # cases of a measure
_VOXELS = 5000  # of an image


@dataclass(frozen=True)
class CaseLook:
    """A case to be shown.

    Attributes:
        rank: ``best``, ``median`` or ``worst``.
        case: its name.
        dice: by arm.
        image: data URI.
        overlay: data URI, the outlines on the image.
    """

    rank: str
    case: str
    dice: dict[str, float]
    image: str
    overlay: str


def look_at_cases(opened: Opened, arms: Mapping[str, Sequence[CaseResult]], arm: str) -> list[CaseLook]:
    """Return the best, the median and the worst case of an arm, by Dice.

    Args:
        opened: the training.
        arms: scores by arm.
        arm: whose masks are drawn.
    """
    network = opened.segmenter(arm)
    known = {str(case["case"]): case for case in opened.cases("score") if case.get("case")}
    ranked = sorted((one for one in arms.get(arm, ()) if one.case in known), key=lambda one: -one.scores["dice"])
    if network is None or not ranked:
        return []
    picked = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    found: list[CaseLook] = []
    for rank, place in picked.items():
        name = ranked[place].case
        if name in {one.case for one in found}:
            continue
        image, truth, prediction = (x.numpy() for x in opened.predicted(network, known[name]))
        guide = truth if truth.any() else prediction
        shown, *masks = [plane(x, guide) for x in (image, truth[None], prediction[None])]
        dice = {other: one.scores["dice"] for other in arms for one in arms[other] if one.case == name}
        overlay = data_uri(outlined(shown, masks[0][0], masks[1][0]))
        found.append(CaseLook(rank, name, dice, data_uri(tile(shown)), overlay))
    return found


@dataclass(frozen=True)
class SyntheticLook:
    """What the synthetic images of a training are worth.

    Attributes:
        panel: rows of data URIs: real, mask, synthetic, warped mask, synthetic of it.
        judge: arm of the segmenter that looked at the images.
        obeyed: kind of masks -> Dice of what it saw against the mask, one an image.
        real: the same on real test images, what the judge can do.
        copies: kind of masks -> distances to training images.
        trained: kind of masks -> share whose nearest real image is a training image; empty without other images.
        chance: what that share would be by chance.
        spread: mean distance between two images: ``real``, ``synthetic``, ``one mask`` (drawn twice from one mask).
        scenes: whether only the objects are drawn, into real images.
        apart: kind of images -> distance of their distribution from that of the held-out images; empty with few.
    """

    panel: list[list[str]]
    judge: str
    obeyed: dict[str, list[float]]
    real: list[float]
    copies: dict[str, Memorisation]
    trained: dict[str, float]
    chance: float
    spread: dict[str, float]
    scenes: bool = False
    apart: dict[str, KernelDistance] = field(default_factory=dict)


_FEWEST_APART = 5  # images of each kind
_AS_DRAWN, _MOVED = "training masks", "moved and bent masks"


def look_at_synthetic(opened: Opened, judge: tuple[str, nn.Module] | None = None, rows: int = 4) -> SyntheticLook:
    """Draw synthetic images for the masks of the training cases, and measure them.

    Args:
        opened: the training; it has to have left a generator.
        judge: arm and segmenter that look at the images; by default one that has seen no synthetic image.
        rows: of the panel.
    """
    cases = [opened.cases("train")[i] for i in spread(len(opened.cases("train")), _MOST)]
    images, masks = opened.load(cases)
    generator = load_generator(opened.run.root / "models" / "generator", opened.device)
    place = opened.parser.get("place", Place.OWN)
    kind = kind_of(generator, opened.parser.get("synthesis"))
    conditions = Conditions(kind, opened.part("warp_ranges"), place=place)
    random = torch.Generator().manual_seed(0)
    _, _, own = conditions.of_real(images, masks, random)
    moved, warped = conditions.of_synthetic(images, masks, random)
    drawn = {_AS_DRAWN: opened.call(generator, own), _MOVED: opened.call(generator, moved)}
    name, network = judge or _judge(opened)
    test_images, test_masks = opened.load(_spread_cases(opened.cases("score")))
    groups = [str(case.get("group") or case.get("case") or i) for i, case in enumerate(cases)]
    small = thumbnails(images)
    twice = opened.call(generator, own[:1]), opened.call(generator, own[:1])
    given = {_AS_DRAWN: masks, _MOVED: warped}
    return SyntheticLook(
        _panel([images, masks, drawn[_AS_DRAWN], warped, drawn[_MOVED]], rows),
        name,
        {kind: obedience(opened.call(network, made), given[kind]).tolist() for kind, made in drawn.items()},
        obedience(opened.call(network, test_images), test_masks).tolist(),
        {kind: memorisation(thumbnails(made), small, groups) for kind, made in drawn.items()}
        if len(set(groups)) > 1
        else {},
        {kind: nearest_is_trained(thumbnails(made), small, thumbnails(test_images)) for kind, made in drawn.items()},
        len(small) / (len(small) + len(test_images)),
        {
            "real": diversity(small),
            "synthetic": diversity(thumbnails(drawn[_MOVED])),
            "one mask": diversity(thumbnails(torch.cat(twice))),
        },
        kind is PairKind.SCENES,
        how_far_apart({"training images": images, **drawn}, test_images),
    )


def how_far_apart(shown: dict[str, Tensor], real: Tensor) -> dict[str, KernelDistance]:
    """Return how far the distribution of each kind of images is from that of real ones."""
    if min(len(real), *(len(one) for one in shown.values())) < _FEWEST_APART or min(real.shape[2:]) < SMALLEST:
        return {}
    held = texture_features(real)
    return {kind: kernel_distance(texture_features(one), held, kinds=KINDS) for kind, one in shown.items()}


@dataclass(frozen=True)
class Tested:
    """Calibration on the test cases.

    Attributes:
        cases: how many were looked at.
        before: of the probabilities as they are.
        after: with the temperature of the training.
        temperature: which that is.
    """

    cases: int
    before: Calibration
    after: Calibration
    temperature: float


def look_at_calibration(opened: Opened) -> Tested | None:
    """Measure the calibration of the trained segmenter on the cases of the scores, None where there is none."""
    network, cases = opened.segmenter(), _spread_cases(opened.cases("score"))
    if network is None or not cases:
        return None
    images, masks = opened.load(cases)
    logits = opened.call(network, images).float()
    labels = masks.argmax(1, keepdim=True)
    chosen, truth = sample_voxels(logits, labels, _VOXELS, torch.Generator().manual_seed(0))
    temperature = float((opened.run.temperature or {}).get("temperature", 1.0))
    before, after = (calibrate((chosen / t).softmax(1).cpu(), truth.cpu()) for t in (1.0, temperature))
    return Tested(len(cases), before, after, temperature)


def _spread_cases(cases: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [cases[i] for i in spread(len(cases), _MOST)]


def _judge(opened: Opened) -> tuple[str, nn.Module]:
    """Return a segmenter that has learnt from real images alone, else GenSeg's own."""
    for arm in ("augment", "plain"):
        if (network := opened.segmenter(arm)) is not None:
            return arm_title(arm), network
    own = opened.segmenter()
    assert own is not None
    return arm_title(opened.run.own), own


def _panel(columns: list[Tensor], rows: int) -> list[list[str]]:
    """Return pictures of the first items, masks as colours."""
    found = []
    for i in spread(len(columns[0]), rows):
        line = []
        guide = columns[1][i].argmax(0).cpu().numpy()
        for place, column in enumerate(columns):
            entry = column[i].cpu()
            if place in (1, 3):
                indices = entry.argmax(0).numpy()
                line.append(data_uri(mask_tile(plane(indices[None], indices)[0], 176)))
            else:
                line.append(data_uri(tile(plane(entry.numpy(), guide), 176)))
        found.append(line)
    return found
