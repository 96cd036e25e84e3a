"""Calibration, against scikit-learn and against probabilities whose calibration is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from genseg_monai.metrics.calibration import calibrate, fit_temperature, reliability, sample_voxels, temper


def drawn(classes: int, count: int = 20_000, sharpness: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels drawn from softmax(logits / sharpness): that is their right temperature."""
    random = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(count, classes, generator=random, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)
    return logits * sharpness, labels


@pytest.mark.parametrize("classes", [2, 4])
def test_the_scores_are_those_of_scikit_learn(classes: int) -> None:
    logits, labels = drawn(classes, 2000, sharpness=2.0)
    p = logits.softmax(1)
    found = calibrate(p, labels, bins=10)
    assert found.nll == pytest.approx(log_loss(labels.numpy(), p.numpy()))
    wanted = brier_score_loss(labels.numpy(), p.numpy(), labels=range(classes), scale_by_half=True)
    assert found.brier == pytest.approx(wanted)
    frequency, probability = calibration_curve(labels.numpy() > 0, 1 - p[:, 0].numpy(), n_bins=10)
    kept = [i for i, n in enumerate(found.foreground.count) if n]
    assert [found.foreground.probability[i] for i in kept] == pytest.approx(probability)
    assert [found.foreground.frequency[i] for i in kept] == pytest.approx(frequency)


def test_the_expected_error_by_hand() -> None:
    p = torch.tensor([0.95, 0.95, 0.95, 0.95, 0.65, 0.65])
    came = torch.tensor([True, True, True, False, True, False])
    assert reliability(p, came, bins=10).error == pytest.approx((4 * 0.2 + 2 * 0.15) / 6)


def test_an_empty_bin_is_none_and_one_belongs_to_the_last() -> None:
    found = reliability(torch.tensor([0.0, 1.0]), torch.tensor([False, True]), bins=3)
    assert found.count == (1, 0, 1)
    assert math.isnan(found.frequency[1])
    assert found.error == 0


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_that_drew_the_labels_is_found(classes: int, sharpness: float) -> None:
    logits, labels = drawn(classes, sharpness=sharpness)
    assert fit_temperature(logits, labels) == pytest.approx(sharpness, rel=0.05)


def test_the_temperature_is_the_best_of_a_grid() -> None:
    logits, labels = drawn(3, 3000, sharpness=2.5)
    best = calibrate((logits / fit_temperature(logits, labels)).softmax(1), labels).nll
    others = [calibrate((logits / t).softmax(1), labels).nll for t in np.geomspace(0.2, 10, 60)]
    assert best <= min(others) + 1e-9


def test_a_temperature_mends_the_calibration_and_keeps_the_classes() -> None:
    logits, labels = drawn(3, sharpness=3.0)
    fitted = (logits / fit_temperature(logits, labels)).softmax(1)
    before, after = calibrate(logits.softmax(1), labels), calibrate(fitted, labels)
    assert before.ece > 0.1 > 0.02 > after.ece
    assert after.brier < before.brier
    assert torch.equal(fitted.argmax(1), logits.argmax(1))


def test_a_model_without_mistakes_keeps_a_temperature() -> None:
    labels = torch.tensor([0, 1] * 10)
    logits = 20 * torch.nn.functional.one_hot(labels, 2).double()
    assert 0.05 <= fit_temperature(logits, labels) <= 1.0
    assert fit_temperature(-logits, labels) == pytest.approx(20.0)  # always wrong


def test_tempered_probabilities_are_the_softmax_of_divided_logits() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(temper(logits.softmax(1), 2.5), (logits / 2.5).softmax(1))
    p = logits.softmax(1)
    assert temper(p, 1.0) is p
    assert bool(temper(torch.tensor([[1.0, 0.0]]), 3.0).isfinite().all())


def test_voxels_are_drawn_from_every_image_without_repetition() -> None:
    labels = torch.arange(2 * 4 * 4 * 2).reshape(2, 1, 4, 4, 2)
    logits = torch.cat([labels, -labels], dim=1).float()
    found, truth = sample_voxels(logits, labels, 10, torch.Generator().manual_seed(0))
    assert found.shape == (20, 2)
    assert len(set(truth.tolist())) == 20
    assert sum(value < 32 for value in truth.tolist()) == 10
    assert torch.equal(found[:, 0], truth.float())  # voxel and label stay together
    assert len(sample_voxels(logits, labels, 1000)[1]) == 64


def test_it_goes_to_json() -> None:
    told = calibrate(torch.tensor([[0.9, 0.1]]), torch.tensor([0]), bins=4).as_dict()
    assert json.loads(json.dumps(told, allow_nan=False))["foreground"]["frequency"] == [0.0, None, None, None]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="probabilities N K and N labels"):
        calibrate(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="probabilities N K and N labels"):
        calibrate(torch.zeros(0, 2), torch.zeros(0))
    with pytest.raises(ValueError, match="logits N K and N labels"):
        fit_temperature(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
        reliability(torch.tensor([1.5]), torch.tensor([True]))
    with pytest.raises(ValueError, match="N probabilities and N events"):
        reliability(torch.zeros(2), torch.zeros(3))
