"""The temperature that a training leaves, and the segmenters it keeps for an ensemble."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events

from genseg_monai.engines import LoopSettings, Phase
from genseg_monai.handlers import CalibrationWriter, Snapshots
from genseg_monai.metrics.calibration import calibrate, fit_temperature
from tests.engines.tiny import SHARES, differing, frozen_state, make_cases, make_trainer


def batches() -> list[dict[str, torch.Tensor]]:
    cases = make_cases(4, seed=9)
    return [{"image": cases.images[i : i + 2], "label": cases.labels[i : i + 2]} for i in (0, 2)]


def test_the_temperature_is_that_of_the_trained_segmenter(tmp_path: Path) -> None:
    trainer = make_trainer(train_handlers=[CalibrationWriter(tmp_path, batches())])
    trainer.run()
    told = json.loads((tmp_path / "models" / "calibration" / "temperature.json").read_text())
    network = trainer.network.eval()
    with torch.no_grad():
        logits = torch.cat([network(batch["image"]) for batch in batches()]).movedim(1, -1).reshape(-1, 2)
    labels = torch.cat([batch["label"] for batch in batches()]).flatten()
    assert (told["cases"], told["voxels"]) == (4, 4 * 16 * 16)
    assert told["temperature"] == pytest.approx(fit_temperature(logits, labels), abs=1e-3)
    assert told["before"]["brier"] == pytest.approx(calibrate(logits.softmax(1), labels).brier)
    assert told["after"]["nll"] <= told["before"]["nll"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["calibration"]  # model.pt is alone


def test_it_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    states = []
    for handlers in ([], [CalibrationWriter(tmp_path, batches()), Snapshots(tmp_path)]):
        trainer = make_trainer(kind="batch_norm", train_handlers=handlers)
        torch.manual_seed(1)
        trainer.run()
        states.append(frozen_state(trainer))
    assert differing(*states) == []


def test_no_old_temperature_stays_where_nothing_validates(tmp_path: Path) -> None:
    (tmp_path / "models" / "calibration").mkdir(parents=True)
    (tmp_path / "models" / "calibration" / "temperature.json").write_text("{}")
    make_trainer(train_handlers=[CalibrationWriter(tmp_path, None)], max_epochs=2).run()
    assert not list((tmp_path / "models" / "calibration").iterdir())


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_snapshots_are_the_segmenter_at_their_steps(tmp_path: Path, average: float) -> None:
    (tmp_path / "models" / "snapshots").mkdir(parents=True)
    (tmp_path / "models" / "snapshots" / "step_000099.pt").write_bytes(b"of another run")
    settings = LoopSettings(SHARES, average=average)
    trainer = make_trainer(train_handlers=[Snapshots(tmp_path, count=2)], max_epochs=12, settings=settings)
    seen: list[dict[str, torch.Tensor]] = []

    def note(engine: Any) -> None:
        if engine.phase is Phase.FINAL_FIT:
            seen.append({name: value.clone() for name, value in engine.players.kept().items()})

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    steps = Snapshots("", count=2).steps(len(seen))
    assert len(steps) == 2
    assert max(steps) < len(seen)
    kept = sorted((tmp_path / "models" / "snapshots").iterdir())
    assert [path.name for path in kept] == [f"step_{step:06d}.pt" for step in steps]
    for path, step in zip(kept, steps, strict=True):
        assert differing(dict(torch.load(path, weights_only=True)), seen[step - 1]) == []


def test_no_snapshots(tmp_path: Path) -> None:
    make_trainer(train_handlers=[Snapshots(tmp_path, count=0)], max_epochs=2).run()
    assert list(tmp_path.iterdir()) == []
