"""`genseg train`: the MONAI command it prints and runs, going on with a run, and what it refuses."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from genseg_monai.__main__ import main
from genseg_monai.engines import GenSegTrainer
from genseg_monai.handlers.checkpoint import checkpoints

DATA = "phantom://2d?cases=6&size=32"
SETTINGS = {
    "max_epochs": "2",
    "epoch_length": "4",
    "save_interval": "1",
    "batch_size": "2",
    "generator_width": "2",
    "discriminator_width": "4",
    "rehearse": "False",
    "baselines": "[]",
    "outer_after": "0",
}


def tiny(**others: str) -> list[str]:
    """Return the flags of a short run, some of them otherwise."""
    return [word for name, value in (SETTINGS | others).items() for word in (f"--{name}", value)]


TINY = tiny()


@pytest.fixture(autouse=True)
def _hook() -> Iterator[None]:
    """The config makes errors that end a process one line; undo it."""
    hook = sys.excepthook
    yield
    sys.excepthook = hook


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Start nothing; collect what MONAI's workflow is given."""
    given: list[dict[str, Any]] = []

    class Workflow:
        def __init__(self, **arguments: Any) -> None:
            given.append(arguments)

        def initialize(self) -> None: ...
        def run(self) -> None: ...
        def finalize(self) -> None: ...

    monkeypatch.setattr("monai.bundle.ConfigWorkflow", Workflow)
    return given


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_it_prints_the_command_it_runs(started, capsys, tmp_path, repository, monkeypatch):
    monkeypatch.chdir(repository)
    out = str(tmp_path / "my out")
    assert main(["train", "--data", DATA, "--out", out, "--seed", "3", "--device", "cpu", "--max_epochs", "4"]) == 0
    line = last_line(capsys)
    words = shlex.split(line)
    assert words[:5] == ["python", "-m", "monai.bundle", "run", "training"]
    assert words[5:7] == ["--config_file", "bundle/configs/train.yaml"]
    flags = dict(zip(words[7::2], words[8::2], strict=True))
    assert flags == {
        "--dataset_dir": DATA,
        "--output_dir": out,
        "--seed": "3",
        "--device": "cpu",
        "--max_epochs": "4",
    }
    (given,) = started
    assert given["run_id"] == "training"
    assert (given["seed"], given["device"], given["max_epochs"]) == (3, "cpu", 4)
    assert (given["dataset_dir"], given["output_dir"]) == (DATA, out)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("2", 2),
        ("1e-3", 1e-3),
        ("False", False),
        ("[64, 64]", [64, 64]),
        ("{0: 0, 255: 1}", {0: 0, 255: 1}),
        ("deeplab", "deeplab"),
        ("$2 * 3", "$2 * 3"),
        ("@classes", "@classes"),
        ("None", None),
        ("false", False),
        ("true", True),
        ("null", None),
    ],
)
def test_overrides_are_read_as_monai_reads_them(started, tmp_path, typed, read):
    for name in ("size", "train#trainer#max_epochs", "train::trainer::max_epochs"):
        assert main(["train", "--data", DATA, "--out", str(tmp_path / "out"), f"--{name}", typed]) == 0
        found = started[-1][name]
        assert (type(found), found) == (type(read), read)


