"""A TensorBoard writer that makes no file before it has something to write: a run that is refused leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LazyWriter"]


class LazyWriter:
    """What MONAI's TensorBoard handlers need of a ``SummaryWriter``; one serves several of them.

    Args:
        log_dir: folder of the event file.

    Example:
        >>> LazyWriter("logs").flush()
    """

    def __init__(self, log_dir: str | Path) -> None:
        self.log_dir = str(log_dir)
        self._writer: Any = None

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write one value of one curve."""
        self._opened().add_scalar(tag, value, step)

    def add_image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Write a picture, H W 3 of uint8."""
        self._opened().add_image(tag, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Bring what was written to the disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write what is left; nothing is written after it."""
        if self._writer is not None:
            self._writer.close()

    def _opened(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.log_dir)
        return self._writer
