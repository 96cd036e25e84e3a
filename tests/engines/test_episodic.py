"""Episodic training: it learns, it goes through its stages, and it continues to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events

from genseg_monai.data.episodes import EpisodeStage
from genseg_monai.engines.episodic import EpisodicTrainer, load_episodic_state, take_episodic_state
from genseg_monai.engines.state import load_file, save_file
from genseg_monai.errors import UserError
from genseg_monai.handlers import Checkpointer, Resume
from genseg_monai.metrics.episodes import soft_dice
from genseg_monai.transforms.episode_augment import EntryAugment, TaskAugment
from tests.engines.tiny import _copied as copied
from tests.engines.tiny import differing
from tests.engines.tiny_episodes import STAGES, make_episodic, make_tasks

AUGMENTED: dict[str, Any] = {"entry_augment": EntryAugment(), "task_augment": TaskAugment()}


class _Stop(Exception):
    """Ends a run between two iterations."""


def _state(trainer: EpisodicTrainer) -> dict[str, Any]:
    return copied(take_episodic_state(trainer))


def _stop_after(trainer: EpisodicTrainer, iteration: int, path: Path) -> None:
    def stop(engine: Any) -> None:
        save_file(take_episodic_state(engine), path)
        raise _Stop

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=iteration), stop)
    with pytest.raises(_Stop):
        trainer.run()


@pytest.mark.parametrize("iteration", [1, 4, 7, 8, 9, 11])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_run_stopped_after_any_iteration_ends_the_same(tmp_path, iteration, mixed):
    def build() -> EpisodicTrainer:
        return make_episodic(loader=AUGMENTED, mixed=mixed)

    whole = build()
    whole.run()
    assert whole.state.iteration == 12
    _stop_after(build(), iteration, tmp_path / "state.pt")
    again = make_episodic(loader={**AUGMENTED, "seed": 5}, mixed=mixed, seed=3)  # everything elsewhere but loaded
    again.add_event_handler(Events.STARTED, lambda e: load_episodic_state(e, load_file(tmp_path / "state.pt")))
    again.run()
    assert differing(_state(again), _state(whole)) == []


def test_it_continues_through_the_handlers_of_the_main_trainer(tmp_path):
    def handlers(wanted: bool, folder: Path) -> list[Any]:
        resume = Resume(folder, wanted=wanted, load=load_episodic_state)
        return [resume, Checkpointer(folder, take=take_episodic_state)]

    whole = make_episodic()
    whole.run()
    first = make_episodic(train_handlers=handlers(False, tmp_path))
    first.add_event_handler(Events.ITERATION_COMPLETED(once=6), lambda engine: (_ for _ in ()).throw(_Stop))
    with pytest.raises(_Stop):
        first.run()
    assert [path.name for path in tmp_path.iterdir()] == ["iteration_4.pt"]
    again = make_episodic(train_handlers=handlers(True, tmp_path))
    again.run()
    assert differing(_state(again), _state(whole)) == []
    with pytest.raises(UserError, match="wanted an empty folder"):
        make_episodic(train_handlers=handlers(False, tmp_path)).run()


def test_two_runs_of_one_seed_are_the_same_and_of_another_are_not():
    one, two, other = make_episodic(), make_episodic(), make_episodic(seed=1)
    for trainer in (one, two, other):
        trainer.run()
    assert differing(_state(one), _state(two)) == []
    assert differing(_state(one)["network"], _state(other)["network"]) != []


def test_it_learns_a_few_tasks_by_heart():
    stage = EpisodeStage(size=16, support=(3, 3), entries=12, tasks=4)
    trainer = make_episodic(
        features=(8, 8, 8), stages=[stage], max_epochs=1, epoch_length=210, average=0.8,
        loader={"tasks": make_tasks(), "share": 0.0},
    )  # fmt: skip
    losses: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output["loss"])))
    trainer.run()
    assert sum(losses[-10:]) < 0.4 * sum(losses[:10])
    batch = trainer.loader.draw()
    with torch.no_grad():
        logits = trainer.average(batch["image"], batch["support_images"], batch["support_labels"])
    assert float(soft_dice((logits > 0).float(), batch["label"]).mean()) > 0.8


def test_the_sizes_follow_the_stages():
    trainer, seen = make_episodic(), []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output["image"].shape[-1]))
    trainer.run()
    assert seen == [8] * 8 + [16] * 4
    assert trainer.phase == "16 pixels"
    assert trainer.stage_at(99) is STAGES[-1]


def test_the_learning_rate_rises_then_falls():
    trainer, rates = make_episodic(lr=0.4), []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: rates.append(engine.optimizer.param_groups[0]["lr"])
    )
    trainer.run()
    assert rates[0] == pytest.approx(0.4 / 3)
    assert rates[1] == pytest.approx(0.8 / 3)
    assert rates[2] == pytest.approx(0.4)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert trainer.rate_at(12) == pytest.approx(0.01)


@pytest.mark.parametrize(("clip", "longest"), [(1e-3, 1e-3), (None, 10.0)])
def test_a_gradient_is_no_longer_than_asked_for(clip, longest):
    trainer, norms = make_episodic(clip=clip), []

    def note(engine: Any) -> None:
        gradients = [weights.grad.flatten() for weights in engine.network.parameters() if weights.grad is not None]
        norms.append(float(torch.cat(gradients).norm()))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    assert max(norms) <= 1.001 * longest
    assert (max(norms) > 0.01) == (clip is None)


def test_the_average_follows_the_weights():
    trainer = make_episodic(average=0.0)
    trainer.run()
    for mean, last in zip(trainer.average.module.parameters(), trainer.network.parameters(), strict=True):
        torch.testing.assert_close(mean, last)
    trainer = make_episodic(average=0.9)
    trainer.run()
    pairs = zip(trainer.average.module.parameters(), trainer.network.parameters(), strict=True)
    assert any(not torch.allclose(mean, last) for mean, last in pairs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average": 1.0}, r"average: wanted a share in \[0, 1\), got 1.0"),
        ({"warm_up": -1}, "warm_up"),
        ({"clip": 0.0}, "clip: wanted"),
    ],
)
def test_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_episodic(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": (4, 8)}, "its 'network' does not fit this configuration"),
        ({"stages": STAGES[:1]}, "it was made with other stages"),
        ({"loader": {"tasks": make_tasks()}}, "it was made with other tasks"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(change: dict[str, Any], message: str) -> None:
    state = take_episodic_state(make_episodic())
    with pytest.raises(UserError, match=message):
        load_episodic_state(make_episodic(**change), state)


def test_a_checkpoint_that_lacks_a_part_is_refused() -> None:
    state = take_episodic_state(make_episodic())
    del state["average"]
    with pytest.raises(UserError, match=r"wanted format \d+ of an episodic training, got one without \['average'\]"):
        load_episodic_state(make_episodic(), state)
