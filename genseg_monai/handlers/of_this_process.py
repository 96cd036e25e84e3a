"""Which handlers run in which of several processes: those that decide in all, those that write in the first alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from monai.handlers import ValidationHandler

from genseg_monai.engines.communication import Communication
from genseg_monai.errors import UserError
from genseg_monai.handlers.artefacts import Forecast
from genseg_monai.handlers.checkpoint import Checkpointer, Resume, StopOnDivergence
from genseg_monai.handlers.early_stop import EarlyStopSearch
from genseg_monai.handlers.synthetic_pairs import WassersteinPairs

__all__ = ["of_this_process"]

_DECIDING = (Resume, Forecast, StopOnDivergence, ValidationHandler, EarlyStopSearch, Checkpointer)


def of_this_process(handlers: Iterable[Any], communication: Communication | None = None) -> list[Any]:
    """Return the handlers that this process is to run.

    Args:
        handlers: of a trainer or an evaluator, as for a process of its own.
        communication: with the other processes; that of the running process if None.

    Returns:
        All of them in the first process. In the others those that take decisions, which have to be taken everywhere:
        resuming, the length of the run, divergence, validation, the end of the search, checkpoints (which they help
        to make and do not write); a handler of another kind if it has an attribute ``every_process`` that is true.

    Raises:
        UserError: ready synthetic pairs are wanted in several processes.

    Example:
        >>> of_this_process(["writes a file", StopOnDivergence("checkpoints")], Communication(rank=1, world=2))
        [<...StopOnDivergence object at ...>]
    """
    communication = communication or Communication.of_this_process()
    handlers = list(handlers)
    if communication.world > 1 and any(isinstance(each, WassersteinPairs) for each in handlers):
        raise UserError("pair_steps", "wanted 0 where several processes train together, got more; train in one process")
    if communication.writes:
        return handlers
    return [each for each in handlers if isinstance(each, _DECIDING) or getattr(each, "every_process", False)]
