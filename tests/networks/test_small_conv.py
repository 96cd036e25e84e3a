"""The matrix product of few voxels by many weights is the convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from genseg_monai.networks import small_conv
from genseg_monai.networks.small_conv import convolve_2d


@pytest.fixture
def always(monkeypatch):
    """Take the matrix product however small the weights are."""
    monkeypatch.setattr(small_conv, "_WEIGHTS_A_ROW", 0)


def _case(sides: tuple[int, int], taps: tuple[int, int], transposed: bool):
    torch.manual_seed(0)
    channels = (3, 5) if transposed else (5, 3)
    x = torch.randn(2, 3, *sides, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(*channels, *taps, dtype=torch.float64, requires_grad=True)
    return x, weight, torch.randn(5, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("sides", "taps"), [((4, 4), (8, 8)), ((2, 4), (6, 8)), ((2, 2), (4, 4)), ((8, 6), (4, 4))])
def test_value_and_gradients_are_those_of_the_convolution(always, sides, taps, transposed):
    x, weight, bias = _case(sides, taps, transposed)
    padding = [tap // 2 - 1 for tap in taps]
    library = F.conv_transpose2d if transposed else F.conv2d
    found, wanted = (
        convolve_2d(x, weight, bias, 2, padding, transposed=transposed),
        library(x, weight, bias, 2, padding),
    )
    torch.testing.assert_close(found, wanted)
    cotangent = torch.randn_like(wanted)
    for left, right in zip(
        *(torch.autograd.grad(y, (x, weight, bias), cotangent) for y in (found, wanted)), strict=True
    ):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("transposed", [False, True])
def test_it_can_be_differentiated_twice(always, transposed):
    case = _case((2, 2), (4, 4), transposed)
    assert torch.autograd.gradgradcheck(lambda *args: convolve_2d(*args, 2, [1, 1], transposed=transposed), case)


def test_large_images_stay_with_the_library(monkeypatch):
    monkeypatch.setattr(small_conv, "_product", None)
    x, weight = torch.ones(1, 1, 64, 64), torch.ones(1, 1, 4, 4)
    assert convolve_2d(x, weight, None, 2, [1, 1], transposed=False).shape[-1] == 32


def test_the_innermost_cells_of_a_wide_generator_use_it(monkeypatch):
    used = []
    monkeypatch.setattr(small_conv, "_product_transposed", lambda *args: used.append(args))
    convolve_2d(torch.ones(2, 512, 1, 1), torch.ones(512, 256, 2, 2), None, 2, [0, 0], transposed=True)
    assert used
