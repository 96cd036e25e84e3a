"""All random states of a process: taken, put back, and replayed so that two passes see the same dropout masks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["RandomState", "capture_all", "capture_torch", "replayed", "restore_all"]


RandomState = tuple[torch.Tensor, torch.Tensor | None]
"""Of the CPU, and of a CUDA device."""


def capture_torch(device: torch.device) -> RandomState:
    """Return torch's random state on the CPU and on ``device``."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def replayed(state: RandomState, device: torch.device) -> Iterator[None]:
    """Run the block from ``state``; afterwards torch's random state is what it was before the block."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], device)
        yield


def capture_all() -> dict[str, Any]:
    """Return the states of Python, NumPy and torch as plain numbers and tensors (loadable with ``weights_only``)."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=True)  # noqa: NPY002 (the global state of libraries)
    name, keys, position, has_gauss, cached = numpy_state
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), torch.tensor(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_all(state: dict[str, Any]) -> None:
    """Put back what `capture_all` took; CUDA states are skipped where there is no such device."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    for index, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, index)
