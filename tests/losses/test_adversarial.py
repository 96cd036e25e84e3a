"""Adversarial losses against MONAI's and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import PatchAdversarialLoss
from sklearn.metrics import log_loss, mean_absolute_error

from genseg_monai.losses import AdversarialLoss, charbonnier


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 1, 4, 4, dtype=torch.float64), torch.randn(2, 1, 4, 4, dtype=torch.float64)


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 8, 8, dtype=torch.float64)


def test_perfect_synthetic_images_cost_nothing() -> None:
    real, certain = torch.rand(1, 3, 8, 8), torch.ones(1, 1, 2, 2)
    loss = AdversarialLoss()
    assert float(loss.generator(certain, real, real)) == 0
    assert float(loss.discriminator(certain, 0 * certain)) == 0
    loss = AdversarialLoss(kind="bce")
    assert float(loss.discriminator(100 * certain, -100 * certain)) == pytest.approx(0, abs=1e-12)


def test_least_squares_against_monai(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    real, fake = logits
    monai = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    ours = AdversarialLoss(lambda_rec=0)
    wanted = (monai(real, True, for_discriminator=True) + monai(fake, False, for_discriminator=True)) / 2
    torch.testing.assert_close(ours.discriminator(real, fake), wanted.to(torch.float64))
    image = torch.zeros(1, 1, 2, 2)
    wanted = monai(fake, True, for_discriminator=False)
    torch.testing.assert_close(ours.generator(fake, image, image), wanted.to(torch.float64))


def test_bce_against_scikit_learn(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    real, fake = logits
    sure = torch.sigmoid(torch.cat([real.flatten(), fake.flatten()])).numpy()
    truth = np.repeat([1, 0], real.numel())
    assert float(AdversarialLoss(kind="bce").discriminator(real, fake)) == pytest.approx(log_loss(truth, sure))


def test_reconstruction_is_weighted(images: tuple[torch.Tensor, torch.Tensor]) -> None:
    fake, real = images
    certain = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    distance = mean_absolute_error(real.flatten(), fake.flatten())
    assert float(AdversarialLoss(7, reconstruction="l1").generator(certain, fake, real)) == pytest.approx(7 * distance)
    assert float(AdversarialLoss(7).generator(certain, fake, real)) == pytest.approx(7 * distance, rel=1e-2)


def test_charbonnier_by_hand() -> None:
    difference = torch.tensor([0.0, 3e-3, -4e-3], dtype=torch.float64)
    expected = np.mean(np.sqrt(np.array([0.0, 9e-6, 16e-6]) + 1e-6)) - 1e-3
    assert float(charbonnier(difference, torch.zeros(3, dtype=torch.float64))) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["least_squares", "bce"])
def test_smooth_twice_over(kind: str) -> None:
    loss = AdversarialLoss(kind=kind)
    fake = torch.rand(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    logit = torch.randn(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    real = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda a, b: loss.generator(a, b, real), (logit, fake))
    assert torch.autograd.gradgradcheck(loss.discriminator, (logit, fake))


def test_curvature_is_finite_where_images_agree() -> None:
    fake = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    loss = charbonnier(fake, torch.full((1, 1, 2, 2), 0.5))
    (slope,) = torch.autograd.grad(loss, fake, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), fake)
    torch.testing.assert_close(curvature, torch.full_like(fake, 1 / (4 * 1e-3)))


def test_errors() -> None:
    with pytest.raises(ValueError, match="lambda_rec: wanted a weight of 0 or more, got -1"):
        AdversarialLoss(lambda_rec=-1)
    with pytest.raises(ValueError, match="kind: wanted one of least_squares, bce, got 'hinge'"):
        AdversarialLoss(kind="hinge")
    with pytest.raises(ValueError, match="reconstruction: wanted one of charbonnier, l1, got 'l2'"):
        AdversarialLoss(reconstruction="l2")
    with pytest.raises(ValueError, match="wanted images of one shape"):
        AdversarialLoss().generator(torch.ones(1), torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 5))
