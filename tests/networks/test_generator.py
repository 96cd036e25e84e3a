"""The searchable generator, what it derives, and the plain generator built from that."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.func import functional_call

from genseg_monai.errors import UserError
from genseg_monai.networks.candidates import SearchSpace
from genseg_monai.networks.generator import DiscreteGenerator, SearchableGenerator, generator_depth
from genseg_monai.networks.genotype import Genotype
from tests.networks.base import ExportedNetworkTests, NetworkTests, Shape
from tests.networks.base import pytest_generate_tests as pytest_generate_tests

SHAPES = [(2, (32, 16)), (3, (16, 8, 8))]


def make(dims: int, size: tuple[int, ...], space: str = "paper", **settings: object) -> SearchableGenerator:
    return SearchableGenerator(dims, 3, 2, size, base_width=2, space=space, **settings)  # type: ignore[arg-type]


def choose(generator: SearchableGenerator, seed: int = 0) -> None:
    with torch.no_grad():
        for alpha in generator.arch_parameters().values():
            alpha.copy_(torch.randn(alpha.shape, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    ("size", "depth"), [((128, 128), 7), ((256, 256), 7), ((64, 128), 6), ((96, 80), 4), ((48, 64, 48), 4), ((6, 6), 1)]
)
def test_depth(size: tuple[int, ...], depth: int) -> None:
    assert generator_depth(size) == depth


def test_odd_side_is_refused() -> None:
    with pytest.raises(UserError, match=r"image_size: wanted sides that divide by 2, .* got \(15, 16\)"):
        generator_depth((15, 16))


@pytest.mark.parametrize("space", list(SearchSpace))
@pytest.mark.parametrize(("dims", "size"), SHAPES)
def test_parameters_are_disjoint_and_complete(dims: int, size: tuple[int, ...], space: str) -> None:
    generator = make(dims, size, space)
    arch, weights = generator.arch_parameters(), generator.weight_parameters()
    assert not set(arch) & set(weights)
    assert arch | weights == dict(generator.named_parameters())
    assert set(arch) | set(weights) == set(generator.state_dict())
    # encoder cells are searched as well as decoder cells
    assert len(arch) == 2 * generator.depth
    assert all(weights.sum().item() == pytest.approx(1) for weights in generator.arch_weights().values())


@pytest.mark.parametrize("space", ["paper", "wide"])
@pytest.mark.parametrize(("dims", "size"), SHAPES)
def test_every_parameter_gets_a_gradient(dims: int, size: tuple[int, ...], space: str) -> None:
    generator = make(dims, size, space)
    image = generator(torch.rand(2, 3, *size))
    assert image.shape == (2, 2, *size)
    assert 0 <= image.min() <= image.max() <= 1
    image.square().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_innermost_cell_has_no_norm_where_one_voxel_is_left() -> None:
    generator = make(2, (16, 16))
    normed = [hasattr(cell, "norm") for cell in [*generator.encoder, *generator.decoder]]
    assert normed == [False, True, True, False, True, True, True, False]
    assert all(hasattr(cell, "norm") for cell in list(make(2, (32, 16)).encoder)[1:])


@pytest.mark.parametrize("space", list(SearchSpace))
@pytest.mark.parametrize(("dims", "size"), SHAPES)
def test_discrete_generator_is_the_limit_of_the_searchable_one(dims: int, size: tuple[int, ...], space: str) -> None:
    generator = make(dims, size, space)
    choose(generator)
    plain = generator.discretise()
    genotype = generator.derive()
    with torch.no_grad():
        # one candidate with all the weight: the mixture is that candidate
        for alpha in generator.arch_parameters().values():
            alpha.copy_(torch.where(alpha == alpha.max(), 0.0, -1e4))
    masks = torch.rand(2, 3, *size)
    torch.testing.assert_close(plain(masks), generator(masks), rtol=1e-4, atol=1e-5)
    assert generator.derive() == genotype
    assert sum(p.numel() for p in plain.parameters()) < sum(p.numel() for p in generator.parameters())


def test_discrete_weights_are_copies() -> None:
    generator = make(2, (16, 16))
    plain = generator.discretise()
    before = copy.deepcopy(plain.state_dict())
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(1)
    assert all(torch.equal(before[name], value) for name, value in plain.state_dict().items())


@pytest.mark.parametrize(("dims", "size"), SHAPES)
def test_shared_kernels_give_the_same_images(dims: int, size: tuple[int, ...]) -> None:
    generator = make(dims, size)
    masks = torch.rand(1, 3, *size)
    assert torch.equal(generator(masks, generator.collapsed()), generator(masks))


def test_functional_call_twice_differentiable() -> None:
    generator = make(2, (8, 8)).double()
    arch = {n: p.detach().requires_grad_() for n, p in generator.arch_parameters().items()}
    weights = {n: p.detach().requires_grad_() for n, p in generator.weight_parameters().items()}
    masks = torch.rand(2, 3, 8, 8, dtype=torch.float64)

    def inner(weights: dict) -> torch.Tensor:
        return functional_call(generator, {**arch, **weights}, (masks,)).square().mean()

    slopes = torch.autograd.grad(inner(weights), list(weights.values()), create_graph=True)
    moved = {n: w - 0.1 * g for (n, w), g in zip(weights.items(), slopes, strict=True)}
    found = torch.autograd.grad(inner(moved), list(arch.values()))
    assert all(g.abs().max() > 0 for g in found)
    # and the value of one of them, against central differences through the inner step
    name, step = next(iter(arch)), 1e-5
    values = []
    for sign in (1, -1):
        arch[name] = arch[name].detach() + sign * step * torch.eye(3, dtype=torch.float64)[0]
        slopes = torch.autograd.grad(inner(weights), list(weights.values()))
        values.append(inner({n: w - 0.1 * g for (n, w), g in zip(weights.items(), slopes, strict=True)}).item())
        arch[name] = arch[name] - sign * step * torch.eye(3, dtype=torch.float64)[0]
    assert found[0][0].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_settings_reach_the_cells() -> None:
    generator = make(2, (16, 16), norm=("group", {"num_groups": 2}), activation=("leakyrelu", {"negative_slope": 0.2}))
    modules = [type(m) for m in generator.modules()]
    assert nn.GroupNorm in modules
    assert nn.LeakyReLU in modules
    assert nn.SiLU not in modules
    assert not any(getattr(m, "inplace", False) for m in generator.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth: wanted at least 1"),
        ({"depth": 5}, "2\\*\\*depth divides every side"),
        ({"space": "narrow"}, "wanted one of paper, wide"),
    ],
)
def test_wrong_settings(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(2, (16, 16), **settings)


def test_wrong_sizes() -> None:
    with pytest.raises(UserError, match="wanted 3 sides"):
        make(3, (16, 16))
    with pytest.raises(ValueError, match=r"sides divide by 2\*\*4"):
        make(2, (16, 16))(torch.zeros(1, 3, 24, 16))
    with pytest.raises(UserError, match="2\\*\\*depth divides every side"):
        DiscreteGenerator(Genotype("paper", ("conv_4",) * 5, ("conv_4",) * 5), 2, 3, 1, (16, 16))


class TestSearchableGenerator(NetworkTests):
    # what is exported is the discrete one
    shapes: ClassVar[list[Shape]] = [(2, 2, 3, (48, 32)), (3, 3, 1, (16, 8, 8))]

    def make(self, dims: int, inputs: int, outputs: int, size: tuple[int, ...]) -> nn.Module:
        return SearchableGenerator(dims, inputs, outputs, size, base_width=4, space="wide")


class TestDiscreteGenerator(ExportedNetworkTests):
    shapes: ClassVar[list[Shape]] = [(2, 2, 3, (48, 32)), (3, 3, 1, (16, 8, 8))]

    def make(self, dims: int, inputs: int, outputs: int, size: tuple[int, ...]) -> nn.Module:
        genotype = Genotype(
            "wide", ("conv_8", "pool_1", "conv_4_dilated_2"), ("resize_3", "conv_6", "conv_4_dilated_2")
        )
        return DiscreteGenerator(genotype, dims, inputs, outputs, size, base_width=4)
