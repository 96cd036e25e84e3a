"""Convolutions in 3D: single precision, where the plain layers' weight gradient goes wrong, against double."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genseg_monai.networks import SearchableGenerator
from genseg_monai.networks.candidates import candidates, make_candidate
from genseg_monai.networks.padded_depth import PaddedConv3d, PaddedConvTranspose3d

# the fine side of the cells where oneDNN fails (6 and 8), and their neighbours
SIDES = (2, 4, 6, 8, 10)
STRIDED = [spec for spec in candidates("wide", transposed=False) if spec.kind == "conv"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("spec", STRIDED, ids=lambda spec: spec.name)
def test_candidates_equal_the_plain_convolution_in_double_precision(spec, transposed, side):
    candidate = make_candidate(spec, 3, 2, 4, transposed=transposed)
    assert isinstance(candidate.get_submodule("conv"), PaddedConvTranspose3d if transposed else PaddedConv3d)
    weight, bias = candidate.get_submodule("conv").weight, candidate.get_submodule("conv").bias
    x = torch.rand(2, 2, *[side // 2 if transposed else side] * 3)
    y = candidate(x)
    cotangent = torch.randn_like(y)
    found = torch.autograd.grad(y, (weight, bias), cotangent)

    exact = [v.detach().double().requires_grad_() for v in (weight, bias)]
    settings = {"stride": 2, "padding": spec.padding, "dilation": spec.dilation}
    if transposed:
        settings["output_padding"] = 2 + 2 * spec.padding - spec.extent
    plain = (F.conv_transpose3d if transposed else F.conv3d)(x.double(), *exact, **settings)
    torch.testing.assert_close(y.double(), plain, rtol=1e-4, atol=1e-4)
    wanted = torch.autograd.grad(plain, exact, cotangent.double())
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [(8, 8, 8), (24, 16, 16)])
def test_first_and_second_derivatives_of_a_generator_agree_in_both_precisions(size):
    exact = SearchableGenerator(3, 2, 1, size, base_width=2, depth=3).double()
    # instance norm over a few voxels would blow rounding up
    for module in exact.modules():
        if isinstance(module, nn.InstanceNorm3d):
            module.eps = 1.0
    masks = torch.rand(2, 2, *size).softmax(1)
    found = []
    for dtype in (torch.float64, torch.float32):
        generator = exact.to(dtype)
        weights, alpha = list(generator.weight_parameters().values()), list(generator.arch_parameters().values())
        loss = generator(masks.to(dtype)).square().mean()
        first = torch.autograd.grad(loss, [*weights, *alpha], create_graph=True)
        slope = sum((g * torch.linspace(-1, 1, g.numel(), dtype=dtype).view_as(g)).sum() for g in first)
        second = torch.autograd.grad(slope, [*weights, *alpha])
        found.append([*first, *second])
    scale = max(float(v.detach().abs().max()) for v in found[0])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("transposed", [False, True])
def test_can_be_scripted(transposed):
    layer = (PaddedConvTranspose3d if transposed else PaddedConv3d)(1, 2, 8, stride=2, padding=3)
    x = torch.rand(1, 1, 8, 8, 8)
    assert torch.equal(torch.jit.script(layer)(x), layer(x))
