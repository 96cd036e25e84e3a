"""The layers that are made to be differentiated twice against those of PyTorch."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from genseg_monai.networks.second_order import SecondOrder

F64 = torch.float64


def derivatives(layer: nn.Module, x: Tensor, *, ours: bool) -> list[Tensor]:
    """Return value, first and second derivatives of something that mixes all of them."""
    x = x.clone().requires_grad_()
    with SecondOrder() if ours else nullcontext():
        y = layer(x)
    loss = (y.square() * y.sin()).sum()
    arguments = [x, *(p for p in layer.parameters() if p.requires_grad)]
    first = torch.autograd.grad(loss, arguments, create_graph=True)
    second = torch.autograd.grad(sum(slope.sin().sum() for slope in first), arguments)
    return [y.detach(), *(slope.detach() for slope in first), *second]


def frozen(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(False)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(2, 3, 3), (2, 2, 7)),
        (nn.Conv2d(2, 3, 3, padding=1), (2, 2, 6, 7)),
        (nn.Conv2d(4, 6, 4, stride=2, padding=1, groups=2, bias=False), (2, 4, 8, 8)),
        (nn.Conv2d(2, 3, 3, padding=2, dilation=2), (1, 2, 6, 6)),
        (nn.Conv2d(2, 3, 3, padding="same"), (2, 2, 6, 6)),
        (nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1), (2, 3, 4, 5)),
        (nn.ConvTranspose3d(3, 2, 3, stride=2, padding=1, output_padding=1), (2, 3, 4, 5, 3)),
        (nn.Conv3d(2, 3, (3, 1, 3), padding=(1, 0, 1), bias=False), (1, 2, 4, 5, 6)),
        (nn.InstanceNorm2d(3, affine=True), (2, 3, 4, 5)),
        (nn.InstanceNorm3d(3), (2, 3, 4, 2, 3)),
        (nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (2, 3, 4, 5)),
        (nn.BatchNorm2d(3), (2, 3, 4, 5)),
        (nn.SiLU(), (2, 3, 4)),
        (frozen(nn.Conv2d(2, 3, 3)), (2, 2, 6, 7)),
        (frozen(nn.InstanceNorm2d(3, affine=True)), (2, 3, 4, 5)),
        (
            nn.Sequential(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True), nn.SiLU(), nn.Conv2d(3, 1, 3)),
            (2, 2, 7, 6),
        ),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else type(value).__name__,
)
def test_all_derivatives_are_those_of_the_plain_layers(layer, shape):
    torch.manual_seed(0)
    layer.to(F64)
    for parameter in layer.parameters():
        parameter.data.uniform_(-1, 1)
    x = 0.3 + torch.randn(*shape, dtype=F64)
    wanted, found = (derivatives(layer, x, ours=ours) for ours in (False, True))
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_channels_may_lie_last():
    layer = nn.Sequential(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.SiLU()).to(F64)
    x = torch.randn(2, 2, 6, 6, dtype=F64)
    wanted = derivatives(layer, x, ours=True)
    found = derivatives(layer.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last), ours=True)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_without_weights_the_first_derivatives_stay_and_those_of_images_are_the_same():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True), nn.SiLU(), nn.Conv2d(3, 1, 3)).to(
        F64
    )
    x = torch.randn(2, 2, 7, 6, dtype=F64, requires_grad=True)
    found = []
    for weights in (True, False):
        with SecondOrder(weights=weights):
            loss = network(x).square().sum()
        slopes = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
        mixed, *of_weights = torch.autograd.grad(
            sum(s.sin().sum() for s in slopes), [x, *network.parameters()], allow_unused=True
        )
        found.append((*slopes, mixed))
        assert weights or all(slope is None for slope in of_weights)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_mean_far_from_zero_costs_no_more_digits_than_in_the_plain_layer():
    torch.manual_seed(0)
    norm, x = nn.InstanceNorm2d(2, affine=True), 30 + torch.randn(2, 2, 16, 16)
    exact = derivatives(norm.to(F64), x.double(), ours=False)
    norm.float()
    plain, ours = (derivatives(norm, x, ours=which) for which in (False, True))
    for best, one, other in zip(exact, plain, ours, strict=True):
        assert float((other - best).norm()) <= 2 * float((one - best).norm()) + 1e-5 * float(best.norm())


def test_under_autocast_the_plain_layers_run():
    layer, x = nn.Conv2d(1, 2, 3), torch.randn(1, 1, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = layer(x)
        with SecondOrder():
            found = layer(x)
    assert found.dtype == wanted.dtype == torch.bfloat16
    assert torch.equal(found, wanted)
    assert "_Convolution" not in type(found.grad_fn).__name__
