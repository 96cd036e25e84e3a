"""The report on a study, from the files that `genseg study` leaves."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from genseg_monai.__main__ import main
from genseg_monai.apps.studies.settings import StudySettings
from genseg_monai.apps.studies.summary import COLUMNS, Row, summarise_study
from tests.apps.reporting.browser import Tags, looked_at, outside_links

GAIN = {"plain": -0.05, "augment": 0.0, "genseg": 0.04, "incontext": -0.1}


def write_study(folder: Path, gain: dict[str, float], sizes: tuple[int, ...] = (10, 40), test: str = "") -> Path:
    """Write the results of a study whose arms differ by `gain` in every case, but for a little noise."""
    random = np.random.default_rng(0)
    rows = []
    names = ["feet", *([test] if test else [])]
    for name in names:
        base = random.uniform(0.5, 0.8, 12)
        for arm, more in gain.items():
            for size in sizes:
                for seed in (0, 1):
                    segmenter = "universeg" if arm == "incontext" else "unet"
                    for i, dice in enumerate(base + more + 0.05 * np.log2(size / 40) + random.normal(0, 0.005, 12)):
                        told = (
                            name,
                            arm,
                            segmenter,
                            size,
                            seed,
                            f"c{i}",
                            f"p{i}",
                            "foot",
                            float(dice),
                            float(dice) - 0.1,
                        )
                        rows.append(Row(*told, 5.0, 0.5, "pixel", "neither"))
    settings = asdict(StudySettings("data/feet", tuple(gain), (0, 1), sizes, ("unet",), updates=100, epoch=20))  # type: ignore[arg-type]
    cells = [
        {"id": f"{arm}_n{size}_s{seed}_unet", "arm": arm, "seed": seed, "size": size, "segmenter": "unet",
         "purpose": "score", "state": "done", "folder": f"cells/{arm}_n{size}_s{seed}_unet", "seconds": 60.0,
         "device": "cpu", "dice": {"feet": 0.7}, "late_gain": 0.01}
        for arm in gain for size in sizes for seed in (0, 1)
    ]  # fmt: skip
    for cell in cells:
        out = folder / cell["folder"]
        (out / "logs").mkdir(parents=True)
        (out / "logs" / "history.csv").write_text(
            "iteration,phase,loss,validation\n20,final_fit,1.0,0.4\n40,final_fit,0.5,0.6\n"
        )
        record = {
            "dataset_dir": "gone",
            "seed": cell["seed"],
            "peak_memory_gib": 1.5,
            "command": ["genseg"],
            "cases": {},
        }
        (out / "run.json").write_text(json.dumps(record))
    summary = {"settings": settings, "cells": cells, "rates": {}, **summarise_study(rows, "unet")}
    (folder / "summary.json").write_text(json.dumps(summary))
    command = ["x/genseg_monai/__main__.py", "study", "--data", "data/feet", "--out", "here"]
    (folder / "study.json").write_text(json.dumps(settings | {"command": command}))
    with (folder / "scores.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS)
        table.writeheader()
        table.writerows(asdict(row) for row in rows)
    return folder


def report(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Return the verdict and the Markdown."""
    assert main(["report", str(folder)]) == 0
    return capsys.readouterr().out.splitlines()[0], (folder / "report.md").read_text()


def test_the_verdict_is_that_of_the_largest_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict, text = report(write_study(tmp_path, GAIN), capsys)
    assert verdict.startswith("Yes, GenSeg helped on these data: +0.0")
    assert "on 12 held-out cases" in verdict
    assert verdict.endswith("2 seeds).")
    held = json.loads((tmp_path / "summary.json").read_text())["results"]
    [ours] = [one for one in held if (one["arm"], one["size"]) == ("genseg", 40)]
    d = ours["dice"]
    assert f"{d['mean']:.3f} [{d['low']:.3f}, {d['high']:.3f}]" in text
    assert "python -m genseg_monai study --data DATA --out OUT" in text
    assert "| UniverSeg, in context |" in text  # in the same table, though its segmenter is its own


def test_a_loss_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(write_study(tmp_path, {**GAIN, "genseg": -0.03}), capsys)[0].startswith("No, GenSeg did worse")


def test_the_cases_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = report(write_study(tmp_path, GAIN), capsys)
    assert "How many cases it takes" in text
    held = json.loads((tmp_path / "summary.json").read_text())["cases_needed"]
    [need] = [one for one in held if (one["arm"], one["reference"]) == ("genseg", "plain")]
    assert f"| feet, GenSeg | Plain with 40 ({need['target']:.3f}) |" in text
    assert f"{need['times_fewer']:.1f} times" in text


def test_other_data_have_their_own_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = report(write_study(tmp_path, GAIN, test="hands"), capsys)
    assert text.index("## Results\n") < text.index("## Results on hands")


def test_cells_that_wait_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, GAIN)
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["cells"][-1]["state"] = "started"
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert report(tmp_path, capsys)[0].endswith("; 1 of 16 cells are not done yet.")


def test_the_page_in_a_browser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(write_study(tmp_path / "study", GAIN), capsys)
    page = tmp_path / "study" / "report.html"
    assert outside_links(page.read_text()) == []
    assert {"Results", "How many cases it takes", "Training curves", "Cost", "To repeat it"} <= {
        line for line in Tags(page.read_text()).text.splitlines() if line
    }
    seen, console = looked_at(page, tmp_path)
    assert (seen["wide"], seen["broken"], console) == ([], 0, [])
    assert seen["page"] <= 1280
