"""The training config through MONAI: its properties, its run ids, and what a run leaves."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genseg_monai._outcome import one_line
from genseg_monai.data import find_cases, read_splits
from genseg_monai.engines import GenSegTrainer, LoopSettings
from genseg_monai.networks import Genotype
from tests.bundle.tiny import SHIPPED
from tests.bundle.training import DATA_2D, DATA_3D, run, workflow


@pytest.fixture(autouse=True)
def _hook() -> Iterator[None]:
    """The config makes errors that end a process one line; undo it."""
    hook = sys.excepthook
    yield
    sys.excepthook = hook


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short training on pictures has left."""
    folder = tmp_path_factory.mktemp("runs") / "pictures"
    hook = sys.excepthook
    run(SHIPPED, dataset_dir=DATA_2D, output_dir=str(folder))
    sys.excepthook = hook
    return folder


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a segmenter of fewer channels."""
    folder = tmp_path_factory.mktemp("runs") / "narrow"
    hook = sys.excepthook
    settings = {"network_def#features": [4, 4, 8, 8, 16, 4], "final_scores": False, "baselines": []}
    settings |= {"synthesis": "scenes", "place": "anywhere"}
    run(SHIPPED, dataset_dir=DATA_2D, output_dir=str(folder), **settings)
    sys.excepthook = hook
    return folder


# --- the config


@pytest.mark.parametrize("data", [DATA_2D, DATA_3D])
def test_monai_finds_every_property(tmp_path, data):
    started = workflow(SHIPPED, dataset_dir=data, output_dir=str(tmp_path))
    started.initialize()
    assert started.check_properties() == []


@pytest.mark.parametrize("run_id", ["run", "training", ""])
def test_every_run_id_trains_once(monkeypatch, tmp_path, run_id):
    """MONAI Label echoes the run id "" that MONAI then takes for the whole config."""
    trained: list[int] = []
    monkeypatch.setattr(GenSegTrainer, "run", lambda trainer: trained.append(trainer.state.max_epochs))
    run(SHIPPED, run_id, dataset_dir=DATA_2D, output_dir=str(tmp_path))
    assert trained == [2]


def test_every_setting_of_the_loop_reaches_it(monkeypatch, tmp_path):
    found: list[GenSegTrainer] = []
    monkeypatch.setattr(GenSegTrainer, "run", lambda trainer: found.append(trainer))
    given = {"gamma": 0.5, "outer_every": 3, "outer_after": 7, "estimator": "one_sided", "search_fraction": 0.4}
    given |= {"augment_real": False, "baselines": ["augment"], "shares#search": 0.5, "epsilon": 0.05, "search_batch": 3}
    given |= {"synthesis": "scenes", "place": "anywhere", "warp_real": True, "synthetic": False}
    given |= {"gamma_ramp": 0.2, "average": 0.9, "synthetic_until": 0.8}
    run(SHIPPED, dataset_dir=DATA_2D, output_dir=str(tmp_path), learning_rate=0.02, arch_rate=0.03, **given)
    settings = vars(found[0].settings)
    assert set(settings) == {name.partition("#")[0] for name in given}, "a setting is not tried"
    for name in set(settings) - {"baselines", "shares"}:
        assert settings[name] == given[name] != getattr(LoopSettings(), name), name
    assert settings["baselines"] == ("augment",)
    assert settings["shares"].search == 0.5
    assert found[0].optimizer.param_groups[0]["lr"] == 0.02
    assert found[0].players.arch_optimizer.param_groups[0]["lr"] == 0.03
    assert len(found[0].search_cases) == round(0.4 * len(found[0].loader.cases))


def test_every_setting_of_the_device_reaches_it(monkeypatch, tmp_path):
    found: list[GenSegTrainer] = []
    monkeypatch.setattr(GenSegTrainer, "run", lambda trainer: found.append(trainer))
    given = {"precision": "bfloat16", "channels_last": True, "compile": True, "fused": True}
    started = workflow(SHIPPED, dataset_dir=DATA_2D, output_dir=str(tmp_path), **given)
    started.initialize()
    started.run()
    assert {name: getattr(found[0].acceleration, name) for name in given} == given
    players = found[0].players
    for optimizer in (players.optimizer, players.generator_optimizer, players.discriminator_optimizer):
        assert optimizer.defaults["fused"]
    assert players.arch_optimizer.defaults["fused"]
    evaluator = started.parser.get_parsed_content("validate#evaluator")
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        validated, plain = evaluator.inferer(image, found[0].network), found[0].network(image)
    assert validated.dtype == torch.float32
    assert not torch.equal(validated, plain)  # in bfloat16
    torch.testing.assert_close(validated, plain, rtol=0.1, atol=0.1)


def test_the_size_and_the_label_values_can_be_overruled(monkeypatch, tmp_path):
    found: list[GenSegTrainer] = []
    monkeypatch.setattr(GenSegTrainer, "run", lambda trainer: found.append(trainer))
    overrides = {"size": [48, 64], "label_values": {0: 0, 255: 1}, "search_space": "wide", "segmenter": "segresnet"}
    run(SHIPPED, dataset_dir=DATA_2D, output_dir=str(tmp_path), **overrides)
    assert found[0].loader.cases.images.shape[1:] == (1, 48, 64)
    assert type(found[0].loader.cases.images) is torch.Tensor  # not MONAI's, which every step would pay for
    assert type(found[0].network).__name__ != "BasicUNet"


# --- what a training leaves


def test_a_training_leaves_what_it_promises(out):
    models = out / "models"
    assert [path.name for path in models.iterdir() if path.is_file()] == ["model.pt"]
    promised = [
        *("configs/train.yaml", "configs/inference.yaml", "configs/evaluate.yaml", "configs/generate.yaml"),
        *("configs/metadata.json", "configs/logging.conf", "docs/README.md", "LICENSE"),
        *("models/generator/generator.pt", "models/generator/generator.json", "models/search/genotype.json"),
        "models/calibration/temperature.json",
        *("checkpoints/iteration_6.pt", "checkpoints/iteration_12.pt"),
        *("logs/alpha.csv", "logs/history.csv", "logs/train.log"),
        *("pictures/curves.png", "pictures/alpha.png", "pictures/panel_fine_tune.png"),
        *("scores/genseg.csv", "scores/plain.csv", "scores/augment.csv", "scores/comparison.csv", "run.json"),
    ]
    assert [name for name in promised if not (out / name).is_file()] == []
    assert list((out / "logs").glob("events.out.tfevents.*"))
    assert not list(out.rglob(".*")), "something half-written is left"
    with Image.open(out / "pictures" / "panel_fine_tune.png") as panel:
        assert panel.size[0] > 5 * 150


def test_its_record_tells_the_whole_run(out):
    held = json.loads((out / "run.json").read_text())
    assert held["finished"]
    assert held["dataset_dir"] == DATA_2D
    assert sum(held["iterations"].values()) == 12
    assert set(held["seconds_by_phase"]) == set(held["iterations"])
    log = (out / "logs" / "train.log").read_text()
    assert f"wrote {out / 'models' / 'model.pt'}" in log
    assert "augment: iteration 12 of 12" in log


def test_tensorboard_has_every_loss_and_the_validation_score(out):
    (path,) = (out / "logs").glob("events.out.tfevents.*")
    events = EventAccumulator(str(path)).Reload()
    losses = {"loss", "synthetic_loss", "generator_loss", "discriminator_loss", "hypergradient_norm"}
    assert losses | {"val_mean_dice"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 13))


def test_its_configs_hold_no_path_of_this_machine(out):
    tops = "|".join(path.name for path in Path("/").iterdir())
    for path in (out / "configs").iterdir():
        found = re.search(rf"(?<![\w.])/({tops})/\S*", path.read_text())
        assert found is None, f"{path.name}: {found and found[0]}"


def test_its_architecture_moved_and_was_used(out):
    genotype = Genotype.load(out / "models" / "search" / "genotype.json")
    told = json.loads((out / "models" / "generator" / "generator.json").read_text())
    assert Genotype.from_json(json.dumps(told["genotype"])) == genotype
    with (out / "logs" / "alpha.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    cells = [name for name in rows[0] if ":" in name]
    assert len(rows) >= 2
    assert all(rows[0][name] != rows[-1][name] for name in cells)


def test_its_scores_are_of_the_test_cases(out):
    test = read_splits(DATA_2D, find_cases(DATA_2D)).test
    for arm in ("genseg", "plain", "augment"):
        with (out / "scores" / f"{arm}.csv").open(newline="") as stream:
            assert {row["case"] for row in csv.DictReader(stream)} == {case["case"] for case in test}


def test_it_can_be_predicted_with(out, tmp_path):
    started = ConfigWorkflow(
        str(out / "configs" / "inference.yaml"),
        workflow_type="infer",
        logging_file=False,
        dataset_dir=str(Path(find_cases(DATA_2D)[0]["image"])),
        output_dir=str(tmp_path),
    )
    started.initialize()
    assert started.check_properties() == []
    started.run()
    (mask,) = tmp_path.glob("*.png")
    with Image.open(mask) as picture:
        assert picture.size == (32, 32)
        assert set(np.unique(np.asarray(picture))) <= {0, 1}


@pytest.mark.parametrize("config", ["inference", "evaluate"])
def test_other_settings_of_the_segmenter_are_kept(narrow, tmp_path, config):
    started = ConfigWorkflow(
        str(narrow / "configs" / f"{config}.yaml"),
        workflow_type="infer",
        logging_file=False,
        dataset_dir=DATA_2D if config == "evaluate" else str(Path(find_cases(DATA_2D)[0]["image"])),
        output_dir=str(tmp_path),
    )
    started.initialize()
    started.run()
    weights = torch.load(narrow / "models" / "model.pt", weights_only=True)
    assert started.network_def.state_dict().keys() == weights.keys()
    assert max(len(value) for value in weights.values()) == 16


def test_scenes_are_made_as_they_were_in_the_training(narrow):
    started = ConfigWorkflow(str(narrow / "configs" / "generate.yaml"), workflow_type="infer", logging_file=False)
    started.initialize()
    conditions = started.parser.get_parsed_content("synthesis").conditions
    assert (conditions.synthesis, conditions.place) == ("scenes", "anywhere")


def test_its_own_config_trains_again(out, tmp_path):
    """The same data and settings: the same segmenter, to the byte."""
    again = tmp_path / "again"
    started = ConfigWorkflow(
        str(out / "configs" / "train.yaml"),
        workflow_type="train",
        logging_file=False,
        run_id="run",
        dataset_dir=DATA_2D,
        output_dir=str(again),
    )
    started.initialize()
    started.run()
    for name in ("models/model.pt", "models/generator/generator.pt", "models/baselines/augment.pt", "logs/alpha.csv"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_its_folder_is_not_trained_into_twice(out):
    with pytest.raises(Exception, match=r".*") as stop:
        run(SHIPPED, dataset_dir=DATA_2D, output_dir=str(out))
    told = one_line(stop.value)
    assert "found the checkpoints of another run: resume it, or give another output folder" in told
    assert (out / "models" / "model.pt").is_file()


@pytest.mark.slow
def test_volumes(tmp_path):
    """Two foreground classes, NIfTI, in one epoch; volumes take their time."""
    folder = tmp_path / "volumes"
    run(
        SHIPPED,
        dataset_dir=DATA_3D,
        output_dir=str(folder),
        max_epochs=1,
        baselines=["plain"],
        segmenter="segresnet",
        network_def={
            "_target_": "genseg_monai.networks.make_segmenter",
            "name": "@segmenter",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": "@classes",
            "init_filters": 8,
        },
    )
    plan = yaml.safe_load((folder / "configs" / "inference.yaml").read_text())["plan"]
    assert (plan["spatial_dims"], len(plan["classes"]), plan["modality"]) == (3, 3, "CT")
    with (folder / "scores" / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["unit"] for row in rows} == {"mm"}
    assert {row["class"] for row in rows} == {*plan["classes"][1:], "mean"}
    with Image.open(folder / "pictures" / "panel_fine_tune.png") as panel:
        assert panel.size[0] > 5 * 150


# --- the command


@pytest.mark.parametrize(("data", "told"), [("no/such/folder", "no/such/folder"), (None, "images")])
def test_the_command_of_monai_fails_in_one_line(tmp_path, repository, data, told):
    """A process of its own: what MONAI wraps around the error is seen only there."""
    if data is None:
        data = str(tmp_path)
    words = ["run", "training", "--config_file", "bundle/configs/train.yaml", "--dataset_dir", data]
    words += ["--output_dir", str(tmp_path / "out")]
    environment = {**os.environ, "GENSEG_DEBUG": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "monai.bundle", *words],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("genseg: ")
    assert told in last
    assert not (tmp_path / "out").exists()
