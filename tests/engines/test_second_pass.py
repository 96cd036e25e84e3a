"""The pass that serves stage II's step and stage III's second derivative."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from genseg_monai.engines.second_pass import SecondPass
from genseg_monai.losses import SegmentationLoss

F64 = torch.float64


def make(norm: nn.Module) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network, a leaf of images and masks."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), norm, nn.SiLU(), nn.Conv2d(3, 2, 1)).to(F64)
    masks = torch.eye(2, dtype=F64)[torch.randint(0, 2, (2, 6, 6))].movedim(-1, 1)
    return network, torch.randn(2, 1, 6, 6, dtype=F64, requires_grad=True), masks


NORMS = [nn.InstanceNorm2d(3, affine=True), nn.BatchNorm2d(3)]


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)
def test_it_does_what_a_plain_pass_and_a_double_backward_do(norm):
    network, images, masks = make(norm)
    plain, loss = copy.deepcopy(network), SegmentationLoss()
    direction = {name: torch.randn_like(value) for name, value in network.named_parameters()}

    value = loss(plain(images), masks)
    slopes = torch.autograd.grad(value, list(plain.parameters()), create_graph=True)
    inner = sum((slope * along).sum() for slope, along in zip(slopes, direction.values(), strict=True))
    (wanted,) = torch.autograd.grad(inner, images)

    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    first = SecondPass(network, loss, images, masks)
    torch.testing.assert_close(first.loss, value.detach())
    first.backward(gamma=0.5)
    for parameter, slope in zip(network.parameters(), slopes, strict=True):
        torch.testing.assert_close(parameter.grad, 1 + 0.5 * slope.detach())
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(buffer, plain.get_buffer(name))

    # the step that stage II takes in between, and another pass
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    network(images)
    torch.testing.assert_close(first.response(direction)["images"], wanted)


def test_weights_that_are_held_or_not_used_get_no_gradient():
    network, images, masks = make(nn.InstanceNorm2d(3, affine=True))
    network.unused = nn.Parameter(torch.ones(2, dtype=F64))
    network[0].weight.requires_grad_(False)
    first = SecondPass(network, lambda logits, wanted: SegmentationLoss()(logits, wanted), images, masks)
    first.backward(gamma=1.0)
    assert network.unused.grad is None
    assert network[0].weight.grad is None
    assert network[3].weight.grad is not None
    direction = {name: torch.ones_like(value) for name, value in network.named_parameters()}
    assert float(first.response(direction)["images"].norm()) > 0