@pytest.mark.parametrize("name", ["1E5", "1_000", "12#3", "None", "[1]", "007"])
def test_folders_stay_as_typed(started, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert main(["train", "--data", name, "--out", f"{name}.out"]) == 0
    assert (started[-1]["dataset_dir"], started[-1]["output_dir"]) == (name, f"{name}.out")


def test_overrides_reach_the_trainer(monkeypatch, tmp_path):
    found: list[GenSegTrainer] = []
    monkeypatch.setattr(GenSegTrainer, "run", lambda trainer: found.append(trainer))
    words = ["--train#trainer#max_epochs", "3", "--optimizer#lr", "0.5", "--seed", "5", *TINY]
    assert main(["train", "--data", DATA, "--out", str(tmp_path / "out"), *words]) == 0
    assert found[0].state.max_epochs == 3
    assert found[0].optimizer.param_groups[0]["lr"] == 0.5
    assert found[0].settings.baselines == ()


# --- a run, and going on with it


def test_a_run_is_resumed_with_everything_it_was_started_with(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    iterate = GenSegTrainer._iteration

    def interrupted(trainer: GenSegTrainer, engine: Any, batch: Any) -> Any:
        if trainer.state.iteration == 6:
            raise KeyboardInterrupt
        return iterate(trainer, engine, batch)

    with monkeypatch.context() as patch:
        patch.setattr(GenSegTrainer, "_iteration", interrupted)
        assert main(["train", "--data", DATA, "--out", str(out), "--seed", "5", "--gamma", "0.5", *TINY]) == 130
    assert [path.name for path in checkpoints(out / "checkpoints")] == ["iteration_4.pt"]
    assert not (out / "models" / "model.pt").exists()
    capsys.readouterr()

    assert main(["train", "--resume", str(out)]) == 0
    told = capsys.readouterr()
    first = told.err.splitlines()[0]
    assert f"--config_file {out}/configs/train.yaml" in first
    assert re.search(rf"--dataset_dir '?{re.escape(DATA)}'? --output_dir {out} --resume True$", first)
    assert "resumed from iteration_4.pt" in told.err
    assert f"{out / 'models' / 'model.pt'}" in told.out
    record = json.loads((out / "run.json").read_text())
    assert record["finished"]
    assert record["seed"] == 5
    assert record["settings"]["gamma"] == 0.5
    config = yaml.safe_load((out / "configs" / "train.yaml").read_text())
    assert (config["seed"], config["gamma"], config["generator_width"], config["resume"]) == (5, 0.5, 2, False)

    # a run that is over can be resumed once more, and a new one does not begin in its folder
    assert main(["train", "--resume", str(out)]) == 0
    capsys.readouterr()
    assert main(["train", "--data", DATA, "--out", str(out), *TINY]) == 2
    assert "found the checkpoints of another run: resume it, or give another output folder" in last_line(capsys)


@pytest.mark.parametrize("extra", [["--out", "x"], ["--seed", "1"], ["--budget", "5m"], ["--preset", "x"]])
def test_resume_takes_nothing_else(tmp_path, capsys, started, extra):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text("seed: 0\n")
    (tmp_path / "run.json").write_text('{"dataset_dir": "phantom://2d"}')
    assert main(["train", "--resume", str(tmp_path), *extra]) == 2
    assert "takes everything but --device from the run" in last_line(capsys)
    assert main(["train", "--resume", str(tmp_path), "--device", "cpu"]) == 0
    assert started[0]["device"] == "cpu"


def test_data_that_have_moved_can_be_named_again(tmp_path, started):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text("seed: 0\n")
    (tmp_path / "run.json").write_text('{"dataset_dir": "/gone"}')
    assert main(["train", "--resume", str(tmp_path), "--data", str(tmp_path)]) == 0
    assert started[0]["dataset_dir"] == str(tmp_path)


# --- what is refused


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--data: wanted, but not given"),
        (["--data", DATA], "--out: wanted, but not given"),
        (["--data", "no/such", "--out", "x"], "no/such: wanted a data set, there is no such file or folder"),
        (["--data", DATA, "--out", "x", "--preset", "none"], "--preset: wanted one of"),
        (["--data", DATA, "--out", "x", "--max_epoch", "3"], "did you mean --max_epochs?"),
        (["--data", DATA, "--out", "x", "--device", "gpu"], "--device: wanted cpu, cuda or cuda:N, got 'gpu'"),
        (["--data", DATA, "--out", "x", "--device", "cuda:99"], "there are"),
        (["--resume", "no/such"], "no/such: wanted the folder of a run to continue"),
        (["--data", DATA, "--out", "x", "stray"], "stray: did not expect this word"),
        (["--data", "--out", "x"], "--data: wanted a value after it"),
    ],
)
def test_wrong_use_is_told_in_one_line(tmp_path, capsys, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert error.splitlines()[-1].startswith("genseg: ")
    assert told in error.splitlines()[-1]
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"budget": "soon"}, "--budget: wanted a time such as 90s, 30m or 1.5h, got 'soon'"),
        ({"segmenter": "vgg"}, "segmenter: wanted one of unet, "),
        ({"estimator": "guess"}, "estimator: wanted one of "),
        ({"search_fraction": "2"}, "search_fraction: wanted a fraction in [0, 1), got 2"),
        ({"gamma": "-1"}, "gamma: wanted a number of at least 0"),
        ({"baselines": "[nnunet]"}, "baselines: wanted any of plain, augment, got 'nnunet'"),
        ({"shares#search": "-1"}, "shares: wanted four weights >= 0"),
        ({"search_space": "narrow"}, "search space: wanted one of paper, wide, shared, got 'narrow'"),
        ({"max_epochs": "1", "epoch_length": "2"}, "max_epochs: wanted at least"),
    ],
)
def test_wrong_settings_are_told_in_one_line(tmp_path, capsys, wrong, told):
    out = tmp_path / "out"
    assert main(["train", "--data", DATA, "--out", str(out), *tiny(**wrong)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith(f"genseg: {told}")
    assert not any("Traceback" in line for line in error)
    assert not out.exists()


def test_too_few_cases_are_told_in_one_line(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train", "--data", "phantom://2d?cases=3&size=32", "--out", str(out), *TINY]) == 2
    assert not out.exists()
    assert last_line(capsys) == (
        "genseg: training cases: wanted at least 4 for the search, got 1; label more or hold out fewer"
    )


def test_a_loss_that_explodes_is_a_failure_of_the_run(tmp_path, capsys):
    assert main(["train", "--data", DATA, "--out", str(tmp_path / "out"), *tiny(learning_rate="1e30")]) == 1
    line = last_line(capsys)
    assert line.startswith("genseg: ")
    assert "there is no checkpoint yet" in line or "the last good checkpoint is" in line
    assert not Path(tmp_path / "out" / "models" / "model.pt").exists()


def test_a_preset_of_universeg_stands_over_its_own_config_and_needs_no_data(
    started, capsys, tmp_path, repository, monkeypatch
):
    monkeypatch.chdir(repository)
    out = str(tmp_path / "out")
    assert main(["train", "--preset", "universeg_synthetic", "--out", out, "--learning_rate", "0.001"]) == 0
    [given] = started
    assert given["config_file"] == ["bundle/configs/universeg_train.yaml", "configs/universeg_synthetic.yaml"]
    assert "dataset_dir" not in given
    assert given["output_dir"] == out
    assert given["learning_rate"] == 0.001
    assert main(["train", "--preset", "universeg_synthetic"]) == 2
    assert "--out: wanted, but not given" in last_line(capsys)
