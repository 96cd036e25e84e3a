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


def test_seeds_that_disagree_are_no_yes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, GAIN)
    summary = json.loads((tmp_path / "summary.json").read_text())
    [ours] = [one for one in summary["results"] if (one["arm"], one["size"]) == ("genseg", 40)]
    ours["dice_by_seed"]["1"] = 0.1
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    verdict, text = report(tmp_path, capsys)
    assert "; the seeds disagree: +0.0" in verdict
    assert "| GenSeg | 0.7" in text
    assert "| 0.100 | 0 | 0 | 0 |" in text  # each seed by itself, and how many masks were empty


def test_what_the_verdict_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other arms with synthetic pairs, and the data sets out of domain."""
    gain = {**GAIN, "genseg": -0.03, "separate": 0.03, "no_search": 0.01}
    verdict, text = report(write_study(tmp_path, gain, test="hands"), capsys)
    assert verdict.startswith("No, GenSeg did worse")
    results = text[text.index("## Results\n") : text.index("## Results on hands")]
    assert "The best of the other arms with synthetic pairs: Yes, the arm ‘Separate generator’ helped" in results
    assert "On hands: No, GenSeg did worse" in results
    assert "- Training cases: 40 (2 seeds, 12 test cases)\n" in text


def test_a_study_without_genseg_judges_what_there_is_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict, _ = report(write_study(tmp_path, {"augment": 0.0, "scenes": 0.04}), capsys)
    assert verdict.startswith("Yes, the arm ‘GenSeg, scenes’ helped on these data")


def test_the_cases_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = report(write_study(tmp_path, GAIN), capsys)
    assert "How many cases it takes" in text
    held = json.loads((tmp_path / "summary.json").read_text())["cases_needed"]
    [need] = [one for one in held if (one["arm"], one["reference"]) == ("genseg", "plain")]
    assert f"| feet, GenSeg | Plain with 40 ({need['target']:.3f}) |" in text
    assert f"{need['times_fewer']:.1f} times" in text


def test_the_cases_saved_are_those_of_the_data_set_of_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path, GAIN, test="aaa")
    summary = json.loads((tmp_path / "summary.json").read_text())
    for need in summary["cases_needed"]:
        need["times_fewer"] = 8.0 if need["data"] == "aaa" else 3.4
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert "- Fewer cases than plain: 3.4 times" in report(tmp_path, capsys)[1].replace("at least ", "")


def test_other_data_have_their_own_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = report(write_study(tmp_path, GAIN, test="hands"), capsys)
    assert text.index("## Results\n") < text.index("## Results on hands")


def test_arms_that_have_not_settled_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, GAIN)
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["cells"][-1]["late_gain"] = -0.146  # of UniverSeg here, which has nothing to settle
    summary["cells"][0]["late_gain"] = 0.3  # plain, 10 cases: not in the comparison
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    _, text = report(tmp_path, capsys)
    assert "of the quarter before: not settled: UniverSeg, in context +0.010, -0.146." in text


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
