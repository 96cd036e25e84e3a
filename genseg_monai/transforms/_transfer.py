"""Numbers drawn on the CPU on their way to the device, without waiting for what the device is doing."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["send"]


def send(value: Tensor, device: torch.device | str) -> Tensor:
    """Return ``value`` on ``device``; from the CPU to a GPU its copy is queued behind the work that is under way there.

    Example:
        >>> send(torch.ones(2), "cpu")
        tensor([1., 1.])
    """
    if value.device.type == "cpu" and torch.device(device).type == "cuda" and not value.requires_grad:
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)
