"""The distance of two sets of images: unbiased, with an error that says how far it can be trusted."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.metrics.kernel_distance import KINDS, KernelDistance, kernel_distance, texture_features


def sample(count: int, shift: float = 0.0, seed: int = 0) -> Tensor:
    return shift + torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_estimate_is_that_of_its_definition():
    x, y = sample(7, 0.5, 1), sample(9, 0.0, 2)
    centre, spread = y.mean(0), y.std(0)
    a, b = (((one - centre) / spread).numpy() for one in (x, y))
    within = [
        np.mean(
            [polynomial_kernel(one[[i]], one[[j]])[0, 0] for i in range(len(one)) for j in range(len(one)) if i != j]
        )
        for one in (a, b)
    ]
    wanted = sum(within) - 2 * polynomial_kernel(a, b).mean()
    assert kernel_distance(x, y).value == pytest.approx(wanted, rel=1e-9)


def test_equal_distributions_are_at_zero_on_the_mean_and_others_are_not():
    unit = sample(4000, 0.0, 999)
    none = [kernel_distance(sample(15, 0.0, 2 * i), sample(15, 0.0, 2 * i + 1), unit).value for i in range(200)]
    assert abs(np.mean(none)) < 3 * np.std(none) / 200**0.5
    assert kernel_distance(sample(15, 1.0), sample(15, 0.0, 1), unit).value > 2 * np.std(none)


def test_the_error_is_the_scatter_of_repeats():
    unit = sample(4000, 0.0, 999)
    found = [kernel_distance(sample(20, 0.4, 2 * i), sample(20, 0.0, 2 * i + 1), unit) for i in range(200)]
    scatter = np.std([one.value for one in found])
    assert np.mean([one.error**2 for one in found]) ** 0.5 == pytest.approx(scatter, rel=0.3)


@pytest.mark.parametrize("shape", [(32, 32), (16, 24, 16)])
def test_blur_is_seen(shape: tuple[int, ...]):
    random = torch.Generator().manual_seed(0)
    images, others = (torch.rand(12, 1, *shape, generator=random) for _ in range(2))
    pool = F.avg_pool2d if len(shape) == 2 else F.avg_pool3d
    blurred = pool(images, 3, stride=1, padding=1)
    same, smooth = (kernel_distance(texture_features(one), texture_features(others)) for one in (images, blurred))
    assert abs(same.value) < 4 * same.error
    assert smooth.value > 10 * abs(same.value)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="wanted 3 items or more"):
        kernel_distance(sample(2), sample(5))
    with pytest.raises(ValueError, match="wanted sides of 8 or more"):
        texture_features(torch.rand(3, 1, 4, 16))


def test_what_never_varies_in_real_images_does_not_rule():
    random = torch.Generator().manual_seed(0)
    rand = partial(torch.rand, generator=random)
    left, right = (rand(10, 1, 32, 32) * rand(10, 1, 1, 1) for _ in range(2))
    left[..., :8, :], right[..., :8, :] = 0, 0
    tinged = left.clone()
    tinged[..., :8, :] = 0.004  # a grey level of 255
    as_it_is, edged = (
        kernel_distance(texture_features(one), texture_features(right), kinds=KINDS) for one in (left, tinged)
    )
    assert abs(edged.value - as_it_is.value) < as_it_is.error


def test_nothing_is_not_below_nothing():
    assert str(KernelDistance(-0.001, 0.04)) == "0.00 (0.04)"
