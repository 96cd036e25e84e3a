from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from genseg_monai.__main__ import main
from genseg_monai.data.cases import data_folder, find_cases
from genseg_monai.data.training_cases import training_cases
from genseg_monai.inferers.in_context import InContextSettings
from genseg_monai.inferers.in_context_segmenter import InContextSegmenter
from genseg_monai.inferers.ranking import disagreement
from genseg_monai.inferers.support_cases import support_plan
from genseg_monai.inferers.trained_segmenter import TrainedSegmenter
from genseg_monai.networks.universeg import UniverSeg
from tests.bundle.tiny import PLAN_2D, PLAN_3D, make_bundle
from tests.data.sets import picture, pictures


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(UniverSeg(features=(4, 4, 4, 4)).state_dict(), path)
    return path


def _rank(bundle: Path, weights: Path, support: Path | str, source: Path, out: Path, *more: str) -> int:
    words = ["rank", "--bundle", str(bundle), "--support", str(support), "--input", str(source), "--output", str(out)]
    words += ["--weights", str(weights), "--device", "cpu", "--support-size", "2", "--ensemble", "1", "--size", "48"]
    return main([*words, *more])


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_pictures(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, root = make_bundle(tmp_path / "b", PLAN_2D), data_folder("phantom://2d?cases=6&size=32")
    assert _rank(bundle, weights, root, root / "images", tmp_path / "next.csv") == 0
    rows = _read(tmp_path / "next.csv")
    assert list(rows[0]) == ["case", "disagreement", "uncertainty", "rank"]
    assert {row["case"] for row in rows} == {"case_004", "case_005"}, "the supports are left out"
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert float(rows[0]["disagreement"]) >= float(rows[1]["disagreement"])
    told = f"2 cases ranked in {tmp_path / 'next.csv'}; annotate {rows[0]['case']} first (disagreement"
    assert capsys.readouterr().out.startswith(told)


def test_the_numbers_are_those_of_the_two_masks(weights: Path, tmp_path: Path) -> None:
    bundle, root = make_bundle(tmp_path / "b", PLAN_3D), data_folder("phantom://3d?cases=4&size=32")
    cases = find_cases(root)
    assert _rank(bundle, weights, root, Path(cases[-1]["image"]), tmp_path / "r.csv") == 0
    [row] = _read(tmp_path / "r.csv")
    trained = TrainedSegmenter(bundle)
    plan = support_plan(training_cases(root), trained.plan.label_values, "CT")
    shown = InContextSegmenter(weights, root, InContextSettings(support_size=2, ensemble=1), plan=plan, size=48)
    one, other = shown.segment(cases[-1]), trained.segment(cases[-1])
    assert one.mask.shape == other.mask.shape
    expected = disagreement(one.mask.as_tensor(), other.mask.as_tensor(), 3)
    assert float(row["disagreement"]) == pytest.approx(expected, abs=2e-6)
    assert float(row["uncertainty"]) == pytest.approx((one.uncertainty + other.uncertainty) / 2, abs=2e-6)


def test_a_bundle_of_native_patches(weights: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", PLAN_2D | {"native": True})
    root = pictures(tmp_path / "d")
    picture(tmp_path / "in" / "a.png", np.random.default_rng(0).integers(0, 256, (50, 41), dtype=np.uint8))
    assert _rank(bundle, weights, root, tmp_path / "in", tmp_path / "next.csv") == 0
    found = TrainedSegmenter(bundle).segment(tmp_path / "in" / "a.png")
    assert found.mask.shape == (1, 50, 41)
    assert found.probabilities.unique().tolist() == [0, 1]
    assert found.uncertainty == 0


def test_failures_and_refusals(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, root = make_bundle(tmp_path / "b", PLAN_2D), pictures(tmp_path / "d")
    picture(tmp_path / "in" / "a.png", np.zeros((9, 9), np.uint8))
    (tmp_path / "in" / "b.png").write_bytes(b"nothing")
    out = tmp_path / "next.csv"
    assert _rank(bundle, weights, root, tmp_path / "in", out) == 1
    assert "genseg: rank: 1 of 2 inputs failed, each told above" in capsys.readouterr().err
    assert [row["case"] for row in _read(out)] == ["a"]
    assert _rank(bundle, weights, root, tmp_path / "in", out) == 2
    assert "wanted to write the ranking, a file is there" in capsys.readouterr().err
    other = make_bundle(tmp_path / "c", PLAN_2D | {"label_values": {0: 0, 1: 1}})
    for given, source, told in [
        (bundle, tmp_path / "none", "none: wanted images, there is no such file or folder"),
        (bundle, root / "images", "wanted unlabelled images, got supports alone"),
        (tmp_path, root, "model.pt: wanted the weights of a trained segmenter"),
        (other, tmp_path / "in", "label_values: wanted a class for every value, got none for 255"),
    ]:
        assert _rank(given, weights, root, source, tmp_path / "x.csv") == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()
