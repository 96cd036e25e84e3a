"""The numbers in the output of an iteration, whether MONAI has taken it apart into items or not."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["entries", "read", "scalars"]

_Name = TypeVar("_Name", bound=Hashable)


def scalars(output: Any) -> dict[str, float]:
    """Return every entry of an output that is one number: losses and norms, the same for all items.

    Args:
        output: ``engine.state.output``, a dictionary or a list of one for each item.

    Example:
        >>> scalars({"image": torch.zeros(2, 1, 8, 8), "loss": torch.tensor(0.5)})
        {'loss': 0.5}
    """
    return read(entries(output))


def entries(output: Any) -> dict[str, float | Tensor]:
    """Return the same as they are: a tensor is not read, so that a GPU need not be waited for.

    Args:
        output: ``engine.state.output``, a dictionary or a list of one for each item.

    Example:
        >>> entries({"image": torch.zeros(2, 1, 8, 8), "loss": torch.tensor(0.5)})
        {'loss': tensor(0.5000)}
    """
    item: Mapping[str, Any] = output if isinstance(output, Mapping) else output[0]
    return {
        str(name): value.detach().reshape(()) if isinstance(value, Tensor) else value
        for name, value in item.items()
        if isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
    }


def read(values: Mapping[_Name, float | Tensor]) -> dict[_Name, float]:
    """Return numbers; those that lie on a GPU are fetched together, since each time it is waited for.

    Example:
        >>> read({"a": torch.tensor(0.5), "b": 2})
        {'a': 0.5, 'b': 2.0}
    """
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    fetched = dict(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True)) if tensors else {}
    return {name: float(fetched.get(name, value)) for name, value in values.items()}
