"""The segmenter's loss against numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import log_loss

from genseg_monai.losses import SegmentationLoss

SIZES = {2: (6, 5), 3: (4, 5, 3)}


def case(spatial: int, classes: int = 3, soft: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(2, classes, *SIZES[spatial], dtype=torch.float64)
    if soft:
        return logits, torch.softmax(torch.randn_like(logits), dim=1)
    labels = torch.randint(classes, (2, *SIZES[spatial]))
    return logits, torch.movedim(torch.nn.functional.one_hot(labels, classes), -1, 1).to(torch.float64)


@pytest.mark.parametrize("spatial", [2, 3])
class TestBoth:
    def test_perfect_prediction_costs_nothing(self, spatial: int) -> None:
        _, masks = case(spatial)
        assert float(SegmentationLoss()(1000 * masks, masks)) == pytest.approx(0, abs=1e-5)

    def test_worse_costs_more(self, spatial: int) -> None:
        _, masks = case(spatial)
        loss = SegmentationLoss()
        good, bad, worst = (float(loss(s * (masks - 0.5), masks)) for s in (3.0, 1.0, -3.0))
        assert good < bad < worst

    @pytest.mark.parametrize("soft", [False, True])
    def test_dice_by_numpy(self, spatial: int, soft: bool) -> None:
        logits, masks = case(spatial, soft=soft)
        guess, truth = softmax(logits.numpy(), axis=1), masks.numpy()
        axes = (0, *range(2, guess.ndim))  # over the batch: one Dice a class
        dice = (2 * (guess * truth).sum(axes) + 1e-5) / (guess.sum(axes) + truth.sum(axes) + 1e-5)
        ours = SegmentationLoss(lambda_ce=0)(logits, masks)
        assert float(ours) == pytest.approx(1 - dice[1:].mean(), rel=1e-6)  # class 0 left out

    def test_cross_entropy_by_scikit_learn(self, spatial: int) -> None:
        logits, masks = case(spatial)
        guess = np.moveaxis(softmax(logits.numpy(), axis=1), 1, -1).reshape(-1, 3)
        labels = masks.argmax(1).flatten().numpy()
        ours = SegmentationLoss(lambda_dice=0)(logits, masks)
        assert float(ours) == pytest.approx(log_loss(labels, guess, labels=[0, 1, 2]), rel=1e-6)

    def test_cross_entropy_of_soft_masks(self, spatial: int) -> None:
        logits, masks = case(spatial, soft=True)
        expected = -(masks * torch.log_softmax(logits, dim=1)).sum(1).mean()
        torch.testing.assert_close(SegmentationLoss(lambda_dice=0)(logits, masks), expected)

    def test_sum_of_both(self, spatial: int) -> None:
        logits, masks = case(spatial)
        parts = SegmentationLoss(lambda_ce=0)(logits, masks) + SegmentationLoss(lambda_dice=0)(logits, masks)
        torch.testing.assert_close(SegmentationLoss()(logits, masks), parts)

    def test_twice_differentiable_in_both(self, spatial: int) -> None:
        logits = torch.randn(1, 2, *(2, 2, 2)[:spatial], dtype=torch.float64, requires_grad=True)
        masks = torch.rand_like(logits, requires_grad=True)
        assert torch.autograd.gradcheck(SegmentationLoss(), (logits, masks))
        assert torch.autograd.gradgradcheck(SegmentationLoss(), (logits, masks))


def test_empty_masks_are_finite() -> None:
    masks = torch.zeros(2, 2, 4, 4)
    masks[:, 0] = 1
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    loss = SegmentationLoss()(logits, masks)
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(logits.grad.isfinite().all())


def test_errors() -> None:
    loss = SegmentationLoss()
    with pytest.raises(ValueError, match="wanted logits and masks of one shape"):
        loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="wanted two classes or more, background among them, got 1"):
        loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
