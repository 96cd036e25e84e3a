"""A run that stopped anywhere continues to the bit: 2k iterations are k, a checkpoint, a fresh trainer, and k."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events

from genseg_monai.data.resident import ResidentCases
from genseg_monai.engines import GenSegTrainer, LoopSettings, Phase, load_state, state, take_state
from genseg_monai.engines.state import load_file, save_file
from genseg_monai.errors import UserError
from genseg_monai.handlers import Checkpointer, Resume
from tests.engines.tiny import EPOCHS, LENGTH, SHARES, differing, frozen_state, make_cases, make_trainer

TOTAL = EPOCHS * LENGTH
FIRST_OF = {Phase.WARM_UP: 0, Phase.SEARCH: 2, Phase.FINE_TUNE: 6, Phase.FINAL_FIT: 7, Phase.PLAIN: 10}
FIRST_OF |= {Phase.AUGMENT: 17}


class _Stop(Exception):
    """Ends a run between two iterations."""


def build(kind: str = "plain", **arguments: Any) -> GenSegTrainer:
    """Build a trainer as a fresh process would: all random states elsewhere."""
    trainer = make_trainer(kind=kind, **arguments)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002 - the state that libraries draw from
    torch.manual_seed(99)
    return trainer


def seeded(trainer: GenSegTrainer) -> None:
    """Start the global random states of a run."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)


def stopped_after(iterations: int, path: Path, **arguments: Any) -> None:
    """Run some iterations and save."""
    trainer = build(**arguments)
    seeded(trainer)
    if iterations:

        def stop(engine: Any) -> None:
            save_file(take_state(engine), path)
            raise _Stop

        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=iterations), stop)
        with pytest.raises(_Stop):
            trainer.run()
    else:
        save_file(take_state(trainer), path)


@pytest.fixture(scope="module")
def whole() -> dict[str, dict[str, Any]]:
    """The state at the end of a run that nothing stopped, by kind of segmenter."""
    found = {}
    for kind in ("plain", "dropout", "batch_norm"):
        trainer = build(kind)
        seeded(trainer)
        trainer.run()
        found[kind] = frozen_state(trainer)
    return found


def resumed(path: Path, **arguments: Any) -> GenSegTrainer:
    trainer = build(**arguments)
    trainer.add_event_handler(Events.STARTED, lambda e: load_state(e, load_file(path)))
    trainer.run()
    return trainer


@pytest.mark.parametrize("iteration", [0, 1, 2, 3, 5, 6, 7, 9, 10, 12, 16, 17, 20, 23, 24])
def test_a_run_stopped_after_any_iteration_ends_the_same(tmp_path, whole, iteration):
    """In every phase its first and last iteration; ends of epochs and their middles."""
    stopped_after(iteration, tmp_path / "state.pt")
    trainer = resumed(tmp_path / "state.pt")
    assert trainer.state.iteration == TOTAL
    assert trainer.state.epoch == EPOCHS
    assert differing(frozen_state(trainer), whole["plain"]) == []


@pytest.mark.parametrize("kind", ["dropout", "batch_norm"])
@pytest.mark.parametrize("iteration", [3, 8, 12])
def test_dropout_masks_and_norm_buffers_continue_too(tmp_path, whole, kind, iteration):
    stopped_after(iteration, tmp_path / "state.pt", kind=kind)
    assert differing(frozen_state(resumed(tmp_path / "state.pt", kind=kind)), whole[kind]) == []


def test_the_mean_of_the_weights_and_late_batches_continue(tmp_path):
    settings = LoopSettings(SHARES, outer_every=1, outer_after=1, average=0.9, synthetic_until=0.75)
    trainer = build(settings=settings)
    seeded(trainer)
    trainer.run()
    for iteration in (4, 9):
        stopped_after(iteration, tmp_path / "state.pt", settings=settings)
        assert differing(frozen_state(resumed(tmp_path / "state.pt", settings=settings)), frozen_state(trainer)) == []


def test_a_volume_continues(tmp_path):
    arguments: dict[str, Any] = {"dims": 3, "cases": make_cases(4, dims=3, size=8), "max_epochs": 3}
    trainer = build(**arguments)
    seeded(trainer)
    trainer.run()
    stopped_after(5, tmp_path / "state.pt", **arguments)
    assert differing(frozen_state(resumed(tmp_path / "state.pt", **arguments)), frozen_state(trainer)) == []


def test_the_phases_are_where_these_tests_think_they_are():
    schedule = make_trainer().schedule
    assert {schedule.locate(first) for first in FIRST_OF.values()} == {(phase, 0) for phase in FIRST_OF}
    assert schedule.total == TOTAL


def test_a_run_stopped_twice_ends_the_same(tmp_path, whole):
    stopped_after(5, tmp_path / "a.pt")
    trainer = build()

    def stop(engine: Any) -> None:
        save_file(take_state(engine), tmp_path / "b.pt")
        raise _Stop

    trainer.add_event_handler(Events.STARTED, lambda e: load_state(e, load_file(tmp_path / "a.pt")))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(event_filter=lambda e, n: e.state.iteration == 13), stop)
    with pytest.raises(_Stop):
        trainer.run()
    assert differing(frozen_state(resumed(tmp_path / "b.pt")), whole["plain"]) == []


