"""Start from weights of another network as far as they fit."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn

__all__ = ["misfits", "warm_startable"]

logger = logging.getLogger(__name__)


def misfits(network: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Return the names of weights that a network lacks, that are missing for it, or that have another shape.

    Example:
        >>> misfits(nn.Linear(2, 3), nn.Linear(2, 4).state_dict())
        ['bias', 'weight']
    """
    held = {name: value.shape for name, value in network.state_dict().items()}
    given = {name: value.shape for name, value in weights.items()}
    return sorted(name for name in held.keys() | given.keys() if held.get(name) != given.get(name))


def warm_startable(network: nn.Module) -> nn.Module:
    """Let ``load_state_dict(weights, strict=False)`` leave out weights of another shape instead of failing.

    MONAI Label puts such a loading before every training of a bundle. The weights it finds may be of another kind of
    image, as those the bundle was shipped with: where the number of axes differs, none of them is taken; otherwise
    those that fit are, so that a new class costs the last layer alone.

    Args:
        network: is changed in place; ``strict=True`` refuses such weights as ever, since some are then missing.

    Returns:
        The network.

    Example:
        >>> network = warm_startable(nn.Linear(2, 3))
        >>> network.load_state_dict(nn.Linear(2, 4).state_dict(), strict=False).missing_keys
        ['weight', 'bias']
    """
    network.register_load_state_dict_pre_hook(_leave_out)
    return network


def _leave_out(network: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    held = {prefix + name: value for name, value in network.state_dict().items()}
    other = [name for name, value in weights.items() if name in held and held[name].shape != value.shape]
    if any(held[name].ndim != weights[name].ndim for name in other):
        other = [name for name in weights if name in held]
    for name in other:
        del weights[name]
    if other:
        logger.info("of the weights to start from, %d of %d fit and are taken", len(held) - len(other), len(held))
