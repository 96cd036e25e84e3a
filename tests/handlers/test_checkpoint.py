"""When checkpoints are written, which stay, and what is never saved."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor

from genseg_monai.engines.state import load_file
from genseg_monai.handlers import Checkpointer, StopOnDivergence, TrainingDiverged
from genseg_monai.handlers.checkpoint import checkpoints, latest_checkpoint
from tests.engines.tiny import EPOCHS, LENGTH, make_trainer


def test_the_newest_is_told_by_its_number(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for name in ("iteration_9.pt", "iteration_10.pt", "iteration_100.pt", "iteration_11.pt.old", ".7.iteration_200.pt"):
        (tmp_path / name).touch()
    assert [path.name for path in checkpoints(tmp_path)] == ["iteration_9.pt", "iteration_10.pt", "iteration_100.pt"]
    assert latest_checkpoint(tmp_path) == tmp_path / "iteration_100.pt"


@pytest.mark.parametrize(("epochs", "keep", "kept"), [(1, 2, [20, 24]), (4, 2, [16, 24]), (2, 3, [8, 16, 24])])
def test_the_last_few_are_kept(tmp_path, epochs, keep, kept):
    trainer = make_trainer(train_handlers=[Checkpointer(tmp_path / "new", epochs=epochs, keep=keep)])
    trainer.run()
    assert checkpoints(tmp_path / "new") == [tmp_path / "new" / f"iteration_{i}.pt" for i in kept]
    assert load_file(checkpoints(tmp_path / "new")[-1])["engine"]["iteration"] == EPOCHS * LENGTH


def test_signals_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    during: list[Any] = []
    trainer = make_trainer(train_handlers=[Checkpointer(tmp_path)], max_epochs=2)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda e: during.append(signal.getsignal(signal.SIGTERM)))
    trainer.run()
    assert during[0] not in before
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before

    def fail(engine: Any) -> None:
        raise KeyError("x")

    trainer = make_trainer(train_handlers=[Checkpointer(tmp_path / "b")])
    trainer.add_event_handler(Events.EPOCH_COMPLETED, fail)
    with pytest.raises(KeyError):
        trainer.run()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_an_epoch_saves_there(tmp_path, caplog, number, code):
    trainer = make_trainer(train_handlers=[Checkpointer(tmp_path)])
    trainer.add_event_handler(Events.ITERATION_STARTED(once=10), lambda e: signal.raise_signal(number))
    with pytest.raises(SystemExit) as stop:
        trainer.run()
    assert stop.value.code == code
    assert latest_checkpoint(tmp_path) == tmp_path / "iteration_10.pt"
    told = [record.getMessage() for record in caplog.records if record.name.startswith("genseg_monai")]
    assert told[-1].startswith(f"stopped by {number.name}; saved iteration 10 in {tmp_path}")


class Losses:
    """A segmenter's loss that goes wrong at the n-th call."""

    def __init__(self, wrong: float, call: int) -> None:
        self.wrong, self.left = wrong, call

    def __call__(self, logits: Tensor, masks: Tensor) -> Tensor:
        self.left -= 1
        return logits.square().mean() + (self.wrong if self.left == 0 else 0.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e7])
@pytest.mark.parametrize("decollate", [True, False])
def test_a_loss_that_explodes_stops_before_anything_is_saved(tmp_path, wrong, decollate):
    # the two iterations of warm_up do without this loss; of the search's, each takes 2, and stage III another 2
    handlers = [StopOnDivergence(tmp_path), Checkpointer(tmp_path)]
    trainer = make_trainer(train_handlers=handlers, loss=Losses(wrong, call=7), decollate=decollate)
    with pytest.raises(TrainingDiverged) as stop:
        trainer.run()
    message = str(stop.value)
    assert "\n" not in message
    assert f"the last good checkpoint is {tmp_path / 'iteration_4.pt'}" in message
    assert "try a lower learning rate" in message
    assert checkpoints(tmp_path) == [tmp_path / "iteration_4.pt"]


def test_without_a_checkpoint_that_is_said(tmp_path):
    handlers = [StopOnDivergence(tmp_path), Checkpointer(tmp_path)]
    trainer = make_trainer(train_handlers=handlers, loss=Losses(math.nan, call=1))
    with pytest.raises(TrainingDiverged, match="loss: nan at iteration 3; there is no checkpoint yet"):
        trainer.run()
    assert checkpoints(tmp_path) == []


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    """The loss is looked at before the step that spoils the weights: only the next iteration would see it."""
    trainer = make_trainer(train_handlers=[StopOnDivergence(tmp_path), Checkpointer(tmp_path)])

    def spoil(engine: Any) -> None:
        with torch.no_grad():
            next(engine.network.parameters())[0] = math.nan

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2 * LENGTH), spoil)
    with pytest.raises(TrainingDiverged, match=r"weights of the network: not finite at iteration 8; .*iteration_4.pt"):
        trainer.run()
    assert checkpoints(tmp_path) == [tmp_path / "iteration_4.pt"]


def test_a_look_every_few_iterations_misses_none_and_comes_before_the_epoch_is_saved(tmp_path):
    handlers = [StopOnDivergence(tmp_path, every=100), Checkpointer(tmp_path)]
    trainer = make_trainer(train_handlers=handlers, loss=Losses(math.nan, call=7))
    with pytest.raises(TrainingDiverged, match="loss: nan at iteration 5; the last good checkpoint"):
        trainer.run()
    assert checkpoints(tmp_path) == [tmp_path / "iteration_4.pt"]


def test_losses_of_good_runs_pass(tmp_path: Path):
    trainer = make_trainer(train_handlers=[StopOnDivergence(tmp_path)])
    trainer.run()
    assert trainer.state.iteration == EPOCHS * LENGTH
