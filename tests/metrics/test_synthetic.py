"""Measures of synthetic images on images whose answer is known."""

from __future__ import annotations

import pytest
import torch

from genseg_monai.metrics.cases import score_case
from genseg_monai.metrics.synthetic import (
    distances,
    diversity,
    memorisation,
    nearest_is_trained,
    obedience,
    thumbnails,
)


def images(count: int, seed: int = 0, dims: int = 2) -> torch.Tensor:
    return torch.rand(count, 1, *[16] * dims, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_copy_of_a_training_image_is_found(dims: int) -> None:
    real, new = thumbnails(images(6, dims=dims)), thumbnails(images(3, 1, dims=dims))
    honest, copied = memorisation(new, real), memorisation(real[[4, 2]], real)
    assert copied.nearest == (0.0, 0.0)
    assert copied.neighbour == (4, 2)
    assert (copied.ratio, copied.closer) == (0.0, 1.0)
    assert honest.ratio == pytest.approx(1.0, abs=0.2)


def test_a_noisy_copy_is_found_too() -> None:
    real = images(6) * torch.linspace(0.2, 1, 6).reshape(-1, 1, 1, 1)
    noisy = real[:1] + 0.05 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    found = memorisation(thumbnails(noisy), thumbnails(real))
    assert found.neighbour == (0,)
    assert found.closer == 1.0


def test_images_of_one_patient_do_not_set_the_bar() -> None:
    real = torch.tensor([[0.0], [0.1], [5.0]])
    assert memorisation(real[:1], real).real == pytest.approx((0.1, 0.1, 4.9))
    assert memorisation(real[:1], real, ["a", "a", "b"]).real == pytest.approx((5.0, 4.9, 4.9))


def test_smooth_images_are_no_copies_though_they_are_near() -> None:
    """Means of many images are nearer to each than these are to each other, and no nearer to those trained on."""
    trained, unseen = (thumbnails(images(40, seed)) for seed in (3, 4))
    smooth = thumbnails(images(4000, 5).reshape(40, 100, 16, 16).mean(1, keepdim=True))
    assert memorisation(smooth, trained).ratio < 0.8
    assert nearest_is_trained(smooth, trained, unseen) == pytest.approx(0.5, abs=0.5)
    copied = trained + 0.01
    assert nearest_is_trained(copied, trained, unseen) == 1.0
    assert nearest_is_trained(unseen + 0.01, trained, unseen) == 0.0


def test_constant_images_have_no_diversity() -> None:
    assert diversity(thumbnails(torch.full((5, 1, 8, 8), 0.3))) == 0.0
    assert diversity(torch.zeros(1, 4)) == 0.0


def test_diversity_by_hand() -> None:
    corners = torch.eye(3)
    assert diversity(corners) == pytest.approx((2 / 3) ** 0.5)
    assert diversity(2 * corners) == pytest.approx(2 * (2 / 3) ** 0.5)


def test_distances_are_exact_for_what_is_nearly_equal() -> None:
    one = torch.full((1, 1000), 1.0)
    assert distances(one, one + 1e-4).item() == pytest.approx(1e-4, rel=1e-2)
    assert distances(one, one).item() == 0


def test_obedience_is_the_dice_of_the_scores() -> None:
    random = torch.Generator().manual_seed(0)
    seen, wanted = (torch.randint(0, 3, (4, 12, 12), generator=random) for _ in range(2))
    one_hot = [torch.nn.functional.one_hot(x, 3).movedim(-1, 1).float() for x in (seen, wanted)]
    found = obedience(one_hot[0] * 7 - 3, one_hot[1])
    for i in range(4):
        rows = score_case(seen[i][None], wanted[i][None], ("background", "a", "b"))
        assert found[i].item() == pytest.approx(sum(row.dice for row in rows) / 2)


def test_a_mask_without_foreground_that_stays_empty_is_obeyed() -> None:
    empty = torch.zeros(1, 2, 4, 4)
    empty[:, 0] = 1
    assert obedience(empty, empty).item() == 1
    assert obedience(empty.flip(1), empty).item() == 0


def test_small_pictures_are_means() -> None:
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert thumbnails(image, 2)[0].tolist() == [13.5, 17.5, 45.5, 49.5]
    assert thumbnails(image, 32).shape == (1, 64)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="two real ones or more"):
        memorisation(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="two groups or more"):
        memorisation(torch.zeros(1, 2), torch.zeros(2, 2), ["a", "a"])
    with pytest.raises(ValueError, match="images of each kind"):
        nearest_is_trained(torch.zeros(1, 2), torch.zeros(2, 2), torch.zeros(0, 2))
    with pytest.raises(ValueError, match="of one shape"):
        obedience(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4))
