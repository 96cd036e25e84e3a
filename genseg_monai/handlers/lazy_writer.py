"""A TensorBoard writer that makes no file before it has something to write: a run that is refused leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.log_dir)
        self._writer.add_scalar(tag, value, step)

    def flush(self) -> None:
        """Bring what was written to the disk."""
        if self._writer is not None:
            self._writer.flush()
