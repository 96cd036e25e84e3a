"""Processes at work on a study: which learning rate they take, who does what, and what one that vanished leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from genseg_monai.apps import study as study_app
from genseg_monai.apps.studies import executors, worker
from genseg_monai.apps.studies.cells import Arm, Cell, Purpose
from genseg_monai.apps.studies.ledger import Ledger, State
from genseg_monai.apps.studies.settings import StudySettings
from genseg_monai.apps.studies.worker import chosen_factor
from genseg_monai.errors import UserError
from tests.apps.studies.small import DATA, study


def ran(*_: Any) -> dict[str, Any]:
    """Take the place of a cell's training."""
    return {"dice": {"val": 0.5}, "seconds": 1.0, "factor": 1.0, "learning_rate": 0.001}


def test_learning_rates_are_chosen_on_the_validation_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, float]] = []

    def score(study: Path, settings: StudySettings, cell: Cell, factor: float, device: str | None) -> dict[str, Any]:
        made.append((cell.id, factor))
        if cell.arm is Arm.AUGMENT and cell.factor == 3:
            raise UserError("loss", "not finite")
        value = {0.3: 0.5, 1.0: 0.6, 3.0: 0.6}[factor]
        found = {"dice": {"val": value}, "seconds": 1.0, "factor": factor, "learning_rate": factor}
        return found | {"val_cases": [value - 0.1, value + 0.1]}

    monkeypatch.setattr(worker, "run_cell", score)
    assert study(tmp_path, arms="plain,augment", seeds="3,4", rates="0.3,1,3", updates="300", sizes="4,8") == 1
    pilots = [f"{arm}_n8_s3_unet_small_x{factor}" for arm in ("plain", "augment") for factor in ("0.3", "1", "3")]
    assert [name for name, _ in made[:6]] == pilots
    assert {factor for _, factor in made[6:]} == {1.0}
    assert len(made) == 6 + 2 * 2 * 2
    rates = json.loads((tmp_path / "summary.json").read_text())["rates"]
    assert rates["plain unet_small"]["validation_dice"] == {"0.3": 0.5, "1": 0.6, "3": 0.6}
    assert rates["augment unet_small"]["validation_dice"] == {"0.3": 0.5, "1": 0.6}
    assert rates["plain unet_small"]["chosen"] == 1.0


def reached(folder: Path, **dice: list[float]) -> float:
    """Return the factor that pilots with these Dice of the validation cases choose."""
    settings = StudySettings(DATA, (Arm.PLAIN,), (0, 1), (8,), ("unet",), updates=300)
    ledger = Ledger(folder)
    for pilot in settings.cells()[:3]:
        ledger.append(pilot.id, State.DONE, val_cases=dice[f"x{pilot.factor:g}".replace(".", "_")])
    return chosen_factor(ledger, settings, settings.cells()[-1])


def test_a_rate_that_is_not_clearly_better_is_not_chosen(tmp_path: Path) -> None:
    usual = [0.4, 0.6, 0.5, 0.7]
    barely, clearly = [0.7, 0.5, 0.4, 0.8], [0.6, 0.7, 0.7, 0.8]
    assert reached(tmp_path / "a", x0_3=[0.3] * 4, x1=usual, x3=barely) == 1
    assert reached(tmp_path / "b", x0_3=[0.3] * 4, x1=usual, x3=clearly) == 3


def test_all_cells_of_an_arm_have_the_rate_of_the_first(tmp_path: Path) -> None:
    """A pilot that is tried again later would choose another one for the seeds to come."""
    settings = StudySettings(DATA, (Arm.PLAIN,), (0, 1), (8,), ("unet",), updates=300)
    (tmp_path / "a").mkdir()
    Ledger(tmp_path / "a").append("plain_n8_s0_unet", State.DONE, factor=0.3)
    assert reached(tmp_path / "a", x0_3=[0.3] * 4, x1=[0.6] * 4, x3=[0.9] * 4) == 0.3
    assert len(settings.cells()) == 5


def test_no_rate_left(tmp_path: Path) -> None:
    settings = StudySettings(DATA, (Arm.PLAIN,), (0,), (8,), ("unet",), updates=300)
    cell = settings.cells()[-1]
    assert cell.purpose is Purpose.SCORE
    with pytest.raises(UserError, match="no learning rate could be chosen, all of them failed"):
        chosen_factor(Ledger(tmp_path), settings, cell)


def test_several_processes_share_a_device_and_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert study_app._devices("cpu", 3) == ["cpu", "cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert study_app._devices(None, None) == ["cuda:0", "cuda:1"]
    assert study_app._devices(None, 3) == ["cuda:0", "cuda:1", "cuda:0"]
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(executors.os, "cpu_count", lambda: 8)
    executors.share_threads(3)
    assert (taken, executors.os.environ["OMP_NUM_THREADS"]) == ([2], "2")


def test_what_a_vanished_process_has_left_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process takes a cell and dies in it while this one finds nothing more to do."""
    took: list[Cell] = []

    class Process:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.claimed = Ledger(tmp_path).claim("plain_n8_s1_unet_small")
            assert self.claimed.__enter__()
            Ledger(tmp_path).append("plain_n8_s1_unet_small", State.STARTED)

        def wait(self) -> int:
            self.claimed.__exit__(None, None, None)
            return -9

        def poll(self) -> int:
            return -9

    def run(study: Path, settings: StudySettings, cell: Cell, *_: Any) -> dict[str, Any]:
        took.append(cell)
        return ran()

    monkeypatch.setattr(study_app, "_devices", lambda *_: ["cpu", "cuda:0"])
    monkeypatch.setattr(study_app, "share_threads", lambda _: None)
    monkeypatch.setattr(executors.subprocess, "Popen", Process)
    monkeypatch.setattr(worker, "run_cell", run)
    monkeypatch.setattr(study_app, "_results", lambda *_: "")
    assert study(tmp_path, seeds="0,1") == 0
    assert [cell.seed for cell in took] == [0, 1]
    assert Ledger(tmp_path).is_done("plain_n8_s1_unet_small")


def test_a_cell_whose_process_keeps_vanishing_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        Ledger(tmp_path).append("plain_n8_s0_unet_small", State.STARTED)
    assert study(tmp_path) == 1
    assert "its process vanished 5 times in a row (out of memory?)" in capsys.readouterr().err


def test_cells_in_other_hands_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another machine works on one; the results here are not yet those of the study."""
    monkeypatch.setattr(worker, "run_cell", ran)
    Ledger(tmp_path).append("plain_n8_s1_unet_small", State.STARTED)
    with Ledger(tmp_path).claim("plain_n8_s1_unet_small"):
        assert study(tmp_path, seeds="0,1") == 1
    assert re.search(r"1 of 2 cells have not ended, plain_n8_s1_unet_small among them", capsys.readouterr().err)
    assert study(tmp_path, seeds="0,1") == 0
