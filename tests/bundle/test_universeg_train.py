"""The config that trains UniverSeg on episodes, run through MONAI for a few small steps."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow

from genseg_monai.__main__ import main
from genseg_monai.data.task_builder import build_tasks
from genseg_monai.engines.state import load_file
from genseg_monai.handlers.checkpoint import Checkpointer
from genseg_monai.networks.universeg import UniverSeg
from genseg_monai.transforms.episode_augment import EntryAugment, TaskAugment
from tests.bundle.tiny import SHIPPED
from tests.engines.tiny import differing

CONFIG = SHIPPED / "configs" / "universeg_train.yaml"
PRESET = SHIPPED.parent / "configs" / "universeg_synthetic.yaml"
STAGE = {
    "_target_": "genseg_monai.data.episodes.EpisodeStage", "size": 16, "support": [1, 2], "entries": 2, "tasks": 1,
}  # fmt: skip
TINY: dict[str, Any] = {
    "max_epochs": 2,
    "epoch_length": 2,
    "save_interval": 1,
    "val_interval": 1,
    "device": "cpu",
    "stages": [STAGE],
    "network_def#features": [4, 4, 4],
    "train#held_out#size": 16,
    "train#held_out#tasks": 2,
}


def _run(out: Path, config: Any = str(CONFIG), **overrides: Any) -> ConfigWorkflow:
    given = {**TINY, "output_dir": str(out), **overrides}
    workflow = ConfigWorkflow(config, workflow_type="train", logging_file=False, run_id="training", **given)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def test_it_trains_and_leaves_weights(tmp_path: Path) -> None:
    _run(tmp_path)
    weights = load_file(tmp_path / "models" / "universeg" / "model.pt")
    UniverSeg(features=(4, 4, 4)).load_state_dict(weights)
    assert json.loads((tmp_path / "run.json").read_text())["finished"]
    assert (tmp_path / "logs" / "history.csv").read_text().count("\n") == 3
    assert (tmp_path / "logs" / "train.log").stat().st_size > 0


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    """A longer run stopped by nothing, and one of two halves: the second asks for the first one's checkpoint."""
    _run(tmp_path / "whole")
    _run(tmp_path / "parts")
    (tmp_path / "parts" / "checkpoints" / "iteration_4.pt").unlink()
    (tmp_path / "parts" / "models" / "universeg" / "model.pt").unlink()
    _run(tmp_path / "parts", resume=True)
    one, two = (load_file(tmp_path / name / "checkpoints" / "iteration_4.pt") for name in ("whole", "parts"))
    assert differing(one, two) == []
    one, two = (load_file(tmp_path / name / "models" / "universeg" / "model.pt") for name in ("whole", "parts"))
    assert differing(one, two) == []


def test_the_command_line_resumes_it_from_what_it_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--preset", "universeg_synthetic"]
    for name, value in TINY.items():
        words += [f"--{name}", str(value)]
    assert main(["train", *words, "--out", str(tmp_path / "whole")]) == 0
    save = Checkpointer.save

    def save_and_stop(self: Checkpointer, engine: Any) -> None:
        save(self, engine)
        if engine.state.iteration == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpointer, "save", save_and_stop)
    parts = tmp_path / "parts"
    assert main(["train", *words, "--out", str(parts)]) == 130
    assert not json.loads((parts / "run.json").read_text())["finished"]
    assert str(tmp_path) not in (parts / "configs" / "train.yaml").read_text()
    monkeypatch.setattr(Checkpointer, "save", save)
    assert main(["train", "--resume", str(parts)]) == 0
    one, two = (load_file(tmp_path / name / "models" / "universeg" / "model.pt") for name in ("whole", "parts"))
    assert differing(one, two) == []
    assert json.loads((parts / "run.json").read_text())["finished"]


def test_it_trains_on_tasks_of_data_sets(tmp_path: Path) -> None:
    build_tasks(["phantom://2d?cases=6&size=32"], tmp_path / "tasks")
    given = {"dataset_dir": str(tmp_path / "tasks"), "synthetic_share": 0.0}
    loader = _run(tmp_path / "out", **given).parser.get_parsed_content("train#dataloader")
    assert loader.share == 0.0
    assert [task.modality for task in loader.tasks] == ["picture"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["tasks"] == 1


def test_augmentations_can_be_switched_off(tmp_path: Path) -> None:
    off = {"entry_augment#_disabled_": True, "task_augment#_disabled_": True, "synthetic_tasks": 5}
    loader = _run(tmp_path, **off).parser.get_parsed_content("train#dataloader")
    assert loader.entry_augment is None
    assert loader.task_augment is None
    assert loader.pool == 5


def test_the_preset_makes_the_shipped_network(tmp_path: Path) -> None:
    """Built, not run: the network and the stages of the weights in the bundle."""
    workflow = ConfigWorkflow(
        [str(CONFIG), str(PRESET)], workflow_type="train", logging_file=False, run_id="training",
        output_dir=str(tmp_path), device="cpu",
    )  # fmt: skip
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")
    assert sum(weights.numel() for weights in trainer.network.parameters()) == 1_182_785
    assert [stage.size for stage in trainer.stages] == [64, 64, 128]
    assert trainer.stages[-1].support == (1, 64)
    assert trainer.total == yaml.safe_load(PRESET.read_text())["max_epochs"] * 50
    assert not any(tmp_path.iterdir()), "nothing is written before the run"


def test_the_augmentations_of_the_config_are_spelt_out() -> None:
    """Every probability and range stands in the config, so that none has to be looked up in the code."""
    held = yaml.safe_load(CONFIG.read_text())
    for name, kind in (("entry_augment", EntryAugment), ("task_augment", TaskAugment)):
        assert set(held[name]) == {"_target_", *(entry.name for entry in fields(kind))}
    # as the shipped weights were trained
    assert [held["task_augment"][name] for name in ("flip_labels", "sharpness")] == [0, 0]
    assert held["entry_augment"]["sharpness"] == 0
    for name in ("entry_augment", "task_augment"):
        assert set(held[name]["intensity"]) >= {"brightness", "contrast", "gamma", "blur", "noise", "probability"}


def test_the_shipped_weights_fit() -> None:
    shipped = SHIPPED / "models" / "universeg" / "model.pt"
    weights = load_file(shipped)
    assert shipped.stat().st_size < 10e6
    network = UniverSeg()
    network.load_state_dict(weights)
    assert all(bool(value.isfinite().all()) and value.dtype == torch.float32 for value in weights.values())
