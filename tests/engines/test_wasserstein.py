"""The WGAN-GP baseline: its penalty by hand, that it learns, and that it goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from genseg_monai.data.resident import ResidentCases
from genseg_monai.engines import wasserstein
from genseg_monai.engines.wasserstein import draw_pairs, gradient_penalty, train_pairs
from genseg_monai.errors import UserError
from genseg_monai.networks.wasserstein import PairCritic, PairGenerator
from tests.engines.tiny import differing, make_cases


class Linear(nn.Module):
    """D(x, m) = 3 sum(x) + 4 sum(m): the norm of its gradient is known."""

    def forward(self, image: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return 3 * image.flatten(1).sum(1) + 4 * masks.flatten(1).sum(1)


def test_penalty_of_a_linear_critic() -> None:
    real = (torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2))
    fake = (torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2))
    found = gradient_penalty(Linear(), real, fake, torch.Generator().manual_seed(0))
    assert float(found) == pytest.approx((10 - 1) ** 2, rel=1e-5)  # sqrt(4 * 9 + 4 * 16) = 10


@pytest.mark.parametrize("dims", [2, 3])
def test_shapes(dims: int) -> None:
    size = (32, 16) if dims == 2 else (32, 16, 16)
    generator, critic = PairGenerator(3, 4, size, noise=8, width=4), PairCritic(3, 4, size, width=4)
    images, masks = generator(torch.randn(2, 8))
    assert (images.shape, masks.shape) == ((2, 3, *size), (2, 4, *size))
    assert critic(images, masks).shape == (2,)
    with pytest.raises(UserError, match="image size: wanted sides that divide by 16, got"):
        PairGenerator(1, 2, (40, 32))


def test_going_on_gives_the_same_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasserstein, "_SAVED_EVERY", 2)
    cases = make_cases(4)
    state = torch.get_rng_state()
    whole = train_pairs(cases, 2, 4, batch_size=2, width=2)
    train_pairs(cases, 2, 2, batch_size=2, width=2, checkpoint=tmp_path / "pairs.pt")
    gone_on = train_pairs(cases, 2, 4, batch_size=2, width=2, checkpoint=tmp_path / "pairs.pt")
    assert not differing(dict(whole.state_dict()), dict(gone_on.state_dict()))
    assert torch.equal(torch.get_rng_state(), state)
    other = train_pairs(cases, 2, 4, batch_size=2, width=2, seed=1)
    assert differing(dict(whole.state_dict()), dict(other.state_dict()))


def mean_pair(cases: ResidentCases) -> torch.Tensor:
    return torch.cat([cases.images.mean(0), cases.labels.float().mean(0)])


def test_its_pairs_come_nearer_the_real_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasserstein, "_CRITIC_STEPS", 2)
    cases = make_cases(6)
    drawn = [draw_pairs(train_pairs(cases, 2, steps, width=8, rate=3e-3), 32) for steps in (0, 25)]
    assert drawn[1].images.shape == (32, 1, 16, 16)
    assert drawn[1].labels.dtype == torch.uint8
    before, after = ((mean_pair(pairs) - mean_pair(cases)).abs().mean() for pairs in drawn)
    assert float(after) < 0.5 * float(before)
