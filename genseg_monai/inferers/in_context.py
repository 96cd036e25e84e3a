"""Segment by examples: a network that is shown labelled images (the supports) beside the image (the query).

UniverSeg (Butoi et al., ICCV 2023, arXiv 2304.06131) segments one label a pass. Here, as in its section 3.4, several
draws of supports are averaged. Beyond it: the supports most like the query are taken where there are more than fit;
each member of the ensemble sees query and supports flipped, turned and scaled alike, which is a task of its own; the
passes of several classes are joined by a softmax with the background at logit 0, so that one class gives
the sigmoid of its pass; a class that no chosen support shows is taken to be absent, without a pass; and pictures in
colour become the grey in which the object stands out (`genseg_monai.transforms.colour_axis`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from genseg_monai.inferers.support_set import SupportSet
from genseg_monai.transforms.batch_augment import warp_images
from genseg_monai.transforms.mask_warp import Warp, identity_warp

__all__ = ["InContextSettings", "SupportChoice", "each_member", "in_context", "mean_of"]

_ABSENT = -20.0  # logit of a class that no chosen support shows


class SupportChoice(StrEnum):
    """Which supports are taken where there are more than fit."""

    SIMILAR = "similar"
    """The first member sees those most like the query, each other one a draw from twice as many."""
    RANDOM = "random"
    """Each member sees a draw from all."""


@dataclass(frozen=True)
class InContextSettings:
    """How an image is segmented by examples.

    Args:
        support_size: supports of a pass, at most; UniverSeg was trained with up to 64.
        ensemble: passes whose results are averaged.
        choice: which supports are taken.
        augment: whether the members after the first are flipped, turned and scaled. Without it, and with no
            more supports than fit, all members would be equal and there is one.
        flip: probability of a mirror image along each axis, in [0, 1].
        rotate: largest angle, degrees.
        scale: largest change of size, as a share.
        calibrate: supports, a class, that are segmented by the others to find how far the network is to be believed
            (see `fit_offsets`); once for all images. 0 takes it as it is.
        pairs_at_once: supports in memory at once, about 18 MB each at 128 x 128; a pass has at least its own.
        seed: of the draws.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> InContextSettings(support_size=16).choice
        <SupportChoice.SIMILAR: 'similar'>
    """

    support_size: int = 40
    ensemble: int = 8
    choice: SupportChoice | str = SupportChoice.SIMILAR
    augment: bool = True
    flip: float = 0.5
    rotate: float = 10.0
    scale: float = 0.1
    calibrate: int = 8
    pairs_at_once: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        for name in ("support_size", "ensemble", "pairs_at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted 1 or more, got {getattr(self, name)}")
        if self.choice not in list(SupportChoice):
            raise ValueError(f"choice: wanted {' or '.join(SupportChoice)}, got {self.choice!r}")
        if self.calibrate < 0:
            raise ValueError(f"calibrate: wanted 0 or more, got {self.calibrate}")
        for name, most in (("flip", 1.0), ("rotate", 180.0), ("scale", 0.9)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name}: wanted 0 to {most:g}, got {getattr(self, name)}")


@torch.inference_mode()
def in_context(
    network: nn.Module,
    query: Tensor,
    supports: SupportSet,
    settings: InContextSettings | None = None,
    position: float | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    """Segment one plane.

    Args:
        network: query ``B 1 H W``, support images and labels ``B S 1 H W`` -> logits ``B 1 H W``.
        query: C H W in [0, 1], with the channels and the size of the supports.
        supports: labelled planes of K classes.
        settings: how.
        position: where the plane lies in its volume, in [0, 1]; None for a picture.
        offsets: K-1, added to the logits of each class; see `fit_offsets`.

    Returns:
        K H W, probabilities that sum to one over K.

    Example:
        >>> class Mean(nn.Module):  # where most supports have the label
        ...     def forward(self, query, images, labels):
        ...         return 20 * labels.mean(1) - 10
        >>> supports = SupportSet(torch.rand(3, 1, 8, 8), torch.ones(3, 1, 8, 8, dtype=torch.uint8), ("", "organ"))
        >>> in_context(Mean(), torch.rand(1, 8, 8), supports).argmax(0).sum()
        tensor(64)
    """
    total, seen = query.new_zeros(len(supports.classes) - 1, *query.shape[1:]), torch.zeros_like(query[:1])
    for objects, inside in each_member(network, query, supports, settings or InContextSettings(), position, offsets):
        total, seen = total + objects.sum(0), seen + inside.sum(0)
    return mean_of(total, seen)


def each_member(
    network: nn.Module,
    query: Tensor,
    supports: SupportSet,
    settings: InContextSettings,
    position: float | None = None,
    offsets: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what the members of the ensemble find, as many at once as fit.

    Args:
        network: as for `in_context`.
        query: C H W.
        supports: of K classes.
        settings: how.
        position: of the plane in its volume.
        offsets: K-1, added to the logits of each class.

    Yields:
        Probabilities of the objects, M K-1 H W, 0 where a member does not see a pixel; and which it sees, M 1 H W.
    """
    draws = draw_supports(query, supports, settings, position)
    warp = draw_moves(len(draws), settings)
    at_once = max(1, settings.pairs_at_once // draws.shape[1])
    shifts = torch.zeros(len(supports.classes) - 1) if offsets is None else offsets
    for start in range(0, len(draws), at_once):
        some = slice(start, start + at_once)
        yield _members(network, query, supports, draws[some], _some(warp, some), shifts.to(query.device))


def mean_of(objects: Tensor, seen: Tensor) -> Tensor:
    """Return the mean probabilities, K H W, over the members that see a pixel; the first sees all.

    Args:
        objects: K-1 H W, the sum over the members.
        seen: 1 H W, how many see it.
    """
    objects = objects / seen
    return torch.cat([1 - objects.sum(0, keepdim=True), objects])


def draw_supports(query: Tensor, supports: SupportSet, settings: InContextSettings, position: float | None) -> Tensor:
    """Return the supports of each member of the ensemble, M S; the draws of one query hang on nothing but the seed."""
    count, size = len(supports), min(settings.support_size, len(supports))
    members = settings.ensemble if settings.augment or count > size else 1
    random = torch.Generator().manual_seed(settings.seed)
    if count == size:
        return repeat(torch.arange(count), "S -> M S", M=members)
    if settings.choice == SupportChoice.RANDOM:
        return torch.stack([torch.randperm(count, generator=random)[:size] for _ in range(members)])
    places = None if position is None else torch.tensor([position])
    order = supports.distances(query[None], places)[0].argsort(stable=True).cpu()
    near = order[: 2 * size]
    others = [near[torch.randperm(len(near), generator=random)[:size]] for _ in range(members - 1)]
    return torch.stack([order[:size], *others])


def draw_moves(members: int, settings: InContextSettings) -> Warp | None:
    """Return how each member is moved, the first not at all; None where none is."""
    if not settings.augment or members == 1:
        return None
    random = torch.Generator().manual_seed(settings.seed + 1)
    warp = identity_warp(members, 2)
    flip = torch.where(torch.rand(members, 2, generator=random) < settings.flip, -1.0, 1.0)
    turn = (2 * torch.rand(members, 1, generator=random) - 1) * torch.pi / 180 * settings.rotate
    scale = (1 + settings.scale) ** (2 * torch.rand(members, 1, generator=random) - 1)
    flip[0], turn[0], scale[0] = 1, 0, 1
    return replace(warp, flip=flip, rotate=turn, scale=scale.expand(-1, 2).contiguous())


def undo(warp: Warp) -> Warp:
    """Return the move back: a mirror image turns the other way, so its turn is undone by the same one."""
    return replace(warp, rotate=-warp.rotate * warp.flip.prod(1, keepdim=True), scale=1 / warp.scale)


def _some(warp: Warp | None, some: slice) -> Warp | None:
    if warp is None:
        return None
    return Warp(*(getattr(warp, name)[some] for name in ("flip", "pad", "scale", "translate", "rotate", "shear")))


def _members(
    network: nn.Module, query: Tensor, supports: SupportSet, draws: Tensor, warp: Warp | None, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the probabilities of the objects of each member, M K-1 H W, and which pixels it sees, M 1 H W."""
    draws = draws.to(supports.images.device)
    queries = repeat(supports.view(query).float(), "K H W -> M K 1 H W", M=len(draws))
    labels = rearrange(supports.labels[draws], "M S 1 H W -> M S H W")
    seen = torch.ones_like(queries[:, 0])
    logits = queries.new_full((len(draws), len(supports.classes), *query.shape[1:]), _ABSENT)
    logits[:, 0] = 0
    for index in range(1, len(supports.classes)):
        masks = (labels == index).float()
        shown = masks.flatten(1).any(1)
        if not shown.any():
            continue
        one, images = queries[:, index - 1], supports.views[draws, index - 1].float()
        if warp is not None:
            one, images = warp_images(one, warp), warp_images(images, warp)
            masks = warp_images(masks, warp, "zeros").clamp(0, 1)
        told = network(one[shown].clamp(0, 1), images[shown, :, None].clamp(0, 1), masks[shown, :, None])
        logits[shown, index] = told[:, 0].float() + offsets[index - 1]
    # p_k = exp(l_k) / sum_j exp(l_j) with l_0 = 0: one class gives the sigmoid of its logit
    objects = logits.softmax(1)[:, 1:]
    if warp is None:
        return objects, seen
    back = undo(warp)
    return warp_images(objects, back, "zeros"), warp_images(seen, back, "zeros")
