"""`genseg report` on a training of the phantom and on a study, in a browser too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from genseg_monai.__main__ import main
from tests.apps.reporting.browser import Tags, looked_at, outside_links
from tests.bundle.tiny import SHIPPED
from tests.bundle.training import run

DATA = "phantom://2d?cases=12&size=32"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "feet & co"
    run(SHIPPED, output_dir=str(out), dataset_dir=DATA)
    assert main(["report", str(out)]) == 0
    return out


def test_it_says_what_was_found_and_written(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(trained), "--pictures", "false"]) == 0
    verdict, written = capsys.readouterr().out.splitlines()
    assert verdict.startswith(("Yes", "No"))
    assert "against augmentation on 2 held-out cases" in verdict
    assert written == f"written to {trained / 'report.html'} (holds images of your cases) and report.md"
    text = (trained / "report.md").read_text()
    assert "need the data set: left out, as was asked" in text
    assert main(["report", str(trained)]) == 0


def test_the_page_is_whole_and_alone(trained: Path) -> None:
    text = (trained / "report.html").read_text()
    tags = Tags(text)
    assert outside_links(text) == []
    titles = ["Results", "Best, median and worst case", "Synthetic images", "Calibration", "Training curves",
              "The generator found", "Cost", "To repeat it"]  # fmt: skip
    for title in titles:
        assert title in tags.text
    assert "Images of cases inside." in tags.text
    images = [given for tag, given in tags.seen if tag == "img"]
    assert len(images) == 2 * 2 + 4 * 5  # two cases, the best and the worst; four rows of the panel
    assert "feet & co" in tags.text
    assert str(trained) not in text, "no folder of this machine"


def test_the_numbers_are_those_of_the_run(trained: Path) -> None:
    text = (trained / "report.md").read_text()
    summary = json.loads((trained / "scores" / "genseg_summary.json").read_text())["mean"]["dice"]
    assert f"{summary['mean']:.3f} [{summary['low']:.3f}, {summary['high']:.3f}]" in text
    fitted = json.loads((trained / "models" / "calibration" / "temperature.json").read_text())
    assert f"{fitted['after']['ece']:.4f} | {fitted['after']['brier']:.4f}" in text
    record = json.loads((trained / "run.json").read_text())
    assert f"| torch | {record['versions']['torch']} |" in text
    genotype = json.loads((trained / "models" / "search" / "genotype.json").read_text())
    drawn = Tags((trained / "report.html").read_text()).text
    assert drawn.count(genotype["encoder"][0].replace("_", " ")) > 0


def test_in_a_browser(trained: Path, tmp_path: Path) -> None:
    for width in (1280, 420):
        seen, console = looked_at(trained / "report.html", tmp_path, width)
        assert console == []
        assert seen["broken"] == 0
        assert seen["page"] <= max(width, 500)  # Chromium opens no window narrower than 500
        if width == 1280:
            assert seen["wide"] == []


def test_where_the_data_are_gone(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved, ignore=shutil.ignore_patterns("*.pt"))
    record = json.loads((moved / "run.json").read_text())
    (moved / "run.json").write_text(json.dumps(record | {"dataset_dir": str(tmp_path / "gone")}))
    assert main(["report", str(moved)]) == 0
    assert "not found where the training read it; give --data" in (moved / "report.md").read_text()
    assert main(["report", str(moved), "--data", str(tmp_path / "nowhere")]) == 2
    assert "--data: wanted the data set of the training" in capsys.readouterr().err


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "wanted the output folder of a training or a study, it has no run.json" in capsys.readouterr().err
    (tmp_path / "summary.json").write_text('{"results": []}')
    assert main(["report", str(tmp_path)]) == 2
    assert "wanted a study with a finished cell" in capsys.readouterr().err


def test_a_training_that_has_not_ended(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = (trained / "run.json").read_text()
    (tmp_path / "run.json").write_text(held.replace('"finished": true', '"finished": false'))
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("No answer yet: the training has not finished.")
