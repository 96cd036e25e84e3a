"""Real processes, stopped from outside: they say so, save, and the resumed run ends as if nothing had happened.

Slow, since every run here is a whole one in a process of its own.
"""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from genseg_monai.handlers.checkpoint import checkpoints
from tests.engines.process import Command
from tests.engines.tiny import differing

pytestmark = pytest.mark.slow

DATA = "phantom://2d?cases=6&size=32"
EPOCHS, LENGTH = 12, 3
SETTINGS = {
    "max_epochs": EPOCHS,
    "epoch_length": LENGTH,
    "save_interval": 1,
    "batch_size": 2,
    "generator_width": 2,
    "discriminator_width": 4,
    "outer_after": 1,
    "outer_every": 2,
    "val_interval": 2,
    "baselines": [],
    "rehearse": False,
}
FLAGS = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]


def start(out: Path) -> Command:
    out.mkdir(parents=True)
    return Command(["train", "--data", DATA, "--out", str(out), *FLAGS], out.parent / f"{out.name}.log")


def resume(out: Path) -> Command:
    return Command(["train", "--resume", str(out)], out.parent / f"{out.name}.log")


def end_of(out: Path) -> tuple[dict, dict]:
    """Return the last checkpoint and the trained segmenter."""
    files = (checkpoints(out / "checkpoints")[-1], out / "models" / "model.pt")
    last, model = (torch.load(file, weights_only=True) for file in files)
    assert last["engine"]["iteration"] == EPOCHS * LENGTH
    assert json.loads((out / "run.json").read_text())["finished"]
    return last, model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert start(out).wait() == 0
    return out


def assert_same(left: Path, right: Path) -> None:
    assert differing(end_of(left), end_of(right)) == []
    for name in ("models/model.pt", "models/generator/generator.pt", "models/search/genotype.json", "logs/alpha.csv"):
        assert (left / name).read_bytes() == (right / name).read_bytes(), name
    assert not list(left.rglob(".*")), "something half-written is left"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_asked_to_stop_saves_and_says_so(tmp_path, whole, number, code):
    out = tmp_path / "run"
    command = start(out)
    command.wait_for(out / "checkpoints", "iteration_*.pt")
    command.send(number)
    assert command.wait() == code
    told = command.log.read_text().splitlines()[-1]
    reached = int(checkpoints(out / "checkpoints")[-1].stem.split("_")[1])
    assert told.startswith(f"stopped by {number.name}; saved iteration {reached} in {out / 'checkpoints'}")
    assert LENGTH <= reached < EPOCHS * LENGTH
    assert "Traceback" not in command.log.read_text()
    if number == signal.SIGTERM:
        assert resume(out).wait() == 0
        assert_same(out, whole)


def test_a_run_killed_at_any_moment_continues(tmp_path, whole):
    """Before the first checkpoint, then at random."""
    out = tmp_path / "run"
    command = start(out)
    command.wait_for(out, "run.json")
    command.send(signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    command = resume(out)
    command.wait_for(out / "checkpoints", "iteration_*.pt")
    time.sleep(random.SystemRandom().uniform(0, 1))
    command.send(signal.SIGKILL)
    command.wait()
    command = resume(out)
    assert command.wait() == 0, command.log.read_text()
    assert_same(out, whole)
