"""Which cases move what, and that the baselines get as much as GenSeg's own segmenter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor

from genseg_monai.data.resident import ResidentCases
from genseg_monai.engines import GenSegTrainer, LoopSettings, Phase, Shares, iterations
from genseg_monai.errors import UserError
from tests.engines.tiny import differing, frozen_state, make_cases, make_trainer

SEARCH_AND_FIT = Shares(warm_up=1, search=1, fine_tune=1, final_fit=1)


def marked_cases(count: int = 8) -> ResidentCases:
    """Case i is everywhere (i + 1) / 100, so that a batch tells which cases it holds."""
    cases = make_cases(count)
    cases.images = torch.full_like(cases.images, 0.01) * torch.arange(1, count + 1).view(-1, 1, 1, 1)
    return cases


def shown(trainer: GenSegTrainer, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[Phase, str], set[int]]:
    """Collect the cases that each stage of each phase sees."""
    seen: dict[tuple[Phase, str], set[int]] = {}

    def spy(name: str, find: Any) -> None:
        original = getattr(iterations, name)

        def wrapper(*args: Any, **named: Any) -> Any:
            images = find(args, named)
            numbers = {round(float(image.mean()) * 100) - 1 for image in images}
            seen.setdefault((trainer.phase, name), set()).update(numbers)
            return original(*args, **named)

        monkeypatch.setattr(iterations, name, wrapper)

    spy("generator_step", lambda args, named: args[5])
    spy("segmenter_step", lambda args, named: args[3])
    spy("architecture_step", lambda args, named: named["search"][0])
    return seen


def test_search_cases_move_alpha_alone_and_come_back_for_the_final_fit(monkeypatch):
    settings = LoopSettings(SEARCH_AND_FIT, ("plain",), outer_every=1, outer_after=1)
    trainer = make_trainer(cases=marked_cases(), settings=settings, max_epochs=20, augment=None, search_cases=[1, 6])
    seen = shown(trainer, monkeypatch)
    trainer.run()
    train, everyone = {0, 2, 3, 4, 5, 7}, set(range(8))
    assert seen[Phase.WARM_UP, "generator_step"] == train
    assert seen[Phase.SEARCH, "generator_step"] == train
    assert seen[Phase.SEARCH, "segmenter_step"] == train
    assert seen[Phase.SEARCH, "architecture_step"] == {1, 6}
    assert seen[Phase.FINE_TUNE, "generator_step"] == everyone
    assert seen[Phase.FINAL_FIT, "segmenter_step"] == everyone
    assert seen[Phase.PLAIN, "segmenter_step"] == everyone


def test_poisoned_search_cases_reach_no_weight_in_the_loop():
    cases = make_cases(8)
    cases.images[[1, 6]] = float("nan")
    settings = LoopSettings(Shares(1, 1, 0, 0), (), outer_every=0)
    trainer = make_trainer(cases=cases, settings=settings, search_cases=[1, 6])
    trainer.run()
    state = frozen_state(trainer)
    for name in ("network", "generator", "discriminator"):
        assert all(bool(value.isfinite().all()) for value in state[name].values()), name


@pytest.mark.parametrize(("count", "searched"), [(4, 1), (5, 1), (8, 2), (12, 3)])
def test_the_search_split_is_by_patient_and_works_from_four_cases(count, searched):
    cases = make_cases(count)
    kept = LoopSettings(SEARCH_AND_FIT, search_fraction=0.25)
    trainer = make_trainer(cases=cases, settings=kept)
    assert len(trainer.search_cases) == searched
    assert sorted([*trainer.search_cases, *trainer.train_cases]) == list(range(count))

    twins = ResidentCases(cases.images, cases.labels, [f"patient {i // 2}" for i in range(count)])
    trainer = make_trainer(cases=twins, settings=kept)
    groups = [{twins.groups[i] for i in part} for part in (trainer.search_cases, trainer.train_cases)]
    assert groups[0]
    assert groups[1]
    assert not groups[0] & groups[1]


def test_too_few_cases_or_patients_to_keep_some_say_so():
    kept = LoopSettings(SEARCH_AND_FIT, search_fraction=0.25)
    with pytest.raises(UserError, match="training cases: wanted at least 4 .* got 3"):
        make_trainer(cases=make_cases(3), settings=kept)
    cases = make_cases(6)
    with pytest.raises(UserError, match="training cases: wanted at least 2 patients"):
        make_trainer(cases=ResidentCases(cases.images, cases.labels, ["one"] * 6), settings=kept)
    alone = ResidentCases(cases.images, cases.labels, ["one"] * 6)
    with pytest.raises(UserError, match="training cases: wanted at least 2 patients, got all 6 cases of one"):
        make_trainer(cases=alone)
    make_trainer(cases=alone, settings=LoopSettings(outer_every=0))


def test_a_search_that_keeps_no_case_judges_each_update_by_patients_who_had_no_part_in_it(monkeypatch):
    cases = marked_cases()
    cases.groups = ("a", "a", "b", "b", "c", "c", "d", "d")
    settings = LoopSettings(SEARCH_AND_FIT, ("plain",), outer_every=1, outer_after=1, search_fraction=0)
    trainer = make_trainer(cases=cases, settings=settings, max_epochs=20, augment=None)
    pairs: list[tuple[set[str], set[str]]] = []
    step = iterations.architecture_step

    def patients(images: Tensor) -> set[str]:
        return {cases.groups[round(float(image.mean()) * 100) - 1] for image in images}

    def noted(*args: Any, **named: Any) -> Any:
        pairs.append((patients(named["fitted"][0]), patients(named["search"][0])))
        return step(*args, **named)

    monkeypatch.setattr(iterations, "architecture_step", noted)
    trainer.run()
    assert trainer.train_cases == trainer.search_cases == list(range(8))
    assert len(pairs) > 10
    assert all(not fitted & judging for fitted, judging in pairs)
    assert set.union(*(judging for _, judging in pairs)) == set("abcd")


@pytest.mark.parametrize(("count", "settings", "told"), [
    (2, LoopSettings(SEARCH_AND_FIT, outer_after=1), True),
    (3, LoopSettings(SEARCH_AND_FIT, outer_after=1), False),
    (2, LoopSettings(SEARCH_AND_FIT, outer_every=0), False),
    (8, LoopSettings(SEARCH_AND_FIT, outer_after=1, search_fraction=0.8), False),
])  # fmt: skip
def test_a_batch_that_leaves_no_patient_to_judge_by_is_told(caplog, count, settings, told):
    cases = make_cases(8)
    cases.groups = tuple(str(i % count) for i in range(8))
    make_trainer(cases=cases, settings=settings, max_epochs=20)
    assert ("stage III then judges an update by those who made it" in caplog.text) is told


@pytest.mark.parametrize("given", [[], [0, 1, 2, 3, 4, 5], [6], [-1]])
def test_search_cases_that_cannot_be_say_so(given):
    with pytest.raises(UserError, match="search_cases: wanted"):
        make_trainer(search_cases=given)


def test_without_a_search_every_case_trains_throughout():
    for settings in (LoopSettings(outer_every=0), LoopSettings(Shares(1, 0, 0, 1))):
        trainer = make_trainer(cases=make_cases(3), settings=settings)
        assert trainer.train_cases == [0, 1, 2]
        trainer.run()


# --- the comparison is fair


def test_baselines_get_the_same_updates_images_and_initial_weights(monkeypatch):
    trainer = make_trainer(settings=LoopSettings(SEARCH_AND_FIT, outer_every=1, outer_after=1), max_epochs=8)
    images: dict[Phase, list[int]] = {}
    begun: dict[Phase, Any] = {}
    original = iterations.segmenter_step

    def counted(network: Any, loss: Any, optimizer: Any, real: Any, masks: Any, synthetic: Any = None, **named: Any):
        begun.setdefault(trainer.phase, {n: v.clone() for n, v in network.state_dict().items()})
        images.setdefault(trainer.phase, []).append(len(real) + (0 if synthetic is None else len(synthetic[0])))
        return original(network, loss, optimizer, real, masks, synthetic, **named)

    monkeypatch.setattr(iterations, "segmenter_step", counted)
    trainer.run()
    own = images[Phase.SEARCH] + images[Phase.FINAL_FIT]
    assert images[Phase.PLAIN] == images[Phase.AUGMENT] == own
    assert differing(begun[Phase.SEARCH], begun[Phase.PLAIN]) == []
    assert differing(begun[Phase.SEARCH], begun[Phase.AUGMENT]) == []
    assert set(trainer.players.trained) == {Phase.PLAIN, Phase.AUGMENT}
    trained = [trainer.players.trained[Phase.PLAIN], trainer.players.trained[Phase.AUGMENT]]
    assert differing(*trained)
    assert all(differing(weights, begun[Phase.PLAIN]) for weights in trained)


def test_baselines_begin_with_weights_that_a_handler_loaded():
    loaded = {name: torch.full_like(v, 0.01) for name, v in make_trainer().network.state_dict().items()}
    trainer = make_trainer(settings=LoopSettings(Shares(0, 0, 0, 1), ("plain",)), max_epochs=1)
    trainer.add_event_handler(Events.STARTED, lambda e: e.network.load_state_dict(loaded))
    first: dict[Phase, Any] = {}
    trainer.add_event_handler(
        Events.ITERATION_STARTED,
        lambda e: first.setdefault(e.phase, {n: v.clone() for n, v in e.players.segmenter.state_dict().items()}),
    )
    trainer.run()
    assert differing(first[Phase.FINAL_FIT], loaded) == []
    assert differing(first[Phase.PLAIN], loaded) == []
