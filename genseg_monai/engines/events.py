"""Events of the three-stage loop, for handlers."""

from __future__ import annotations

from ignite.engine import EventEnum

__all__ = ["StageEvents"]


class StageEvents(EventEnum):
    """Fired by `GenSegTrainer` beside ignite's and MONAI's own events."""

    PHASE_STARTED = "phase_started"
    PHASE_COMPLETED = "phase_completed"
    GENERATOR_STEP_COMPLETED = "generator_step_completed"
    """Stage I is done."""
    SEGMENTER_STEP_COMPLETED = "segmenter_step_completed"
    """Stage II is done."""
    OUTER_STEP_COMPLETED = "outer_step_completed"
    """Stage III is done: alpha has moved."""
    DERIVED = "derived"
    """The search is over: ``trainer.genotype`` is set and the generator is a plain network."""
