"""The commands of the README, typed in their order, on a drawn data set."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genseg_monai.data.phantom import draw_phantom

BUDGET = "5s"
SHORT = ["--max_epochs", "1", "--epoch_length", "8", "--generator_width", "4", "--outer_after", "0"]
QUICK = ["--support-size", "2", "--ensemble", "1"]
# typed by other tests: on an archive, on DICOM files, with several trainings, with a server of MONAI Label or MLflow
ELSEWHERE = {"pacs-check", "pull", "push", "deidentify", "convert", "runs/liver", "new_series", "label", "study"}
ELSEWHERE |= {"runs/study", "runs/seed0,runs/seed1,runs/seed2", "runs/scans", "mlflow"}


def _commands(readme: str) -> list[list[str]]:
    """Return the words of every ``python -m`` command in README's code blocks but those that install."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line) for line in lines if line.startswith("python -m ")]
    return [words for words in found if words[2] not in ("pip", "venv") and not ELSEWHERE & set(words)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commands_of_the_readme(repository: Path, tmp_path: Path) -> None:
    """Slow because it is the whole way, once, each command a process of its own as a user starts it."""
    draw_phantom(tmp_path / "feet", spatial_dims=2, cases=8, size=32, seed=0)
    shutil.copytree(tmp_path / "feet" / "images", tmp_path / "new_images")
    shutil.copytree(tmp_path / "feet", tmp_path / "data_sets" / "feet")
    for name in ("bundle", "configs"):
        shutil.copytree(repository / name, tmp_path / name)
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    commands = _commands((repository / "README.md").read_text(encoding="utf-8"))
    named = {"check", "train", "predict", "evaluate", "generate", "incontext", "rank", "tasks", "report"}
    assert named <= {words[3] for words in commands}
    for words in commands:
        typed = [BUDGET if before == "--budget" else word for before, word in zip(["", *words], words, strict=False)]
        if "training" in words or ("train" in words and "--resume" not in words):
            typed += [word for word in SHORT if "--budget" not in words or word not in SHORT[:2]]
        typed += QUICK if words[3] in ("incontext", "rank") else []
        done = subprocess.run(
            [sys.executable, *typed[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr[-3000:]}"
    assert (tmp_path / "runs" / "feet" / "models" / "model.pt").is_file()
    assert len(list((tmp_path / "masks").glob("*.png"))) == 8
    assert (tmp_path / "scores").is_dir()
    assert len(list((tmp_path / "synthetic" / "images").iterdir())) == 5 * 8
