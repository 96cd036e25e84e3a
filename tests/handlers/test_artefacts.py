"""What a run leaves: a folder that passes as a bundle, and the record of how it came about."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from genseg_monai.engines import LoopSettings, Phase, StageEvents
from genseg_monai.handlers import BundleWriter, Checkpointer, Resume, RunRecord, artefacts
from genseg_monai.inferers.generator_files import GeneratorShape, load_generator
from tests.bundle.tiny import PLAN_2D, SHIPPED
from tests.engines.tiny import EPOCHS, LENGTH, differing, make_trainer

SHAPE = GeneratorShape(2, 2, 1, (16, 16), base_width=2)
PLAN = {**PLAN_2D, "classes": ["background", "liver"], "size": [48, 64], "lower": -3.5}
CONFIG = {
    "bundle_root": "/somewhere/bundle",
    "dataset_dir": "/disk/someone/data",
    "output_dir": "/disk/someone/out",
    "plan": "$expression",
    "max_epochs": 99,
    "budget": "30m",
    "resume": True,
    "gamma": 0.5,
    "network": "$@network_def",
}


def writer(out: Path, source: Path = SHIPPED, **shared: Any) -> BundleWriter:
    return BundleWriter(source, out, CONFIG, PLAN, SHAPE, shared)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "out"
    trainer = make_trainer(train_handlers=[writer(out, segmenter="segresnet", seed=7)])
    trainer.run()
    return out


def test_the_folder_passes_as_a_bundle(run):
    (run / "models" / "model.pt").rename(run / "models" / "kept")  # it is of another network than the config's
    workflow = ConfigWorkflow(
        str(run / "configs" / "inference.yaml"), workflow_type="infer", logging_file=False, bundle_root=str(run)
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    (run / "models" / "kept").rename(run / "models" / "model.pt")


def test_every_config_has_the_plan_and_what_is_shared(run):
    for name in ("inference", "evaluate", "generate"):
        held = yaml.safe_load((run / "configs" / f"{name}.yaml").read_text())
        assert held["plan"] == PLAN, name
        assert held.get("segmenter", "segresnet") == "segresnet"
        assert held.get("seed", 7) == 7
    shipped, ours = ((root / "configs" / "inference.yaml").read_text() for root in (SHIPPED, run))
    comments = [line for line in shipped.splitlines() if line.startswith("#")]
    assert comments
    assert set(comments) <= set(ours.splitlines())
    metadata = json.loads((run / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "liver"}


def test_the_training_config_has_references_and_no_path(run):
    held = yaml.safe_load((run / "configs" / "train.yaml").read_text())
    assert held["plan"] == PLAN
    assert held["gamma"] == 0.5
    assert held["network"] == "$@network_def"
    assert held["output_dir"] == "@bundle_root"
    assert (held["resume"], held["budget"], held["max_epochs"]) == (False, None, EPOCHS)
    for path in (run / "configs").iterdir():
        text = path.read_text()
        assert "someone" not in text, path.name
        assert str(run) not in text, path.name
        # a path of this machine begins with one of its top folders
        assert not re.search(rf"(?<![\w.])/({'|'.join(p.name for p in Path('/').iterdir())})/", text), path.name


def test_model_pt_is_alone_and_plain(run):
    assert [path.name for path in (run / "models").iterdir() if path.is_file()] == ["model.pt"]
    folders = {path.name for path in (run / "models").iterdir() if path.is_dir()}
    assert folders == {"generator", "baselines"}
    held = torch.load(run / "models" / "model.pt", weights_only=True)
    assert set(held) == set(make_trainer().network.state_dict())
    assert {path.name for path in (run / "models" / "baselines").iterdir()} == {"plain.pt", "augment.pt"}
    assert (run / "LICENSE").is_file()
    assert (run / "docs" / "README.md").is_file()


def test_the_weights_are_those_of_the_end_of_their_phase(tmp_path):
    trainer = make_trainer(train_handlers=[writer(tmp_path)])
    ends: dict[Phase, dict[str, torch.Tensor]] = {}

    def keep(engine: Any) -> None:
        part = engine.generator if engine.phase is Phase.FINE_TUNE else engine.players.segmenter
        ends[engine.phase] = {name: value.clone() for name, value in part.state_dict().items()}

    trainer.add_event_handler(Events.ITERATION_COMPLETED, keep)
    trainer.run()
    models = tmp_path / "models"
    found = {
        Phase.FINAL_FIT: torch.load(models / "model.pt", weights_only=True),
        Phase.FINE_TUNE: dict(load_generator(models / "generator").state_dict()),
        Phase.PLAIN: torch.load(models / "baselines" / "plain.pt", weights_only=True),
        Phase.AUGMENT: torch.load(models / "baselines" / "augment.pt", weights_only=True),
    }
    for phase, weights in found.items():
        assert differing(dict(weights), ends[phase]) == [], phase


def test_a_bundle_trained_in_place_keeps_its_training_config(tmp_path):
    out = tmp_path / "bundle"
    make_trainer(train_handlers=[writer(out)], max_epochs=2).run()
    before = (out / "configs" / "train.yaml").read_bytes()
    other = {**PLAN, "size": [64, 64]}
    make_trainer(train_handlers=[BundleWriter(out, out, CONFIG, other, SHAPE)], max_epochs=2).run()
    assert (out / "configs" / "train.yaml").read_bytes() == before
    assert yaml.safe_load((out / "configs" / "inference.yaml").read_text())["plan"]["size"] == [64, 64]


def test_in_place_config_and_weights_stay_together_where_the_weights_cannot_be_written(tmp_path, monkeypatch):
    out = tmp_path / "bundle"
    make_trainer(train_handlers=[writer(out)], max_epochs=2).run()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def full(state: Any, path: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(artefacts, "save_file", full)
    other = {**PLAN, "size": [64, 64]}
    settings = LoopSettings(baselines=())
    again = make_trainer(train_handlers=[BundleWriter(out, out, CONFIG, other, SHAPE)], max_epochs=2, settings=settings)
    with pytest.raises(OSError, match="no space left"):
        again.run()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


# --- the record


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


def test_the_record_says_how_the_run_came_about(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    seen: list[bool] = []
    trainer = make_trainer(train_handlers=[RunRecord(tmp_path, str(data), 3, {"more": 1})])
    trainer.add_event_handler(StageEvents.PHASE_COMPLETED, lambda e: seen.append(record(tmp_path)["finished"]))
    trainer.run()
    held = record(tmp_path)
    assert seen == [False] * len(Phase)
    assert held["finished"] is True
    assert (held["seed"], held["more"], held["device"]) == (3, 1, "cpu")
    assert held["dataset_dir"] == str(data)
    assert held["cases"] == {"training": 6, "search": 6}
    assert held["iterations"] == {str(phase): steps for phase, steps in trainer.schedule.steps.items()}
    assert held["settings"]["outer_every"] == 1
    assert held["settings"]["shares"]["search"] == 0.35
    assert held["settings"]["estimator"] == "mixed"
    assert set(held["seconds_by_phase"]) == {str(phase) for phase in Phase}
    assert 0 < sum(held["seconds_by_phase"].values()) <= held["seconds"] + 0.1
    assert 0 < held["peak_memory_gib"] < 100
    assert held["versions"]["torch"] == torch.__version__
    assert {"python", "monai", "numpy"} <= set(held["versions"])
    assert isinstance(held["command"], list)


def test_data_that_are_no_folder_are_named_as_they_were(tmp_path):
    make_trainer(train_handlers=[RunRecord(tmp_path, "phantom://2d", 0)], max_epochs=2).run()
    assert record(tmp_path)["dataset_dir"] == "phantom://2d"


def test_a_resumed_run_adds_to_the_times(tmp_path):
    class Stop(Exception):
        pass

    def stop(engine: Any) -> None:
        raise Stop

    def handlers(*, wanted: bool) -> list[Any]:
        folder = tmp_path / "checkpoints"
        return [Resume(folder, wanted=wanted), RunRecord(tmp_path, "phantom://2d", 0), Checkpointer(folder)]

    trainer = make_trainer(train_handlers=handlers(wanted=False))
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2 * LENGTH + 1), stop)
    with pytest.raises(Stop):
        trainer.run()
    assert record(tmp_path)["finished"] is False
    first = record(tmp_path)["seconds_by_phase"]
    assert set(first) == {"warm_up", "search", "fine_tune"}
    make_trainer(train_handlers=handlers(wanted=True)).run()
    held = record(tmp_path)
    assert held["finished"] is True
    assert set(held["seconds_by_phase"]) == {str(phase) for phase in Phase}
    assert held["seconds_by_phase"]["search"] == first["search"]
