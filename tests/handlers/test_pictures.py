"""The pictures of a run: samples of the generator, curves, the trajectory of the architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from PIL import Image

from genseg_monai.engines import LoopSettings, Phase, Shares, StageEvents, load_state
from genseg_monai.handlers import ArchitectureLog, History, SamplePanel
from genseg_monai.handlers.architecture_log import plot_architecture
from genseg_monai.handlers.csv_log import CsvLog
from genseg_monai.handlers.history import plot_history
from genseg_monai.handlers.panel import COLOURS, draw_panel
from genseg_monai.networks import Genotype
from tests.engines.tiny import EPOCHS, LENGTH, differing, frozen_state, make_trainer


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_panel_after_each_phase_that_trained_the_generator(tmp_path, dims):
    trainer = make_trainer(dims=dims, train_handlers=[SamplePanel(tmp_path, count=3)])
    trainer.run()
    names = ["panel_fine_tune.png", "panel_search.png", "panel_warm_up.png"]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == names
    side, gap, head = 160, 4, 18
    wanted = (head + 3 * (side + gap), 5 * (side + gap) - gap, 3)
    for name in names:
        picture = pixels(tmp_path / "pictures" / name)
        assert picture.shape == wanted
        tiles = [picture[head : head + side, i * (side + gap) : i * (side + gap) + side] for i in range(5)]
        assert len({tile.tobytes() for tile in tiles}) == 5
        # a mask has its colours, an image none
        assert {tuple(colour) for colour in tiles[1].reshape(-1, 3)} == {tuple(COLOURS[0]), tuple(COLOURS[1])}
        assert (tiles[0] == tiles[0][..., :1]).all()


def test_the_panel_leaves_the_run_as_it_is(tmp_path):
    states = []
    for handlers in ([], [SamplePanel(tmp_path), History(tmp_path), ArchitectureLog(tmp_path)]):
        trainer = make_trainer(kind="dropout", train_handlers=handlers)
        torch.manual_seed(1)
        trainer.run()
        states.append(frozen_state(trainer))
    assert differing(*states) == []


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_channels_and_values_out_of_range(tmp_path, channels):
    images = torch.linspace(-1, 2, 2 * channels * 20 * 30).reshape(2, channels, 20, 30)
    draw_panel([images], ["real"], tmp_path / "new" / "a.png")
    picture = pixels(tmp_path / "new" / "a.png")
    assert picture.shape == (18 + 2 * (160 + 4), 240, 3)
    assert picture[18:178].min() == 0


def test_of_a_volume_the_middle_slice_with_the_front_up(tmp_path):
    volume = torch.zeros(1, 1, 32, 48, 10)
    volume[0, 0, 4:8, 40:, 5] = 1.0  # X low, Y high: anterior; middle slice
    volume[0, 0, :, :, 0] = 0.5
    draw_panel([volume], ["real"], tmp_path / "a.png", zoom_to=1)
    picture = pixels(tmp_path / "a.png")[18 : 18 + 48, :, 0]
    assert picture.shape == (48, 32)
    wanted = np.zeros((48, 32), dtype=np.uint8)
    wanted[:8, 4:8] = 255
    assert (picture == wanted).all()


def test_classes_beyond_the_colours_go_round(tmp_path):
    count = 2 * len(COLOURS)
    masks = torch.eye(count).reshape(1, count, 1, count).expand(1, count, 4, count)
    draw_panel([masks], ["mask"], tmp_path / "a.png", zoom_to=4)
    row = pixels(tmp_path / "a.png")[18, :]
    assert (row[0] == 0).all()
    assert (row[1] == COLOURS[1]).all()
    assert (row[len(COLOURS)] == COLOURS[1]).all()
    assert (row[1:] != 0).any(axis=1).all()


# --- the architecture


def test_the_trajectory_of_the_architecture(tmp_path):
    trainer = make_trainer(train_handlers=[ArchitectureLog(tmp_path)])
    shares: list[dict[str, torch.Tensor]] = []
    trainer.add_event_handler(StageEvents.OUTER_STEP_COMPLETED, lambda e: shares.append(e.generator.arch_weights()))
    trainer.run()
    lines = (tmp_path / "logs" / "alpha.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["iteration", "2", "4", "5", "6"]
    columns = lines[0].split(",")
    assert "encoder.0:conv_4" in columns
    first, last = (dict(zip(columns, line.split(","), strict=True)) for line in (lines[1], lines[-1]))
    for cell, weights in shares[-1].items():
        names = [column for column in columns if column.startswith(f"{cell}:")]
        assert [float(last[name]) for name in names] == pytest.approx(weights.tolist())
        assert [float(first[name]) for name in names] == pytest.approx([1 / 3] * 3)
        assert all(first[name] != last[name] for name in names)
    assert Genotype.load(tmp_path / "models" / "search" / "genotype.json") == trainer.genotype
    assert pixels(tmp_path / "pictures" / "alpha.png").std() > 10


def test_the_norm_of_the_hypergradient_is_in_the_log(tmp_path):
    trainer = make_trainer(train_handlers=[ArchitectureLog(tmp_path)])
    trainer.run()
    lines = (tmp_path / "logs" / "alpha.csv").read_text().splitlines()
    column = lines[0].split(",").index("hypergradient_norm")
    norms = [line.split(",")[column] for line in lines[1:]]
    assert norms[0] == ""
    assert all(float(norm) > 0 for norm in norms[1:])


@pytest.mark.parametrize("stopped", [1, 2, 3, 5, 6, 7])
def test_a_resumed_run_writes_the_log_of_the_whole_one(tmp_path, stopped):
    """Also where it stopped between two phases: the row that a phase begins with is there once."""

    class Stop(Exception):
        pass

    kept: list[Any] = []
    for name, end in (("whole", 99), ("parts", stopped)):
        trainer = make_trainer(train_handlers=[ArchitectureLog(tmp_path / name)])

        def leave(engine: Any, end: int = end) -> None:
            if engine.state.iteration == end:
                kept.append(frozen_state(engine))
            if engine.state.iteration == end + 1:  # one more iteration is lost
                raise Stop

        trainer.add_event_handler(Events.ITERATION_COMPLETED, leave)
        try:
            trainer.run()
        except Stop:
            again = make_trainer(max_epochs=EPOCHS)
            again.add_event_handler(Events.STARTED, lambda e: load_state(e, kept[0]))
            ArchitectureLog(tmp_path / name).attach(again)
            again.run()
    left, right = ((tmp_path / name / "logs" / "alpha.csv").read_text() for name in ("whole", "parts"))
    assert left == right


def test_more_cells_than_fit_in_a_row(tmp_path):
    rows = [
        {"iteration": str(i), **{f"encoder.{c}:conv_{k}": str(1 / 3) for c in range(9) for k in (4, 6, 8)}}
        for i in (0, 5)
    ]
    plot_architecture(rows, tmp_path / "alpha.png")
    assert pixels(tmp_path / "alpha.png").shape[1] == 4 * 3 * 110


# --- the curves


def test_the_history_has_a_row_an_epoch(tmp_path):
    trainer = make_trainer(train_handlers=[History(tmp_path)])
    losses: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output[0]["loss"]))
    trainer.run()
    lines = (tmp_path / "logs" / "history.csv").read_text().splitlines()
    assert len(lines) == 1 + EPOCHS
    row = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert (row["iteration"], row["phase"]) == (str(EPOCHS * LENGTH), "augment")
    assert float(row["loss"]) == pytest.approx(sum(losses[-LENGTH:]) / LENGTH)
    assert row["validation"] == ""
    assert pixels(tmp_path / "pictures" / "curves.png").std() > 10


def test_validation_scores_stand_in_the_epoch_they_were_made_in(tmp_path):
    from types import SimpleNamespace

    state = SimpleNamespace(metrics={}, key_metric_name="dice", epoch=0)
    trainer = make_trainer()

    @trainer.on(Events.EPOCH_COMPLETED(every=2))
    def validate(engine: Any) -> None:
        state.epoch, state.metrics = engine.state.epoch, {"dice": engine.state.epoch / 10}

    History(tmp_path, SimpleNamespace(state=state)).attach(trainer)
    learnt: set[int] = set()

    def note(engine: Any) -> None:
        if engine.phase in (Phase.SEARCH, Phase.FINAL_FIT):
            learnt.add(engine.state.epoch)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    lines = (tmp_path / "logs" / "history.csv").read_text().splitlines()
    written = [line.split(",")[-1] for line in lines[1:]]
    assert written == [str(i / 10) if i % 2 == 0 and i in learnt else "" for i in range(1, EPOCHS + 1)]
    assert 0 < len(learnt) < EPOCHS


def test_a_segmenter_without_synthetic_pairs_is_validated_too(tmp_path):
    from types import SimpleNamespace

    state = SimpleNamespace(metrics={"dice": 0.5}, key_metric_name="dice", epoch=0)
    settings = LoopSettings(Shares(0, 0, 0, 1), (), synthetic=False)
    trainer = make_trainer(settings=settings, max_epochs=2)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: setattr(state, "epoch", engine.state.epoch))
    History(tmp_path, SimpleNamespace(state=state)).attach(trainer)
    trainer.run()
    rows = CsvLog(tmp_path / "logs" / "history.csv", []).rows()
    assert [row["validation"] for row in rows] == ["0.5", "0.5"]


def test_the_loss_in_the_history_is_that_of_the_segmenter(tmp_path):
    settings = LoopSettings(Shares(1, 1, 1, 1), (), outer_every=1, outer_after=0)
    make_trainer(train_handlers=[History(tmp_path)], settings=settings, max_epochs=4).run()
    rows = CsvLog(tmp_path / "logs" / "history.csv", []).rows()
    assert [row["phase"] for row in rows] == ["warm_up", "search", "fine_tune", "final_fit"]
    assert [bool(row["loss"]) for row in rows] == [False, True, False, True]
    assert [bool(row["generator_loss"]) for row in rows] == [True, True, True, False]


def test_curves_of_a_run_of_one_epoch_and_without_some_losses(tmp_path):
    row = {"iteration": "5", "phase": "final_fit", "loss": "1.5", "generator_loss": "", "validation": ""}
    plot_history([row], tmp_path / "a.png")
    plot_history([row, {**row, "iteration": "10", "phase": "plain", "validation": "0.5"}], tmp_path / "b.png")
    assert pixels(tmp_path / "a.png").shape == pixels(tmp_path / "b.png").shape
