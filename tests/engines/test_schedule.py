"""Phases and learning rates are functions of the iteration number."""

from __future__ import annotations

import pytest

from genseg_monai.engines.schedule import Phase, Schedule, Shares
from genseg_monai.errors import UserError


@pytest.mark.parametrize("total", [6, 7, 50, 1001])
@pytest.mark.parametrize("baselines", [[], ["plain"], ["plain", "augment"]])
def test_every_iteration_belongs_to_one_phase_in_order(total, baselines):
    schedule = Schedule.from_total(total, Shares(), baselines)
    assert schedule.total == total
    phases = [schedule.locate(i)[0] for i in range(total)]
    assert list(dict.fromkeys(phases)) == [*list(Phase)[:4], *[Phase(name) for name in baselines]]
    assert phases == sorted(phases, key=list(Phase).index)
    with pytest.raises(IndexError, match=str(total)):
        schedule.locate(total)


@pytest.mark.parametrize("shares", [Shares(1, 2, 1, 2), Shares(), Shares(0.3, 0.1, 0, 0.7)])
@pytest.mark.parametrize("total", [20, 101, 997, 1200, 2400])
def test_baselines_get_as_many_updates_as_the_segmenter_of_genseg(total, shares):
    schedule = Schedule.from_total(total, shares, ["plain", "augment"])
    assert schedule.steps[Phase.PLAIN] == schedule.steps[Phase.AUGMENT] == schedule.segmenter_updates
    assert schedule.total == total
    assert min(steps for phase, steps in schedule.steps.items() if shares.fine_tune or phase != "fine_tune") >= 1


def test_both_follow_the_same_learning_rate():
    schedule = Schedule.from_total(2400, Shares(1, 2, 1, 2), ["plain"])
    genseg = [schedule.segmenter_rate(Phase.SEARCH, i) for i in range(schedule.steps[Phase.SEARCH])]
    genseg += [schedule.segmenter_rate(Phase.FINAL_FIT, i) for i in range(schedule.steps[Phase.FINAL_FIT])]
    plain = [schedule.segmenter_rate(Phase.PLAIN, i) for i in range(schedule.steps[Phase.PLAIN])]
    assert genseg == pytest.approx(plain)
    assert genseg[0] == 1.0
    assert genseg[-1] == pytest.approx(0.01, abs=1e-3)


def test_the_share_of_the_updates_ends_with_all_of_them():
    schedule = Schedule.from_total(100, Shares(1, 1, 1, 1))
    last = schedule.steps[Phase.SEARCH] - 1
    assert schedule.fitted(Phase.SEARCH, last) + 1 / schedule.segmenter_updates == schedule.fitted(Phase.FINAL_FIT, 0)
    assert schedule.fitted(Phase.FINAL_FIT, schedule.steps[Phase.FINAL_FIT] - 1) == 1


def test_a_phase_without_share_has_no_iterations():
    schedule = Schedule.from_total(10, Shares(warm_up=0, search=0, fine_tune=0, final_fit=1))
    assert schedule.steps == {Phase.WARM_UP: 0, Phase.SEARCH: 0, Phase.FINE_TUNE: 0, Phase.FINAL_FIT: 10}


def test_wrong_settings_say_what_was_wanted():
    with pytest.raises(UserError, match="wanted any of plain, augment, got 'nnunet'"):
        Schedule.from_total(100, Shares(), ["nnunet"])
    with pytest.raises(UserError, match="at least 4 iterations in all, got 3"):
        Schedule.from_total(3, Shares())
    with pytest.raises(UserError, match="weights >= 0"):
        Shares(search=-1)


def test_a_run_without_search_follows_the_curve_of_one_with_it() -> None:
    searched = Schedule.from_total(100, Shares(warm_up=0, search=40, fine_tune=0, final_fit=60))
    alone = Schedule.from_total(100, Shares(warm_up=0, search=0, fine_tune=0, final_fit=100, hold=0.4))
    rates = [searched.segmenter_rate(*searched.locate(i)) for i in range(100)]
    assert [alone.segmenter_rate(*alone.locate(i)) for i in range(100)] == rates
    assert rates[39] == rates[40] == 1.0
    assert rates[-1] < 0.02


def test_poly_decay_is_that_of_nnunet() -> None:
    schedule = Schedule.from_total(50, Shares(warm_up=0, search=0, fine_tune=0, final_fit=1, decay="poly"))
    rates = [schedule.segmenter_rate(Phase.FINAL_FIT, step) for step in range(50)]
    assert rates == pytest.approx([(1 - step / 50) ** 0.9 for step in range(50)])


def test_wrong_curves() -> None:
    with pytest.raises(UserError, match=r"shares: wanted hold in \[0, 1\), got 1"):
        Shares(hold=1)
    with pytest.raises(UserError, match="shares: wanted decay cosine or poly, got 'linear'"):
        Shares(decay="linear")
