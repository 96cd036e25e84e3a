"""`genseg study` from end to end on the phantom: cells, results, going on, failing, budgets, wrong use."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from genseg_monai.__main__ import main
from genseg_monai.apps import study as study_app
from genseg_monai.apps.studies import budget, executors, run_cell, worker
from genseg_monai.apps.studies.__main__ import main as work_on
from genseg_monai.apps.studies.cells import Arm, Cell
from genseg_monai.apps.studies.ledger import Ledger, State
from genseg_monai.apps.studies.settings import StudySettings, read_study
from genseg_monai.errors import UserError
from genseg_monai.handlers.checkpoint import Checkpointer, checkpoints
from tests.apps.studies.small import DATA, TINY, study
from tests.data.sets import picture, pictures
from tests.engines.tiny import differing

# six trainings take 20 seconds on a free core and many times that on a busy one
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studies") / "whole"
    assert study(out, arms="plain,augment,genseg", seeds="0,1", test="phantom://2d?cases=8&size=32&seed=5") == 0
    return out


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def cells(out: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted((out / "cells").iterdir())}


def test_every_cell_is_a_bundle_run(finished: Path) -> None:
    found = cells(finished)
    assert list(found) == [f"{arm}_n8_s{seed}_unet_small" for arm in ("augment", "genseg", "plain") for seed in (0, 1)]
    for name, folder in found.items():
        record = json.loads((folder / "run.json").read_text())
        config = yaml.safe_load((folder / "configs" / "train.yaml").read_text())
        assert record["finished"]
        assert record["iterations"]["search"] + record["iterations"]["final_fit"] == 4
        assert config["batch_size"] * (1 if config["synthetic"] is False else 2) == 4
        assert (folder / "models" / "model.pt").is_file()
        assert (folder / "models" / "generator").exists() == name.startswith("genseg")
        assert not (folder / "checkpoints").exists()
        assert (folder / "logs" / "history.csv").is_file()
        assert str(finished) not in (folder / "configs" / "train.yaml").read_text()
    assert len(list((found["genseg_n8_s0_unet_small"] / "pictures").glob("panel_*.png"))) >= 2


def test_arms_begin_with_the_same_weights_and_cases(finished: Path) -> None:
    splits = {json.dumps(json.loads((path / "splits.json").read_text())) for path in cells(finished).values()}
    assert len(splits) == 1  # all 8 cases, whatever the seed
    plan = {
        (path / "configs" / "inference.yaml").read_text() for path in cells(finished).values() if "_s0_" in path.name
    }
    assert len(plan) == 1


def test_results(finished: Path) -> None:
    rows = table(finished / "scores.csv")
    tests = {(row["data"], row["case"]) for row in rows}
    assert len(rows) == 6 * len(tests)
    assert {row["data"] for row in rows} == {"phantom_2d", "phantom_2d_2"}  # in domain and --test
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in ("dice", "jaccard", "surface_dice"))
    summary = json.loads((finished / "summary.json").read_text())
    assert [(one["arm"], one["seeds"]) for one in summary["results"]] == [
        ("plain", [0, 1]), ("augment", [0, 1]), ("genseg", [0, 1]),
    ] * 2  # fmt: skip
    for one in summary["results"]:
        mine = [float(row["dice"]) for row in rows if (row["arm"], row["data"]) == (one["arm"], one["data"])]
        assert one["dice"]["mean"] == pytest.approx(sum(mine) / len(mine), abs=1e-5)
    assert [cell["state"] for cell in summary["cells"]] == ["done"] * 6
    flat = table(finished / "summary.csv")
    assert [float(row["dice"]) for row in flat] == pytest.approx(
        [one["dice"]["mean"] for one in summary["results"]], abs=1e-5
    )


def test_the_other_arms_run_too(tmp_path: Path) -> None:
    arms = "separate,no_search,wgan,scenes,nnunet_style,incontext,combine"
    assert study(tmp_path, arms=arms, ensemble="1") == 0
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert {one["arm"] for one in results} == set(arms.split(","))
    held = json.loads((tmp_path / "cells" / "incontext_n8_s0_universeg" / "cell.json").read_text())
    assert held["in_context"]["ensemble"] == 1
    assert len(held["supports"]) == 8


def test_nothing_runs_twice(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "run_cell", None)  # would fail
    before = (finished / "ledger.jsonl").read_bytes()
    assert study(finished, arms="genseg", test="phantom://2d?cases=8&size=32&seed=5", updates=None) == 0
    assert work_on(str(finished), "cpu") == 0  # what each further GPU gets
    assert (finished / "ledger.jsonl").read_bytes() == before
    assert re.search(r"phantom_2d +8 +unet_small +genseg", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates": "8"}, r"wanted the study that is there, of 4 updates a cell .*got another length"),
        ({"test": None}, r"wanted the study that is there, with test \('phantom://2d.*give another --out"),
        ({"batch_size": "4"}, r"with overrides .*'batch_size': '2'"),
    ],
)
def test_another_study_in_the_same_folder(
    finished: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(finished, **{"test": "phantom://2d?cases=8&size=32&seed=5", **changes}) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_cell_stopped_in_its_middle_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert study(tmp_path / "whole", save_interval="1") == 0
    save, written = Checkpointer.save, list[int]()

    def save_and_stop(self: Checkpointer, engine: Any) -> None:
        save(self, engine)
        written.append(engine.state.iteration)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpointer, "save", save_and_stop)
    assert study(tmp_path / "stopped", save_interval="1") == 130
    name = "plain_n8_s0_unet_small"
    ledger = Ledger(tmp_path / "stopped")
    assert ledger.latest()[name]["state"] == State.STOPPED
    assert checkpoints(tmp_path / "stopped" / "cells" / name / "checkpoints")
    monkeypatch.setattr(Checkpointer, "save", save)
    assert study(tmp_path / "stopped", save_interval="1") == 0
    assert "resumed from" in (tmp_path / "stopped" / "cells" / name / "logs" / "train.log").read_text()
    weights = [
        torch.load(tmp_path / out / "cells" / name / "models" / "model.pt", weights_only=True)
        for out in ("whole", "stopped")
    ]
    assert not differing(dict(weights[0]), dict(weights[1]))


def test_a_cell_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = run_cell._train

    def fail(folder: Path, settings: StudySettings, cell: Cell, device: str | None) -> None:
        if cell.seed == 0:
            raise UserError("model", "wanted memory, got none")
        real(folder, settings, cell, device)

    monkeypatch.setattr(run_cell, "_train", fail)
    assert study(tmp_path, seeds="0,1") == 1
    captured = capsys.readouterr()
    assert "1 of 2 cells failed, plain_n8_s0_unet_small because: model: wanted memory, got none" in captured.err
    assert "plain" in captured.out
    latest = Ledger(tmp_path).latest()
    assert [latest[f"plain_n8_s{seed}_unet_small"]["state"] for seed in (0, 1)] == ["failed", "done"]
    assert "wanted memory" in (tmp_path / "cells" / "plain_n8_s0_unet_small" / "logs" / "cell.log").read_text()
    monkeypatch.setattr(run_cell, "_train", real)
    assert study(tmp_path, seeds="0,1") == 0


def test_budget_becomes_updates_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {"plain unet_small": 0.1, "genseg unet_small": 0.5, "start": 2.0}
    monkeypatch.setattr("genseg_monai.apps.studies.length.measure_costs", lambda settings, device: costs)
    monkeypatch.setattr(worker, "run_cell", lambda *_: {"dice": {"val": 0.5}, "factor": 1, "learning_rate": 1})
    given = {"arms": "plain,genseg", "seeds": "0,1", "budget": "10m", "updates": None}
    assert study(tmp_path, **given) == 0
    held = read_study(tmp_path)
    assert held is not None
    # 0.9 * 600 s less 4 starts of 2 s, by 2 * (0.1 + 0.5) s an update, whole epochs of 20
    assert held[0].updates == 440
    assert held[1]["budget"] == "10m"
    monkeypatch.setattr("genseg_monai.apps.studies.length.measure_costs", None)
    assert study(tmp_path, **given | {"seeds": "0,1,2"}) == 0
    again = read_study(tmp_path)
    assert again is not None
    assert (again[0].updates, again[0].seeds) == (440, (0, 1, 2))


def test_rehearsal_measures_every_arm(tmp_path: Path) -> None:
    settings = StudySettings(
        DATA, (Arm.PLAIN, Arm.AUGMENT, Arm.GENSEG, Arm.WGAN), (0,), (8,), ("unet_small",), rates=(1.0,),
        overrides={name: TINY[name] for name in ("batch_size", "generator_width", "discriminator_width")},
    )  # fmt: skip
    costs = budget.measure_costs(settings, "cpu")
    assert set(costs) == {"start", *(f"{arm} unet_small" for arm in ("plain", "augment", "genseg", "wgan"))}
    assert all(seconds > 0 for seconds in costs.values())
    assert costs["plain unet_small"] == costs["augment unet_small"] < costs["genseg unet_small"]
    with pytest.raises(UserError, match=r"--budget: wanted time for 4 runs, at least .* minutes, got 0\.0"):
        budget.updates_within(settings, costs, 0.1)


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "--data", DATA, "--out", str(tmp_path / "no"), "--arms", "plain,genseg", "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert "plain_n8_s0_unet_small_x0.3  rate  660 updates  to do" in captured.out
    assert "12 of 12 cells to do, time left unknown" in captured.out
    assert [path.name for path in (tmp_path / "no").rglob("*") if path.suffix != ".lock" and path.is_file()] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": "plain,best"}, "--arms: wanted any of plain, augment, .*, got 'plain,best'"),
        ({"seeds": "a"}, "--seeds: wanted whole numbers with commas between, got 'a'"),
        ({"sizes": "9"}, "--sizes: wanted at most the 8 training cases there are, got 9"),
        ({"rates": "0"}, "--rates: wanted factors above 0"),
        ({"segmenters": "unet,vnet"}, "--segmenters: wanted any of unet, unet_small, .*, got 'unet,vnet'"),
        ({"budget": "5m"}, "--updates: wanted either --budget or --updates, got both"),
        ({"jobs": "0"}, "--jobs: wanted 1 or more, got 0"),
        ({"ensemble": "0"}, "--ensemble: wanted 1 or more, got 0"),
        ({"budget": "soon", "updates": None}, "--budget: wanted a time such as"),
        ({"preset": "none"}, "--preset: wanted one of .*, got 'none'"),
        ({"batchsize": "2"}, "did you mean --batch_size"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_use(tmp_path: Path, changes: dict, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(tmp_path, **changes) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_label_of_the_test_cases_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = pictures(tmp_path / "other", 3)
    picture(other / "masks" / "c1.png", np.full((20, 24), 7, np.uint8))
    assert study(tmp_path / "out", test=str(other)) == 2
    assert re.search(r"c1.png: wanted the label values 0, 255, got also 7", capsys.readouterr().err)
    assert not (tmp_path / "out" / "cells").exists()


def test_one_process_a_device(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    class Process:
        def __init__(self, words: list[str], **_: Any) -> None:
            started.append(words[1:])

        def wait(self) -> int:
            return 0

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(study_app, "_devices", lambda *_: ["cpu", "cuda:0", "cuda:1"])
    monkeypatch.setattr(study_app, "share_threads", lambda _: None)
    monkeypatch.setattr(executors.subprocess, "Popen", Process)
    assert study(finished, test="phantom://2d?cases=8&size=32&seed=5") == 0
    assert started == [["-m", "genseg_monai.apps.studies", str(finished), f"cuda:{i}"] for i in range(2)]
