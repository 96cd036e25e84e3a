"""The numbers in the output of an iteration, whether MONAI has taken it apart into items or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["scalars"]


def scalars(output: Any) -> dict[str, float]:
    """Return every entry of an output that is one number: losses and norms, the same for all items.

    Args:
        output: ``engine.state.output``, a dictionary or a list of one for each item.

    Example:
        >>> import torch
        >>> scalars({"image": torch.zeros(2, 1, 8, 8), "loss": torch.tensor(0.5)})
        {'loss': 0.5}
    """
    item: Mapping[str, Any] = output if isinstance(output, Mapping) else output[0]
    return {
        str(name): float(value)
        for name, value in item.items()
        if isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
    }
