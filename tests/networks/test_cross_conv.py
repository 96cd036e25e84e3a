"""The parts of UniverSeg by themselves."""

from __future__ import annotations

import pytest
import torch

from genseg_monai.networks.cross_conv import CrossBlock, CrossConv, compose, convolve, neighbours, weighted_mean

SIZES = [(7, 5), (5, 4, 6)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_cross_convolution_is_one_of_both_side_by_side(size, batch):
    cross = CrossConv(len(size), 2, 3, 4).double()
    query, supports = torch.rand(batch, 2, *size).double(), torch.rand(batch, 5, 3, *size).double()
    beside = torch.cat([query[:, None].expand(-1, 5, *query.shape[1:]), supports], dim=2)
    wanted = cross.cross_conv(beside.flatten(0, 1)).unflatten(0, (batch, 5))
    torch.testing.assert_close(cross(query, supports), wanted)


@pytest.mark.parametrize("size", SIZES)
def test_channels_in_parts(size):
    first, second = torch.rand(2, 3, *size), torch.rand(2, 1, *size)
    weight, bias = torch.rand(4, 4, *[3] * len(size)), torch.rand(4)
    wanted = convolve((torch.cat([first, second], dim=1),), weight, bias)
    torch.testing.assert_close(convolve((first, second), weight, bias), wanted)


@pytest.mark.parametrize("size", SIZES)
def test_two_convolutions_in_one_are_equal_up_to_the_border(size):
    kernel = [3] * len(size)
    image = torch.rand(2, 2, *size).double()
    first = torch.rand(6, 2, *kernel).double().requires_grad_()
    second = torch.rand(4, 6, *kernel).double().requires_grad_()
    once = convolve((neighbours(image),), compose(first, second))
    twice = convolve((convolve((image,), first),), second)
    torch.testing.assert_close(once, twice)
    slopes = torch.rand_like(once)
    for mine, other in zip(
        torch.autograd.grad(once, (first, second), slopes),
        torch.autograd.grad(twice, (first, second), slopes),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_weighted_mean(size, channels_last):
    supports, weights = torch.rand(6, 4, *size), torch.rand(2, 3)
    if channels_last:
        supports = supports.movedim(1, -1).contiguous().movedim(-1, 1)
    wanted = torch.einsum("bs,bs...->b...", weights, supports.unflatten(0, (2, 3)))
    torch.testing.assert_close(weighted_mean(supports, weights), wanted)


@pytest.mark.parametrize("cross_activation", [False, True])
def test_a_block_of_equal_supports_is_one_of_a_single_one(cross_activation):
    block = CrossBlock(2, 2, 3, 4, cross_activation=cross_activation)
    query, support = torch.rand(2, 2, 8, 8), torch.rand(2, 1, 3, 8, 8)
    several = block(query, support.expand(-1, 5, -1, -1, -1))
    single = block(query, support)
    torch.testing.assert_close(several[0], single[0])
    torch.testing.assert_close(several[1], single[1].expand(-1, 5, -1, -1, -1))


def test_activation_between_the_convolutions_matters():
    torch.manual_seed(0)
    with_one, without = CrossBlock(2, 1, 2, 4, cross_activation=True), CrossBlock(2, 1, 2, 4)
    without.load_state_dict(with_one.state_dict())
    inputs = torch.rand(1, 1, 8, 8), torch.rand(1, 3, 2, 8, 8)
    assert not torch.allclose(with_one(*inputs)[0], without(*inputs)[0])
