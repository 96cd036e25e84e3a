"""A fused step on weights as they lie in memory is the step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genseg_monai.engines.dense_step import as_they_lie


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((4, 3, 2, 5), torch.channels_last),
        ((4, 3, 2, 5, 3), torch.channels_last_3d),
        ((4, 3, 2, 5), torch.contiguous_format),
        ((7,), torch.contiguous_format),
    ],
)
@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("fused", [True, False])
def test_the_step_is_that_of_the_plain_optimiser(shape, layout, make, fused):
    torch.manual_seed(0)
    start, slopes = torch.randn(shape), [torch.randn(shape) for _ in range(3)]
    plain, ours = nn.Parameter(start.clone()), nn.Parameter(start.clone().to(memory_format=layout))
    reference, optimizer = make([plain], lr=0.1), make([ours], lr=0.1, fused=fused)
    strides = ours.stride()
    for slope in slopes:
        plain.grad, ours.grad = slope.clone(), slope.clone().to(memory_format=layout)
        reference.step()
        with as_they_lie(optimizer):
            optimizer.step()
        assert ours.stride() == ours.grad.stride() == optimizer.state[ours]["exp_avg"].stride() == strides
    torch.testing.assert_close(ours, plain)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(optimizer.state[ours][name], reference.state[plain][name])


def test_a_step_that_fails_leaves_the_shapes_as_they_were():
    weight = nn.Parameter(torch.ones(4, 3, 2, 2).to(memory_format=torch.channels_last))
    optimizer = torch.optim.Adam([weight], fused=True)
    with pytest.raises(KeyError), as_they_lie(optimizer):
        raise KeyError
    assert weight.shape == (4, 3, 2, 2)


def test_weights_without_a_gradient_stay_without_one():
    weight = nn.Parameter(torch.ones(4, 3, 2, 2).to(memory_format=torch.channels_last))
    optimizer = torch.optim.Adam([weight], fused=True)
    with as_they_lie(optimizer):
        optimizer.step()
    assert weight.grad is None
    assert torch.equal(weight, torch.ones(4, 3, 2, 2))
