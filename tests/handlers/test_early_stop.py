"""The search ends when validation stops rising; the rest of the run follows, shorter by as much."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ignite.engine import Events

from genseg_monai.engines import LoopSettings, StageEvents, load_state, take_state
from genseg_monai.engines.schedule import Phase, Schedule, Shares
from genseg_monai.handlers import EarlyStopSearch
from tests.engines.tiny import EPOCHS, LENGTH, make_trainer

SEARCHY = LoopSettings(shares=Shares(1, 8, 1, 2), baselines=("plain",), outer_after=0)


def _evaluator(trainer, scores):
    """Stand in for a validation engine that has the given score at the end of each epoch."""
    state = SimpleNamespace(metrics={}, key_metric_name="dice", epoch=-1)

    @trainer.on(Events.EPOCH_COMPLETED)
    def _validate(engine):
        state.epoch, state.metrics = engine.state.epoch, {"dice": scores[min(engine.state.epoch, len(scores)) - 1]}

    return SimpleNamespace(state=state)


def _run(scores, patience):
    trainer = make_trainer(settings=SEARCHY)
    evaluator = _evaluator(trainer, scores)
    EarlyStopSearch(evaluator, patience).attach(trainer)
    phases = []
    trainer.add_event_handler(StageEvents.PHASE_COMPLETED, lambda engine: phases.append(engine.phase))
    trainer.run()
    return trainer, phases


def test_a_rising_score_changes_nothing():
    trainer, phases = _run([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], patience=1)
    assert trainer.state.iteration == EPOCHS * LENGTH
    assert phases == [Phase.WARM_UP, Phase.SEARCH, Phase.FINE_TUNE, Phase.FINAL_FIT, Phase.PLAIN]


def test_a_score_that_falls_ends_the_search_but_no_other_phase():
    full = Schedule.from_total(EPOCHS * LENGTH, SEARCHY.shares, SEARCHY.baselines)
    trainer, phases = _run([0.5, 0.4], patience=1)
    assert phases == [Phase.WARM_UP, Phase.SEARCH, Phase.FINE_TUNE, Phase.FINAL_FIT, Phase.PLAIN]
    lost = full.steps[Phase.SEARCH] - trainer.schedule.steps[Phase.SEARCH]
    assert lost > 0
    assert trainer.schedule.steps[Phase.PLAIN] == trainer.schedule.segmenter_updates
    assert trainer.state.iteration == trainer.schedule.total == full.total - 2 * lost


def test_no_patience_given_is_no_early_stop():
    trainer, _ = _run([0.5, 0.4], patience=None)
    assert trainer.state.iteration == EPOCHS * LENGTH


def test_a_resumed_run_that_had_ended_early_is_over():
    trainer, _ = _run([0.5, 0.4], patience=1)
    again = make_trainer(settings=SEARCHY)
    again.add_event_handler(Events.STARTED, lambda engine: load_state(engine, take_state(trainer)))
    again.run()
    assert again.state.iteration == trainer.state.iteration
    assert again.search_scores == trainer.search_scores == pytest.approx([0.5, 0.4])
