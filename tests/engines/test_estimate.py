"""A rehearsal costs time and nothing else, and its result turns minutes into epochs."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from ignite.engine import Events

from genseg_monai.engines import Estimate, LoopSettings, Phase, Schedule, Shares, StageEvents, estimate, measure
from genseg_monai.engines.estimate import Cost, epochs_within, parse_budget
from genseg_monai.errors import UserError
from genseg_monai.handlers import Forecast
from tests.engines.tiny import EPOCHS, LENGTH, differing, frozen_state, make_trainer

SEARCH_ALONE = Shares(warm_up=0, search=1, fine_tune=0, final_fit=0)


@pytest.mark.parametrize("kind", ["plain", "dropout", "batch_norm"])
def test_a_rehearsal_leaves_everything_as_it_was(kind):
    trainer = make_trainer(kind=kind)
    before, players = frozen_state(trainer), vars(trainer.players).copy()
    found = measure(trainer)
    assert set(found.seconds) == set(Phase)
    assert min(found.seconds.values()) > 0
    assert found.peak_bytes > 2**20
    assert differing(before, frozen_state(trainer)) == []
    after = vars(trainer.players)
    assert all(after[name] is players[name] for name in ("network", "generator", "optimizer", "generator_optimizer"))
    assert (trainer.phase, trainer.genotype, trainer.rehearsing) == (None, None, False)
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


def test_a_run_after_a_rehearsal_is_the_run_without_it():
    states = []
    for rehearsed in (False, True):
        trainer = make_trainer(kind="dropout")
        torch.manual_seed(1)
        if rehearsed:
            measure(trainer)
        trainer.run()
        states.append(frozen_state(trainer))
    assert differing(*states) == []


def test_a_rehearsal_announces_nothing():
    trainer = make_trainer()
    heard: list[Any] = []
    for event in StageEvents:
        trainer.add_event_handler(event, lambda e, name: heard.append(name), event)
    measure(trainer)
    assert heard == []


def test_a_rehearsal_that_fails_leaves_everything_as_it_was(monkeypatch):
    trainer = make_trainer()
    before = frozen_state(trainer)

    def fail(*args: Any) -> Cost:
        if trainer.phase is Phase.PLAIN:
            raise MemoryError
        return Cost(1.0, 1.0)

    monkeypatch.setattr(estimate, "_timed", fail)
    with pytest.raises(MemoryError):
        measure(trainer)
    assert differing(before, frozen_state(trainer)) == []
    assert not trainer.rehearsing


@pytest.mark.parametrize(("every", "due"), [(0, 0), (1, 17), (2, 9), (4, 5)])
def test_the_search_costs_what_its_outer_steps_cost(monkeypatch, every, due):
    settings = LoopSettings(SEARCH_ALONE, (), outer_every=every, outer_after=3)

    def timed(trainer: Any, phase: Phase, step: int, repeats: int) -> Cost:
        return Cost(10.0, 5.0) if settings.outer_due(step) else Cost(2.0, 1.0)

    monkeypatch.setattr(estimate, "_timed", timed)
    trainer = make_trainer(settings=settings, max_epochs=5)
    found = measure(trainer)
    assert (found.seconds, found.outer, found.busy) == ({Phase.SEARCH: 2.0}, 8.0 if every else 0.0, 2.0)
    assert found.total(trainer.schedule) == pytest.approx(1.1 * (20 * 2.0 + due * 8.0) + found.ends)
    assert found.total(trainer.schedule, cpu=True) == pytest.approx(found.total(trainer.schedule) / 2)


@pytest.mark.parametrize(("until", "late"), [(1.0, 0), (0.75, 5), (0.5, 10)])
def test_the_final_fit_costs_what_it_costs_with_synthetic_pairs_and_without(monkeypatch, until, late):
    settings = LoopSettings(Shares(0, 1, 0, 1), (), outer_every=0, synthetic_until=until)
    trainer = make_trainer(settings=settings, max_epochs=5)

    def timed(trainer: Any, phase: Phase, step: int, repeats: int) -> Cost:
        trainer.size_batch(phase, step)
        return Cost(2.0, 2.0) if trainer.loader.batch_size == trainer.batch_size else Cost(3.0, 3.0)

    monkeypatch.setattr(estimate, "_timed", timed)
    found = measure(trainer)
    assert trainer.schedule.steps[Phase.FINAL_FIT] == 10
    assert found.total(trainer.schedule) == pytest.approx(
        1.1 * (10 * 2.0 + (10 - late) * 2.0 + late * 3.0) + found.ends
    )


def test_the_rehearsal_sees_the_largest_batch_of_the_final_fit(monkeypatch):
    settings = LoopSettings(Shares(0, 1, 0, 1), (), outer_every=0, synthetic_until=0.75)
    trainer = make_trainer(settings=settings, max_epochs=5)
    seen: set[tuple[Phase, int]] = set()
    take = trainer.take

    def noted(phase: Phase, step: int, images: Any, *rest: Any) -> Any:
        seen.add((phase, len(images)))
        return take(phase, step, images, *rest)

    monkeypatch.setattr(trainer, "take", noted)
    measure(trainer, repeats=1)
    batch = trainer.batch_size
    assert seen == {(Phase.SEARCH, batch), (Phase.FINAL_FIT, batch), (Phase.FINAL_FIT, 2 * batch)}
    assert trainer.loader.batch_size == batch


@pytest.mark.parametrize(("after", "any_length", "due"), [(3, False, True), (20, False, False), (20, True, True)])
def test_stage_three_is_rehearsed_where_the_search_lasts_until_it_or_may_come_to(monkeypatch, after, any_length, due):
    settings = LoopSettings(SEARCH_ALONE, (), outer_every=4, outer_after=after)
    asked: list[int] = []

    def timed(trainer: Any, phase: Phase, step: int, repeats: int) -> Cost:
        asked.append(step)
        return Cost(1.0, 1.0)

    monkeypatch.setattr(estimate, "_timed", timed)
    measure(make_trainer(settings=settings, max_epochs=5), any_length=any_length)
    assert asked == [-1, after][: 1 + due]


def test_the_least_of_some_iterations_counts(monkeypatch):
    """One of them may have been interrupted by other work."""
    now = iter([0.0, 9.0, 9.0, 10.0, 10.0, 15.0, 15.0, 17.0])
    monkeypatch.setattr(estimate, "_clock", lambda device: next(now))
    trainer = make_trainer()
    trainer.enter(Phase.WARM_UP)
    assert estimate._timed(trainer, Phase.WARM_UP, -1, 3).wall == 1.0


def test_phases_without_iterations_are_not_rehearsed():
    found = measure(make_trainer(settings=LoopSettings(Shares(0, 1, 0, 1), ())))
    assert set(found.seconds) == {Phase.SEARCH, Phase.FINAL_FIT}


def test_the_total_adds_up_the_phases():
    schedule = Schedule.from_total(40, Shares(1, 1, 1, 1))
    seconds = {phase: float(i) for i, phase in enumerate(schedule.steps)}
    assert Estimate(seconds, 0).total(schedule) == pytest.approx(1.1 * (0 + 10 + 20 + 30))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("45", 45), (45, 45), (0.5, 0.5), (" 2H ", 7200), ("1e2s", 100)],
)
def test_a_budget_is_a_time(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "half an hour", "0", "-5m", "inf", "nan", "30min", "1d", "1h30m"])
def test_what_is_no_budget_says_what_is_wanted(text):
    with pytest.raises(UserError, match=r"--budget: wanted a time such as 90s, 30m or 1.5h, got '.*'"):
        parse_budget(text)


def test_a_budget_becomes_the_epochs_that_fit():
    trainer = make_trainer()
    second_each = Estimate(dict.fromkeys(Phase, 1.0), 0)
    for budget in (0.001, 60.0, 1000.0):
        epochs = epochs_within(second_each, trainer, budget)
        assert epochs >= 2  # 8 iterations for six phases
        total = Schedule.from_total(epochs * LENGTH, trainer.settings.shares, trainer.settings.baselines)
        assert epochs == 2 or second_each.total(total) <= budget
        more = Schedule.from_total((epochs + 1) * LENGTH, trainer.settings.shares, trainer.settings.baselines)
        assert second_each.total(more) > budget


def test_the_forecast_sets_the_length_of_the_run_and_says_what_it_costs(monkeypatch, caplog):
    monkeypatch.setattr(estimate, "_timed", lambda *args: Cost(1.0, 1.0))
    monkeypatch.setattr(estimate, "_ENDS", 2.0)
    trainer = make_trainer(train_handlers=[Forecast("90s")])
    trainer.add_event_handler(Events.EPOCH_STARTED(once=1), lambda e: e.terminate())
    with caplog.at_level(logging.INFO, logger="genseg_monai"):
        trainer.run()
    assert trainer.state.max_epochs == 20  # 80 iterations of 1.1 s
    assert trainer.schedule.total == 80
    assert any(text.startswith("expected: 1.5 minutes, ") and "search 11 x 1 s" in text for text in caplog.messages)


def test_the_smallest_budget_gives_a_run_with_every_phase():
    trainer = make_trainer(train_handlers=[Forecast("0.001s")], epoch_length=8)
    trainer.run()
    assert trainer.state.iteration == 8
    assert set(trainer.players.trained) == {Phase.PLAIN, Phase.AUGMENT}


def test_a_budget_too_small_for_the_phases_of_short_epochs_still_runs():
    trainer = make_trainer(train_handlers=[Forecast("0.001s")])
    trainer.run()
    assert trainer.state.iteration == 2 * LENGTH


def test_no_forecast_where_none_is_wanted(monkeypatch):
    monkeypatch.setattr("genseg_monai.handlers.artefacts.measure", lambda trainer: pytest.fail("measured"))
    trainer = make_trainer(train_handlers=[Forecast(wanted=False)])
    trainer.run()
    assert trainer.state.iteration == EPOCHS * LENGTH
