"""Activations by name, as MONAI's networks take them, and the smooth one that MONAI's factory lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["SMOOTH", "activation_layer", "replace_layers"]

SMOOTH = "silu"
"""The default: the hypergradient takes finite differences of what comes out of the networks, and kinks spoil them."""


def activation_layer(name: str | tuple[Any, dict]) -> tuple[Any, dict] | str:
    """Return an activation in the form MONAI takes: its name, or a class with arguments; "silu" becomes the latter.

    Example:
        >>> activation_layer("silu")
        (<class 'torch.nn.modules.activation.SiLU'>, {})
        >>> activation_layer(("leakyrelu", {"negative_slope": 0.2}))
        ('leakyrelu', {'negative_slope': 0.2})
    """
    return (nn.SiLU, {}) if isinstance(name, str) and name.lower() == SMOOTH else name


def replace_layers(module: nn.Module, kind: type | tuple[type, ...], make: Callable[[Any], nn.Module]) -> None:
    """Replace each layer of a kind, at any depth, where a network has no argument for it.

    Args:
        module: changed in place.
        kind: the class, or classes, of the layers to replace.
        make: returns the new layer for an old one.
    """
    for name, child in module.named_children():
        if isinstance(child, kind):
            setattr(module, name, make(child))
        else:
            replace_layers(child, kind, make)
