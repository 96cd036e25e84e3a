"""Scores of cases against scikit-learn and scipy."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn.metrics import f1_score, jaccard_score

from genseg_monai.metrics import CaseScore, Empty, score_case, summarise, write_scores
from genseg_monai.metrics.cases import SURFACE_TOLERANCE

CLASSES = ("background", "organ", "lesion")
SIZES = {2: (20, 31), 3: (12, 9, 14)}
SPACINGS = {2: (0.5, 2.0), 3: (0.7, 1.3, 5.0)}


def blobs(spatial: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=SIZES[spatial])
    smooth = ndimage.gaussian_filter(noise, 2)
    return np.digitize(smooth, np.quantile(smooth, [0.6, 0.85]))[None].astype(np.uint8)


def surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def hd95(ours: np.ndarray, theirs: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Return the larger of the two directed 95th percentiles, by distance transforms."""
    directed = []
    for one, other in ((ours, theirs), (theirs, ours)):
        far = ndimage.distance_transform_edt(~surface(other), sampling=spacing)
        directed.append(np.percentile(far[surface(one)], 95))
    return max(directed)


def surface_dice(ours: np.ndarray, theirs: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> float:
    """Return the share of both surfaces within the tolerance of the other one, by distance transforms."""
    near = total = 0
    for one, other in ((ours, theirs), (theirs, ours)):
        far = ndimage.distance_transform_edt(~surface(other), sampling=spacing)[surface(one)]
        near, total = near + int((far <= tolerance).sum()), total + len(far)
    return near / total


@pytest.mark.parametrize("spatial", [2, 3])
class TestBoth:
    def test_equal_masks(self, spatial: int) -> None:
        truth = blobs(spatial, 0)
        for row in score_case(truth, truth, CLASSES, SPACINGS[spatial]):
            assert (row.dice, row.jaccard, row.hd95, row.empty, row.unit) == (1, 1, 0, Empty.NEITHER, "mm")
            assert row.surface_dice == 1

    @pytest.mark.parametrize("seed", range(3))
    def test_against_scikit_learn_and_scipy(self, spatial: int, seed: int) -> None:
        ours, theirs = blobs(spatial, seed), blobs(spatial, seed + 100)
        rows = score_case(torch.from_numpy(ours), theirs, CLASSES, SPACINGS[spatial], case="a", group="p")
        assert [row.class_name for row in rows] == ["organ", "lesion"]
        for index, row in enumerate(rows, start=1):
            a, b = ours[0] == index, theirs[0] == index
            assert row.dice == pytest.approx(f1_score(b.ravel(), a.ravel()), abs=1e-6)
            assert row.jaccard == pytest.approx(jaccard_score(b.ravel(), a.ravel()), abs=1e-6)
            assert row.hd95 == pytest.approx(hd95(a, b, SPACINGS[spatial]), rel=1e-5)
            assert row.surface_dice == pytest.approx(surface_dice(a, b, SPACINGS[spatial], SURFACE_TOLERANCE))
            assert (row.case, row.group) == ("a", "p")

    def test_pixels_without_spacing(self, spatial: int) -> None:
        ours, theirs = blobs(spatial, 0), blobs(spatial, 1)
        for index, row in enumerate(score_case(ours, theirs, CLASSES), start=1):
            assert row.unit == "pixel"
            expected = hd95(ours[0] == index, theirs[0] == index, (1.0,) * spatial)
            assert row.hd95 == pytest.approx(expected, rel=1e-5)

    def test_empty_masks(self, spatial: int) -> None:
        full, none = blobs(spatial, 0), np.zeros_like(blobs(spatial, 0))
        spacing = SPACINGS[spatial]
        diagonal = math.hypot(*(n * s for n, s in zip(SIZES[spatial], spacing, strict=True)))
        both = score_case(none, none, CLASSES, spacing)
        assert [(r.dice, r.jaccard, r.hd95, r.surface_dice, r.empty) for r in both] == [(1, 1, 0, 1, Empty.BOTH)] * 2
        missed = score_case(none, full, CLASSES, spacing)
        assert [(r.dice, r.jaccard, r.hd95, r.empty) for r in missed] == [(0, 0, diagonal, Empty.PREDICTION)] * 2
        invented = score_case(full, none, CLASSES, spacing)
        assert [(r.dice, r.jaccard, r.hd95, r.empty) for r in invented] == [(0, 0, diagonal, Empty.TRUTH)] * 2


def test_a_shifted_box_by_hand() -> None:
    truth = np.zeros((1, 40, 40), dtype=np.uint8)
    truth[:, 10:20, 10:20] = 1
    [row] = score_case(np.roll(truth, 3, axis=2), truth, ("background", "box"), (1.0, 2.0))
    assert row.dice == pytest.approx(0.7)
    assert row.jaccard == pytest.approx(70 / 130)
    assert row.hd95 == pytest.approx(6.0)  # three columns of 2 mm


def test_errors() -> None:
    mask = np.zeros((1, 4, 4))
    with pytest.raises(ValueError, match=r"wanted two masks 1 H W \[D\] of one shape"):
        score_case(mask, mask[:, :3], CLASSES)
    with pytest.raises(ValueError, match=r"wanted two masks 1 H W \[D\]"):
        score_case(mask[0], mask[0], CLASSES)
    with pytest.raises(ValueError, match="spacing: wanted 2 numbers, got"):
        score_case(mask, mask, CLASSES, (1, 1, 1))
    with pytest.raises(ValueError, match=r"prediction: wanted class indices 0 to 2, got also \[3.0\]"):
        score_case(mask + 3, mask, CLASSES)
    with pytest.raises(ValueError, match=r"truth: wanted class indices 0 to 2, got also \[0.5\]"):
        score_case(mask, mask + 0.5, CLASSES)
    with pytest.raises(ValueError, match="wanted the scores of one case or more, got none"):
        summarise([])
    rows = [CaseScore("a", "a", "x", 1, 1, 0, "mm"), CaseScore("b", "b", "x", 1, 1, 0, "pixel")]
    with pytest.raises(ValueError, match="wanted distances in one unit, got mm and pixel"):
        summarise(rows)


def rows_of(dice: np.ndarray, groups: list[str] | None = None) -> list[CaseScore]:
    names = [f"case_{n}" for n in range(len(dice))]
    return [
        CaseScore(name, group, class_name, value / scale, value / scale, 1 - value)
        for name, group, value in zip(names, groups or names, dice.tolist(), strict=True)
        for class_name, scale in (("organ", 1), ("lesion", 2))
    ]


def test_summary_against_scipy() -> None:
    dice = np.random.default_rng(0).beta(8, 2, size=40)
    found = summarise(rows_of(dice))
    assert (found["cases"], found["groups"], found["unit"]) == (40, 40, "mm")
    reference = stats.bootstrap((dice,), np.mean, method="percentile").confidence_interval
    organ = found["classes"]["organ"]["dice"]
    assert organ["mean"] == pytest.approx(dice.mean())
    assert organ["low"] == pytest.approx(reference.low, abs=0.005)
    assert organ["high"] == pytest.approx(reference.high, abs=0.005)
    assert found["mean"]["dice"]["mean"] == pytest.approx(0.75 * dice.mean())
    assert json.loads(json.dumps(found)) == found


def test_summary_draws_patients() -> None:
    dice = np.repeat(np.random.default_rng(0).beta(8, 2, size=10), 8)
    alone = summarise(rows_of(dice))["mean"]["dice"]
    grouped = summarise(rows_of(dice, [f"patient_{n // 8}" for n in range(80)]))
    assert grouped["groups"] == 10
    assert grouped["mean"]["dice"]["mean"] == pytest.approx(alone["mean"])
    width = grouped["mean"]["dice"]["high"] - grouped["mean"]["dice"]["low"]
    assert width > 2 * (alone["high"] - alone["low"])  # eight equal images of a patient teach nothing new


def test_summary_is_seeded_and_counts_empties() -> None:
    rows = rows_of(np.linspace(0, 1, 5))
    rows.append(CaseScore("x", "x", "organ", 1, 1, 0, empty=Empty.BOTH))
    rows.append(CaseScore("y", "y", "organ", 0, 0, 9, empty=Empty.PREDICTION))
    first = summarise(rows, seed=3)
    assert first == summarise(rows, seed=3)
    assert first["classes"]["organ"]["empty"] == {"both": 1, "prediction": 1, "truth": 0}
    assert first["classes"]["lesion"]["empty"] == {"both": 0, "prediction": 0, "truth": 0}


def test_one_case_has_no_width() -> None:
    interval = summarise([CaseScore("a", "a", "x", 0.5, 0.4, 2.0)])["mean"]["dice"]
    assert interval == {"mean": 0.5, "low": 0.5, "high": 0.5}


def test_table(tmp_path: Path) -> None:
    path = tmp_path / "scores" / "test.csv"
    write_scores(path, [CaseScore("a,b", "p", "organ", 2 / 3, 0.5, 12.25, empty=Empty.NEITHER, surface_dice=0.9)])
    with open(path, newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert row == {
        "case": "a,b",
        "group": "p",
        "class_name": "organ",
        "dice": "0.666667",
        "jaccard": "0.500000",
        "hd95": "12.250000",
        "unit": "mm",
        "empty": "neither",
        "surface_dice": "0.900000",
    }
    assert [file.name for file in path.parent.iterdir()] == ["test.csv"]


def test_a_table_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_scores(path, [CaseScore("a", "a", "x", 1, 1, 0), None])  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["test.csv"]
