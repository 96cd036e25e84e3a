"""The numbers in the output of an iteration, whether MONAI has taken it apart into items or not."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from torch import Tensor

__all__ = ["scalars"]


def scalars(engine: Engine) -> dict[str, float]:
    """Return every entry of ``engine.state.output`` that is one number: losses and norms, the same for all items.

    Example:
        >>> import torch
        >>> engine = Engine(lambda engine, batch: None)
        >>> engine.state.output = {"image": torch.zeros(2, 1, 8, 8), "loss": torch.tensor(0.5)}
        >>> scalars(engine)
        {'loss': 0.5}
    """
    output: Any = engine.state.output
    item = output[0] if isinstance(output, list) else output
    return {
        str(name): float(value)
        for name, value in item.items()
        if isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
    }
