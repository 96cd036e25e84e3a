from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genseg_monai.__main__ import main
from genseg_monai.data.cases import data_folder
from tests.bundle.tiny import PLAN_2D, PLAN_3D, make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "grey")


def _evaluate(bundle: Path, data: object, out: Path, *more: str) -> int:
    return main(
        ["evaluate", "--bundle", str(bundle), "--data", str(data), "--output", str(out), "--device", "cpu", *more]
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_scores_are_those_of_the_predicted_masks(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_folder("phantom://2d?cases=12&size=48")
    assert _evaluate(bundle, data, tmp_path / "scores") == 0
    said = capsys.readouterr()
    assert said.out.startswith("2 cases of 2 groups: mean [95 % interval]\nclass")
    assert str(tmp_path / "scores" / "held_out.csv") in said.out
    rows = _rows(tmp_path / "scores" / "held_out.csv")
    assert [row["case"] for row in rows] == json.loads((data / "splits.json").read_text())["test"]
    assert {row["unit"] for row in rows} == {"pixel"}
    predicted = ["predict", "--bundle", str(bundle), "--input", str(data), "--output", str(tmp_path / "masks")]
    assert main([*predicted, "--device", "cpu"]) == 0
    for row in rows:
        ours = np.asarray(Image.open(tmp_path / "masks" / f"{row['case']}.png")) > 0
        truth = np.asarray(Image.open(data / "masks" / f"{row['case']}.png")) > 0
        dice = 2 * (ours & truth).sum() / (ours.sum() + truth.sum())
        assert float(row["dice"]) == pytest.approx(dice, abs=1e-5)
    summary = json.loads((tmp_path / "scores" / "held_out_summary.json").read_text())
    mean = np.mean([float(row["dice"]) for row in rows])
    assert summary["mean"]["dice"]["mean"] == pytest.approx(mean, abs=1e-5)


def test_volumes_are_scored_in_millimetres(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", PLAN_3D)
    assert _evaluate(bundle, "phantom://3d?cases=6&size=32", tmp_path / "scores", "--split", "val") == 0
    rows = _rows(tmp_path / "scores" / "val.csv")
    assert [(row["class_name"], row["unit"]) for row in rows] == [("organ", "mm"), ("lesion", "mm")]


def test_a_mask_of_another_size(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, size in (("images", (20, 30)), ("masks", (30, 20))):
        (tmp_path / kind).mkdir()
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / kind / "a.png")
    (tmp_path / "splits.json").write_text('{"train": [], "val": [], "test": ["a"]}')
    assert _evaluate(bundle, tmp_path, tmp_path / "scores") == 2
    told = f"genseg: {tmp_path / 'masks' / 'a.png'}: wanted a mask of the image's size 20 x 30, got 30 x 20"
    assert capsys.readouterr().err.splitlines()[-1].startswith(told)
    assert not (tmp_path / "scores").exists()


def test_an_unreadable_case_is_told_and_the_rest_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "b", PLAN_2D)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for name in "ab":
            Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / kind / f"{name}.png")
    Image.fromarray(np.full((20, 30), 7, np.uint8)).save(tmp_path / "masks" / "b.png")
    (tmp_path / "splits.json").write_text('{"train": [], "val": [], "test": ["a", "b"]}')
    assert _evaluate(bundle, tmp_path, tmp_path / "scores") == 1
    said = capsys.readouterr().err
    assert "b.png: wanted the label values 0, 255, got also 7" in said
    assert said.endswith("genseg: evaluate: 1 of 2 inputs failed, each told above\n")
    assert [row["case"] for row in _rows(tmp_path / "scores" / "held_out.csv")] == ["a"]


@pytest.mark.parametrize(("split", "count"), [("test", 2), ("val", 2), ("train", 8)])
def test_a_split_can_be_chosen(bundle: Path, tmp_path: Path, split: str, count: int) -> None:
    assert _evaluate(bundle, "phantom://2d?cases=12&size=48", tmp_path, "--split", split) == 0
    assert len(_rows(tmp_path / f"{split}.csv")) == count
