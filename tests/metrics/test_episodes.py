"""Dice an item, against scikit-learn; the two floors on supports whose answer is plain."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score

from genseg_monai.metrics.episodes import mean_mask, most_similar_mask, soft_dice


def test_dice_is_the_f1_score():
    generator = torch.Generator().manual_seed(0)
    predicted, labels = (torch.rand(5, 1, 6, 7, generator=generator) > 0.6 for _ in range(2))
    found = soft_dice(predicted.float(), labels.float())
    wanted = [f1_score(t.flatten(), p.flatten()) for p, t in zip(predicted, labels, strict=True)]
    torch.testing.assert_close(found.double(), torch.tensor(wanted, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("predicted", "dice"), [(0.0, 1.0), (1.0, 0.0)])
def test_dice_of_an_empty_label(predicted, dice):
    assert soft_dice(torch.full((1, 1, 4, 4), predicted), torch.zeros(1, 1, 4, 4)).item() == dice


def test_the_mean_mask_is_the_vote():
    labels = torch.tensor([[[1.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]])
    assert mean_mask(labels.reshape(1, 4, 1, 1, 3)).flatten().tolist() == [1.0, 1.0, 0.0]


def test_the_most_similar_image_lends_its_mask():
    images = torch.rand(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (images > 0.5).float()
    query = torch.stack([images[0, 3], images[1, 1]]) + 0.01
    found = most_similar_mask(query, images, labels)
    assert torch.equal(found[0], labels[0, 3])
    assert torch.equal(found[1], labels[1, 1])
