"""End the search when the validation score has stopped rising; the phases after it go on."""

from __future__ import annotations

import logging
from typing import Any

from ignite.engine import Engine, Events

from genseg_monai.engines.schedule import Phase

__all__ = ["EarlyStopSearch"]

logger = logging.getLogger(__name__)


class EarlyStopSearch:
    """Watch the validation score of the search phase. MONAI's own early stop would end the whole run.

    The scores seen so far are part of the trainer's state, so that a resumed run stops at the same place.

    Args:
        evaluator: the validation engine; its key metric is watched.
        patience: validations without a new best before the search ends; ``None`` never.
    """

    def __init__(self, evaluator: Any, patience: int | None = None) -> None:
        self.evaluator, self.patience = evaluator, patience

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`, after the ValidationHandler."""
        if self.patience is not None:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Note the score of a validation that has just been made, and end the search if it is time."""
        validation = self.evaluator.state
        if engine.phase is not Phase.SEARCH or not validation.metrics or validation.epoch != engine.state.epoch:
            return
        engine.search_scores.append(float(validation.metrics[validation.key_metric_name]))
        best = engine.search_scores.index(max(engine.search_scores))
        if len(engine.search_scores) - 1 - best >= (self.patience or 0):
            logger.info("no better validation score for %d validations: the search ends here", self.patience)
            engine.end_search()
