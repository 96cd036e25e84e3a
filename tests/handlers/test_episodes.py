"""What an episodic training leaves: weights, record, history, scores on held-out tasks; and a budget kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from ignite.engine import Events

from genseg_monai.data.episodes import EpisodeStage
from genseg_monai.data.synthetic_tasks import SyntheticSettings
from genseg_monai.engines.episodic import load_episodic_state, take_episodic_state
from genseg_monai.engines.state import load_file
from genseg_monai.errors import UserError
from genseg_monai.handlers import Checkpointer, Resume
from genseg_monai.handlers.csv_log import CsvLog
from genseg_monai.handlers.episodes import EpisodeBudget, EpisodeHistory, EpisodeWeights, HeldOutTasks
from tests.engines.test_episodic import _state
from tests.engines.tiny import differing
from tests.engines.tiny_episodes import make_episodic


def _held_out(**given: Any) -> HeldOutTasks:
    return HeldOutTasks(**{"size": 16, "tasks": 5, "supports": (2, 4), "epochs": 2, **given})


class Oracle(torch.nn.Module):
    """Answers with the masks it was given beforehand."""

    def __init__(self, labels: list[torch.Tensor]) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, query: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.labels.pop(0) - 0.5


def test_held_out_tasks_are_always_the_same_and_show_the_structure():
    one, two = _held_out().tasks(), _held_out().tasks()
    assert len(one) == 5
    for (images, labels), (again, _) in zip(one, two, strict=True):
        assert images.shape == (5, 1, 16, 16)
        assert torch.equal(images, again)
        assert bool(labels[0].any())


def test_the_score_of_a_network_that_knows_is_one_and_the_floors_are_below():
    held_out = _held_out(tasks=12)
    truth = [labels[:1] for _, labels in held_out.tasks() for _ in held_out.supports]
    scores = held_out.score(Oracle(truth))
    assert scores["dice_2"] == scores["dice_4"] == 1.0
    for floor in ("mean_mask_2", "mean_mask_4", "most_similar_2", "most_similar_4"):
        assert 0.05 < scores[floor] < 0.95


def test_the_history_has_a_row_an_epoch(tmp_path):
    held_out = _held_out()
    make_episodic(train_handlers=[held_out, EpisodeHistory(tmp_path, held_out)]).run()
    rows = CsvLog(tmp_path / "logs" / "history.csv", []).rows()
    assert [row["iteration"] for row in rows] == ["4", "8", "12"]
    assert [row["phase"] for row in rows] == ["8 pixels", "8 pixels", "16 pixels"]
    assert all(float(row["loss"]) > 0 for row in rows)
    assert [bool(row["dice_4"]) for row in rows] == [False, True, False], "scored every two epochs, and at the end"
    assert 0 <= float(rows[1]["dice_4"]) <= 1


def test_the_weights_are_the_averaged_ones(tmp_path):
    trainer = make_episodic(train_handlers=[EpisodeWeights(tmp_path, seed=4, epochs=2)])
    trainer.run()
    weights = load_file(tmp_path / "models" / "universeg" / "model.pt")
    assert differing(weights, dict(trainer.average.module.state_dict())) == []
    assert list(weights) == list(trainer.network.state_dict())
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["finished"]
    assert record["iterations"] == record["planned_iterations"] == 12
    assert record["seed"] == 4
    assert record["seconds"] > 0


def test_a_run_that_was_stopped_leaves_weights_too_and_a_resumed_one_adds_its_time(tmp_path):
    def trainer(wanted: bool, **given: Any) -> Any:
        handlers = [
            Resume(tmp_path / "checkpoints", wanted=wanted, load=load_episodic_state),
            EpisodeWeights(tmp_path, seed=0, epochs=1),
            Checkpointer(tmp_path / "checkpoints", take=take_episodic_state),
        ]
        return make_episodic(train_handlers=handlers, **given)

    class _Stop(Exception):
        pass

    def stop(engine: Any) -> None:
        if engine.state.iteration == 6:
            raise _Stop

    first = trainer(False)
    first.add_event_handler(Events.ITERATION_COMPLETED, stop)
    with pytest.raises(_Stop):
        first.run()
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["finished"], record["iterations"]) == (False, 4)
    assert (tmp_path / "models" / "universeg" / "model.pt").exists()
    trainer(True).run()
    again = json.loads((tmp_path / "run.json").read_text())
    assert (again["finished"], again["iterations"]) == (True, 12)
    assert again["seconds"] > record["seconds"]


def test_a_budget_becomes_epochs_and_the_rehearsal_leaves_no_trace():
    whole = make_episodic(max_epochs=1)
    whole.run()
    stage = [EpisodeStage(size=8, support=(1, 1), entries=1)]
    trainer = make_episodic(max_epochs=1)
    before = _state(trainer)
    EpisodeBudget("0.001s")(trainer)
    assert trainer.state.max_epochs == 1, "at least one"
    after = _state(trainer)
    assert differing(after, before) == []
    short, long = (make_episodic(stages=stage) for _ in range(2))
    EpisodeBudget("2s", repeats=4)(short)
    EpisodeBudget("400s", repeats=4)(long)
    assert 1 <= short.state.max_epochs < long.state.max_epochs
    trainer.run()
    assert differing(_state(trainer)["network"], _state(whole)["network"]) == []


def test_no_budget_keeps_the_epochs():
    trainer = make_episodic()
    EpisodeBudget(None)(trainer)
    assert trainer.state.max_epochs == 3
    with pytest.raises(UserError, match="wanted a time"):
        EpisodeBudget("soon")


def test_tasks_that_settings_make():
    """The settings of the training's tasks are those of the held-out ones."""
    held_out = _held_out(synthetic=SyntheticSettings(shaped=0.0, area=(0.2, 0.6), union=0.0))
    area = torch.stack([labels.mean() for _, labels in held_out.tasks()])
    assert float(area.mean()) > 0.1
