"""How much a network that segments by examples has to be believed: learned from the examples themselves.

A network trained on objects of every size finds the small and the faint ones with too little confidence, and never the
same for two data sets. Each of a few supports is segmented by the others, and a number is sought that, added to every
logit of a class, gives the best mean Dice; 0 unless it helps. No query is looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genseg_monai.inferers.support_set import SupportSet

__all__ = ["fit_offsets"]

_OFFSETS = (-6.0, 6.0, 49)  # from, to, how many
_COST = 0.003  # mean Dice that an offset of one has to bring: a few supports tell little


@torch.inference_mode()
def fit_offsets(
    network: nn.Module, supports: SupportSet, *, support_size: int = 40, held: int = 8, seed: int = 0
) -> Tensor:
    """Return what to add to the logits of each class.

    Args:
        network: query ``B 1 H W``, support images and labels ``B S 1 H W`` -> logits ``B 1 H W``.
        supports: labelled planes of K classes.
        support_size: supports of a pass, at most.
        held: supports that are segmented by the others, a class; 0 fits nothing.
        seed: of their choice.

    Returns:
        K-1; 0 for a class that fewer than two cases show.

    Example:
        >>> class Timid(nn.Module):  # sees the object, and never believes it
        ...     def forward(self, query, images, labels):
        ...         return 4 * query - 4
        >>> labels = torch.zeros(5, 1, 16, 16, dtype=torch.uint8)
        >>> labels[:, :, 4:9, 4:9] = 1
        >>> float(fit_offsets(Timid(), SupportSet(0.9 * labels, labels, ("", "lesion"))))
        0.5
    """
    offsets = torch.zeros(len(supports.classes) - 1, device=supports.images.device)
    grid = torch.linspace(*_OFFSETS, device=offsets.device)
    random = torch.Generator().manual_seed(seed)
    for index in range(1, len(supports.classes)):
        shown = (supports.labels == index).flatten(1).any(1).nonzero()[:, 0].cpu()
        if len(supports.cases[shown].unique()) < 2:
            continue
        chosen = shown[torch.randperm(len(shown), generator=random)[:held]]
        found = [
            _dice(_logits(network, supports, int(i), index, support_size), supports, int(i), index, grid)
            for i in chosen
        ]
        if found:
            gain = torch.stack(found).mean(0) - _COST * grid.abs()
            best = gain.max()
            # of equally good ones the middle: a Dice that does not change says nothing about the place
            alike = (gain >= best - _COST * (grid[1] - grid[0]) / 2).nonzero()[:, 0]
            offsets[index - 1] = grid[alike[len(alike) // 2]] if gain[len(grid) // 2] < best else 0
    return offsets


def _logits(network: nn.Module, supports: SupportSet, held: int, index: int, size: int) -> Tensor:
    """Return the logits of one class in a support, H W, by the most similar planes of other cases."""
    place = supports.positions[held : held + 1]
    order = supports.distances(supports.images[held : held + 1], place)[0].argsort(stable=True)
    cases = supports.cases.to(order.device)
    others = order[cases[order] != cases[held]][:size]
    masks = (supports.labels[others] == index).float()
    if not masks.any():
        return torch.full_like(masks[0, 0], -torch.inf)
    images = supports.views[others, index - 1].float().clamp(0, 1)
    query = supports.views[held : held + 1, index - 1].float().clamp(0, 1)
    told: Tensor = network(query[:, None], images[None, :, None], masks[None])
    return told[0, 0].float()


def _dice(logits: Tensor, supports: SupportSet, held: int, index: int, grid: Tensor) -> Tensor:
    """Return the Dice with each offset of the grid."""
    truth = supports.labels[held, 0] == index
    masks = (logits[None] + grid[:, None, None]) > 0
    return 2 * (masks & truth).flatten(1).sum(1) / (masks.flatten(1).sum(1) + truth.sum())