def test_the_checkpointer_and_resume_continue_a_run(tmp_path, whole):
    trainer = build(train_handlers=[Resume(tmp_path), Checkpointer(tmp_path)])
    seeded(trainer)

    def fail(engine: Any) -> None:
        raise _Stop

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=14), fail)
    with pytest.raises(_Stop):
        trainer.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iteration_12.pt", "iteration_8.pt"]
    trainer = build(train_handlers=[Resume(tmp_path, wanted=True), Checkpointer(tmp_path)])
    trainer.run()
    assert differing(frozen_state(trainer), whole["plain"]) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iteration_20.pt", "iteration_24.pt"]
    # once more: there is nothing left to do, and nothing changes
    trainer = build(train_handlers=[Resume(tmp_path, wanted=True), Checkpointer(tmp_path)])
    trainer.run()
    assert differing(frozen_state(trainer), whole["plain"]) == []


# --- the file


def test_a_checkpoint_holds_nothing_but_tensors_and_plain_data(tmp_path):
    stopped_after(12, tmp_path / "state.pt")
    held = torch.load(tmp_path / "state.pt", weights_only=True)
    assert held["phase"] == "plain"
    assert held["engine"]["iteration"] == 12
    assert set(held) == set(state._KEYS)


def test_a_crash_while_saving_leaves_the_old_file(tmp_path):
    path = tmp_path / "iteration_4.pt"
    save_file({"old": torch.ones(3)}, path)

    class Crash:
        def __reduce__(self) -> Any:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_file({"new": torch.zeros(10_000), "then": Crash()}, path)
    assert list(load_file(path)) == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["iteration_4.pt"]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path, whole):
    stopped_after(8, tmp_path / "iteration_8.pt")
    (tmp_path / ".12345.iteration_12.pt").write_bytes(b"half of it")
    trainer = build(train_handlers=[Resume(tmp_path, wanted=True)])
    trainer.run()
    assert [p.name for p in tmp_path.iterdir()] == ["iteration_8.pt"]
    assert differing(frozen_state(trainer), whole["plain"]) == []


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, whole, caplog):
    stopped_after(8, tmp_path / "iteration_8.pt")
    (tmp_path / "iteration_12.pt").write_bytes((tmp_path / "iteration_8.pt").read_bytes()[:-1000])
    trainer = build(train_handlers=[Resume(tmp_path, wanted=True)])
    trainer.run()
    assert differing(frozen_state(trainer), whole["plain"]) == []
    assert any("iteration_12.pt" in text and "not a readable checkpoint" in text for text in caplog.messages)


def test_damaged_checkpoints_alone_are_refused(tmp_path):
    for name in ("iteration_8.pt", "iteration_12.pt"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(UserError, match="none of its checkpoints can be read: remove it"):
        build(train_handlers=[Resume(tmp_path, wanted=True)]).run()


def test_a_folder_with_the_checkpoints_of_another_run_is_refused_or_renewed(tmp_path):
    stopped_after(8, tmp_path / "iteration_8.pt")
    with pytest.raises(UserError, match="resume it, or give another output folder"):
        build(train_handlers=[Resume(tmp_path)]).run()
    assert (tmp_path / "iteration_8.pt").exists()
    trainer = build(train_handlers=[Resume(tmp_path, renew=True), Checkpointer(tmp_path)], max_epochs=2)
    trainer.run()
    assert trainer.state.iteration == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cases": make_cases(seed=1)}, "made with other training cases"),
        ({"cases": make_cases(5)}, "made with other training cases"),
        ({"kind": "batch_norm"}, "its 'network' does not fit this configuration"),
    ],
)
def test_other_data_or_another_configuration_is_refused(tmp_path, change, message):
    stopped_after(8, tmp_path / "iteration_8.pt")
    with pytest.raises(UserError, match=message):
        build(train_handlers=[Resume(tmp_path, wanted=True)], **change).run()


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="found no such file"):
        load_file(tmp_path / "iteration_1.pt")
    for content in ({"network": {}}, [1, 2], {**take_state(make_trainer()), "format": 0}):
        save_file(content, tmp_path / "iteration_1.pt")
        with pytest.raises(UserError, match="checkpoint: wanted format \\d with all its parts"):
            build(train_handlers=[Resume(tmp_path, wanted=True)]).run()


def test_the_digest_tells_one_changed_pixel_and_another_order():
    cases = make_cases()
    changed = cases.images.clone()
    changed[3, 0, 5, 5] += 1e-3
    others = [
        ResidentCases(changed, cases.labels, cases.groups),
        ResidentCases(cases.images.flip(0), cases.labels.flip(0), cases.groups),
        ResidentCases(cases.images, 1 - cases.labels, cases.groups),
    ]
    assert len({cases.digest(), *(other.digest() for other in others)}) == 4


def test_a_budget_that_became_steps_stays_so(tmp_path):
    """A run that was given another length before it started is resumed with that one."""
    trainer = build(
        settings=LoopSettings(SHARES, outer_every=1, outer_after=1), train_handlers=[Checkpointer(tmp_path)]
    )
    trainer.set_epochs(4)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda e: e.terminate())
    trainer.run()
    trainer = build(train_handlers=[Resume(tmp_path, wanted=True)])
    trainer.run()
    assert (trainer.state.epoch, trainer.state.iteration, trainer.schedule.total) == (4, 16, 16)
