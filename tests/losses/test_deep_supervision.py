"""The loss of a deeply supervised network: weights, a single output, errors."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot

from genseg_monai.losses import DeepSupervisionLoss, SegmentationLoss
from genseg_monai.networks import make_segmenter


def masks(dims: int = 2) -> torch.Tensor:
    labels = torch.randint(2, (2, *[8] * dims), generator=torch.Generator().manual_seed(0))
    return one_hot(labels, 2).movedim(-1, 1).float()


@pytest.mark.parametrize("dims", [2, 3])
def test_each_output_counts_half_as_much_as_the_one_before(dims: int) -> None:
    wanted, logits = masks(dims), torch.randn(2, 3, 2, *[8] * dims)
    plain = SegmentationLoss()
    by_hand = sum(w * plain(logits[:, i], wanted) for i, w in enumerate((4 / 7, 2 / 7, 1 / 7)))
    assert DeepSupervisionLoss()(logits, wanted) == pytest.approx(float(by_hand), abs=1e-6)


def test_a_single_output_is_the_plain_loss() -> None:
    wanted, logits = masks(), torch.randn(2, 2, 8, 8)
    assert torch.equal(DeepSupervisionLoss()(logits, wanted), SegmentationLoss()(logits, wanted))


def test_every_depth_of_the_network_learns() -> None:
    network = make_segmenter("dynunet_deep", spatial_dims=2, in_channels=1, out_channels=2, image_size=(33, 47))
    labels = one_hot(torch.randint(2, (1, 33, 47)), 2).movedim(-1, 1).float()
    logits = network.train()(torch.rand(1, 1, 33, 47))
    assert logits.shape == (1, 2, 2, 33, 47)
    DeepSupervisionLoss()(logits, labels).backward()
    heads = [p for name, p in network.named_parameters() if "deep_supervision_heads.0." in name]
    assert heads
    assert all(bool(p.grad.abs().sum() > 0) for p in heads if p.grad is not None)
    assert network.eval()(torch.rand(1, 1, 33, 47)).shape == (1, 2, 33, 47)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"wanted logits B \[S\] K H W \[D\], got"):
        DeepSupervisionLoss()(torch.zeros(2, 2, 2, 2, 8, 8), masks())
