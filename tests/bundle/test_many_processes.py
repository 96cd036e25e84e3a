"""The training config with multi_gpu_train.yaml laid over it, by torchrun."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genseg_monai._outcome import one_line
from genseg_monai.handlers.checkpoint import checkpoints
from tests.bundle.training import DATA_2D, TINY, run

pytestmark = pytest.mark.slow  # two processes import everything and train


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """What a short training by two processes has left."""
    folder = tmp_path_factory.mktemp("runs") / "both"
    settings = TINY | {
        "baselines": [],
        "epoch_length": 4,
        "search_fraction": 0.25,
        "dataset_dir": DATA_2D,
        "output_dir": folder,
    }
    configs = ["bundle/configs/train.yaml", "bundle/configs/multi_gpu_train.yaml"]
    words = [*("-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=2", "-m", "monai.bundle")]
    words += ["run", "training", "--config_file", str(configs)]
    words += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    command = [sys.executable, "-W", "ignore", *words]
    with subprocess.Popen(
        command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            raise
    assert process.returncode == 0, said
    (folder / "said.txt").write_text(said, encoding="utf-8")
    return folder


def test_one_process_writes_for_all(out):
    assert len(list((out / "logs").glob("events.out.tfevents.*"))) == 1
    with (out / "logs" / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["iteration"] for row in rows] == ["4", "8"]
    assert rows[-1]["validation"]
    said = (out / "said.txt").read_text()
    for line in ("final_fit: iteration 8 of 8", "wrote ", "Held-out cases: 1.", "search split: "):
        assert said.count(line) == 1, line
    assert json.loads((out / "run.json").read_text())["finished"]
    assert (out / "models" / "model.pt").is_file()


def test_its_checkpoint_is_of_two_processes(out):
    state = torch.load(checkpoints(out / "checkpoints")[-1], weights_only=True)
    assert len(state["random_all"]) == len(state["loader"]["queues"]) == 2


def test_one_process_cannot_go_on_with_it(out):
    with pytest.raises(Exception, match=r".*") as stop:
        run(out, dataset_dir=DATA_2D, output_dir=str(out), resume=True)
    assert "made by 2 processes, got 1: resume with --nproc_per_node=2" in one_line(stop.value)
