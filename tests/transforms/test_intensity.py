"""Changes of intensity against scipy and against what a hand can work out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import ndimage

from genseg_monai.transforms import Intensity, IntensityRanges, apply_intensity, draw_intensity

SIZES = {2: (9, 14), 3: (7, 10, 8)}


def nothing(batch: int = 2) -> Intensity:
    return draw_intensity(IntensityRanges(probability=0), batch, torch.Generator().manual_seed(0))


def images(spatial: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, *SIZES[spatial])


@pytest.mark.parametrize("spatial", [2, 3])
class TestBoth:
    def test_identity_to_the_bit(self, spatial: int) -> None:
        given = images(spatial)
        assert torch.equal(apply_intensity(given, nothing()), given)

    def test_effect_stays_in_range(self, spatial: int) -> None:
        given = images(spatial)
        drawn = draw_intensity(IntensityRanges(probability=1), 2, torch.Generator().manual_seed(0))
        changed = apply_intensity(given, drawn)
        assert changed.shape == given.shape
        assert not torch.allclose(changed, given)
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 1

    def test_replay(self, spatial: int) -> None:
        given = images(spatial)
        first, second = (
            draw_intensity(IntensityRanges(probability=1), 2, torch.Generator().manual_seed(3)) for _ in range(2)
        )
        assert torch.equal(apply_intensity(given, first), apply_intensity(given, second))

    @pytest.mark.parametrize("sigma", [1.0, 2.0])
    def test_blur_against_scipy(self, spatial: int, sigma: float) -> None:
        given = images(spatial)
        blurred = apply_intensity(given, replace(nothing(), blur=torch.tensor([0.0, sigma])))
        torch.testing.assert_close(blurred[0], given[0])
        for channel in range(3):
            reference = ndimage.gaussian_filter(given[1, channel].numpy(), sigma, mode="nearest", truncate=3.0)
            torch.testing.assert_close(blurred[1, channel], torch.from_numpy(reference), atol=1e-5, rtol=0)


def test_brightness() -> None:
    given = images(2)
    changed = apply_intensity(given, replace(nothing(), brightness=torch.tensor([0.1, -0.2])))
    torch.testing.assert_close(changed, (given + torch.tensor([0.1, -0.2]).reshape(2, 1, 1, 1)).clamp(0, 1))


def test_contrast_keeps_the_mean() -> None:
    given = images(2) * 0.2 + 0.4
    changed = apply_intensity(given, replace(nothing(), contrast=torch.tensor([0.5, 2.0])))
    torch.testing.assert_close(changed.mean((1, 2, 3)), given.mean((1, 2, 3)))
    torch.testing.assert_close(changed.std((1, 2, 3)), given.std((1, 2, 3)) * torch.tensor([0.5, 2.0]))


def test_gamma() -> None:
    given = images(2)
    changed = apply_intensity(given, replace(nothing(), gamma=torch.tensor([0.5, 2.0])))
    torch.testing.assert_close(changed[0], given[0].sqrt())
    torch.testing.assert_close(changed[1], given[1].square())


def test_noise_has_its_deviation() -> None:
    given = torch.full((2, 1, 64, 64), 0.5)
    changed = apply_intensity(given, replace(nothing(), noise=torch.tensor([0.0, 0.05])))
    assert torch.equal(changed[0], given[0])
    assert float((changed[1] - given[1]).std()) == pytest.approx(0.05, rel=0.05)
    assert float((changed[1] - given[1]).mean()) == pytest.approx(0, abs=0.004)


def test_probability_is_that_of_each_change() -> None:
    drawn = draw_intensity(IntensityRanges(probability=0.3), 2000, torch.Generator().manual_seed(0))
    for value, still in ((drawn.brightness, 0), (drawn.contrast, 1), (drawn.gamma, 1), (drawn.blur, 0)):
        assert float((value != still).float().mean()) == pytest.approx(0.3, abs=0.04)


def test_gradient_is_finite_at_black() -> None:
    given = torch.zeros(2, 1, 4, 4, requires_grad=True)
    apply_intensity(given, replace(nothing(), gamma=torch.tensor([0.5, 0.7]))).sum().backward()
    assert bool(given.grad.isfinite().all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": (0.0, 1.0)}, r"gamma: wanted lower <= upper, above 0, got \(0.0, 1.0\)"),
        ({"noise": (-0.1, 0.1)}, "noise: wanted lower <= upper, 0 or more"),
        ({"brightness": (0.1, -0.1)}, "brightness: wanted lower <= upper, got"),
        ({"contrast": (1.0,)}, r"contrast: wanted \(lower, upper\)"),
        ({"probability": 2.0}, r"probability: wanted a number in \[0, 1\], got 2.0"),
    ],
)
def test_ranges_that_mean_nothing(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntensityRanges(**settings)


def test_misfit_is_told() -> None:
    with pytest.raises(ValueError, match="wanted 2 items, one for each draw, got 3"):
        apply_intensity(images(2, batch=3), nothing())
