"""Nested candidates that share one window's weights; that they equal the mixture of crops: `test_mixed_conv.py`."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from genseg_monai.networks.candidates import CandidateSpec, candidates
from genseg_monai.networks.collapsing import collapse
from genseg_monai.networks.generator import SearchableGenerator
from genseg_monai.networks.genotype import Genotype
from genseg_monai.networks.mixed_conv import MixedConv
from genseg_monai.networks.shared_window import collapse_window, crop, tap_shares, whole, window_of

SPECS = candidates("shared", transposed=False)
F64 = torch.float64


def random_kernels(channels: tuple[int, int] = (2, 3), dims: int = 2) -> list[Tensor]:
    return [torch.randn(*channels, *(spec.kernel,) * dims, dtype=F64) for spec in SPECS]


def test_shares_are_those_of_the_candidates_that_reach_a_tap() -> None:
    shares = tap_shares(torch.tensor([0.5, 0.3, 0.2]), SPECS, spatial_dims=3)
    assert shares.shape == (1, 1, 8, 8, 8)
    torch.testing.assert_close(shares[0, 0, 3, 3], torch.tensor([0.2, 0.5, 1, 1, 1, 1, 0.5, 0.2]))
    torch.testing.assert_close(shares[0, 0, 1, 3], torch.tensor([0.2, *[0.5] * 6, 0.2]))
    assert shares[0, 0, 0].unique().tolist() == pytest.approx([0.2])


@pytest.mark.parametrize("dims", [2, 3])
def test_the_mixture_of_crops(dims: int) -> None:
    kernel, probabilities = torch.randn(2, 3, *(8,) * dims, dtype=F64), torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    crops = [crop(kernel, spec, SPECS) for spec in SPECS]
    assert [tuple(part.shape[2:]) for part in crops] == [(k,) * dims for k in (4, 6, 8)]
    wanted = collapse(probabilities, crops, SPECS)
    torch.testing.assert_close(collapse_window(probabilities, kernel, SPECS), wanted, rtol=1e-14, atol=1e-14)


def test_a_window_of_kernels_mixes_as_they_do() -> None:
    kernels, equal = random_kernels(), torch.full((3,), 1 / 3, dtype=F64)
    found = collapse_window(equal, window_of(kernels, SPECS), SPECS)
    torch.testing.assert_close(found, collapse(equal, kernels, SPECS), rtol=1e-14, atol=1e-14)
    nested = [crop(kernels[2], spec, SPECS) for spec in SPECS]
    torch.testing.assert_close(window_of(nested, SPECS), kernels[2], rtol=1e-14, atol=0)


@pytest.mark.parametrize("live", [None, ((1, 7), (3, 5))])
def test_gradgradcheck(live: tuple | None) -> None:
    kernel = torch.randn(1, 2, 8, 8, dtype=F64, requires_grad=True)
    factors = torch.rand(3, dtype=F64, requires_grad=True)

    def square(factors: Tensor, kernel: Tensor) -> Tensor:
        return collapse_window(factors, kernel, SPECS, live).square()

    assert torch.autograd.gradcheck(square, (factors, kernel))
    assert torch.autograd.gradgradcheck(square, (factors, kernel))


def test_third_derivative() -> None:
    factors = torch.tensor([2.0, 3.0, 5.0], dtype=F64, requires_grad=True)
    value = collapse_window(factors, torch.ones(1, 1, 8, 8, dtype=F64), SPECS).pow(3).sum()
    (first,) = torch.autograd.grad(value, factors, create_graph=True)
    (second,) = torch.autograd.grad(first[0], factors, create_graph=True)
    (third,) = torch.autograd.grad(second[0], factors)
    assert third[0].item() == pytest.approx(16 * 6)  # the 16 taps that the first candidate has


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = MixedConv(2, 3, 5, False, "shared").double()
    variables = [mixed.alpha, *mixed.weights]
    whole = torch.autograd.grad(mixed.collapsed()[0].pow(2).sum(), variables)
    monkeypatch.setattr("genseg_monai.networks.mixing._BLOCK", 2 * 3 * 64)
    for a, b in zip(whole, torch.autograd.grad(mixed.collapsed()[0].pow(2).sum(), variables), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_what_cannot_be_part_of_a_window() -> None:
    with pytest.raises(ValueError, match="wanted a plain convolution, .* got CandidateSpec"):
        crop(torch.zeros(1, 1, 8, 8), CandidateSpec("conv", 4, stride=2, padding=3, dilation=2), SPECS)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_cell_holds_one_window_and_starts_as_that_of_the_paper(dims: int, transposed: bool) -> None:
    cells = []
    for space in ("shared", "paper"):
        torch.manual_seed(0)
        cells.append(MixedConv(dims, 2, 3, transposed, space))
    shared, paper = cells
    assert set(shared.state_dict()) == {"alpha", "bias", "weights.0"}
    held = [sum(weight.numel() for weight in cell.weights) for cell in cells]
    assert held == [6 * 8**dims, 6 * (4**dims + 6**dims + 8**dims)]
    torch.testing.assert_close(shared.collapsed()[0], paper.collapsed()[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("sides", "transposed", "held"), [((2, 4), False, (2, 6)), ((1, 2, 8), True, (2, 6, 8))])
def test_only_taps_that_meet_a_voxel_are_held(sides: tuple[int, ...], transposed: bool, held: tuple[int, ...]) -> None:
    cells = []
    for known in (sides, None):
        torch.manual_seed(0)
        cells.append(MixedConv(len(sides), 2, 3, transposed, "shared", sides=known).double())
    ours, plain = cells
    assert ours.weights[0].shape[2:] == held
    x = torch.randn(1, 2, *sides, dtype=F64)
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(cell(x).square().sum(), [cell.alpha, cell.weights[0]]) for cell in cells]
    torch.testing.assert_close(slopes[0][0], slopes[1][0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole(slopes[0][1], SPECS), slopes[1][1], rtol=1e-12, atol=1e-12)

    # the taps that are not held are zero to an input of another size
    with torch.no_grad():
        plain.weights[0].copy_(whole(ours.weights[0], SPECS))
        for factor in (2, 4):
            x = torch.randn(1, 2, *(factor * side for side in sides), dtype=F64)
            torch.testing.assert_close(ours(x), plain(x), rtol=1e-12, atol=1e-12)
        for index in range(3):
            assert torch.equal(ours.candidate(index)[0], plain.candidate(index)[0])


def test_a_generator_holds_what_its_masks_meet() -> None:
    generator = SearchableGenerator(2, 2, 1, (16, 16), base_width=2, space="shared")
    held = [tuple(mixture.weights[0].shape[2:]) for mixture in generator.mixtures().values()]
    assert held == [(8, 8), (8, 8), (6, 6), (2, 2), (2, 2), (6, 6), (8, 8), (8, 8)]
    masks = torch.rand(1, 2, 32, 48)
    torch.testing.assert_close(generator(masks), generator(masks, generator.collapsed()))


def both_generators() -> list[SearchableGenerator]:
    found = []
    for space in ("shared", "paper"):
        torch.manual_seed(0)
        found.append(SearchableGenerator(2, 2, 1, (16, 16), base_width=2, space=space).double())
    return found


def test_with_alpha_held_adam_takes_both_spaces_along_one_path() -> None:
    """Adam does not see the factor softmax(alpha)_i in a gradient, so every candidate's tap takes the window's step."""
    masks, wanted = torch.rand(2, 2, 16, 16, dtype=F64), torch.rand(2, 1, 16, 16, dtype=F64)
    drawn = []
    for generator in both_generators():
        optimizer = torch.optim.Adam(generator.weight_parameters().values(), lr=1e-2, eps=1e-30)
        images = [generator(masks)]
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.mse_loss(images[-1], wanted).backward()
            optimizer.step()
            images.append(generator(masks))
        drawn.append(images)
    for ours, papers in zip(*drawn, strict=True):
        torch.testing.assert_close(ours, papers, rtol=1e-5, atol=1e-5)
    assert all((after - before).abs().max() > 1e-2 for before, after in pairwise(drawn[0]))


def test_alpha_has_no_say_where_all_candidates_reach_the_same_voxels() -> None:
    generator = both_generators()[0].float()
    generator(torch.rand(2, 2, 16, 16)).square().mean().backward()
    slopes = [alpha.grad for alpha in generator.arch_parameters().values()]
    assert [len(slope.unique()) for slope in slopes] == [3, 3, 2, 1, 1, 2, 3, 3]  # type: ignore[union-attr]


def test_the_genotype_names_the_space_and_keeps_crops() -> None:
    generator = both_generators()[0]
    with torch.no_grad():
        for alpha, heaviest in zip(generator.arch_parameters().values(), (0, 1, 2, 0, 1, 2, 0, 1), strict=True):
            alpha[heaviest] = 1.0
    genotype = generator.derive()
    assert genotype == Genotype(
        "shared", ("conv_4", "conv_6", "conv_8", "conv_4"), ("conv_6", "conv_8", "conv_4", "conv_6")
    )
    assert Genotype.from_json(genotype.to_json()) == genotype
    plain, mixture = generator.discretise(), generator.mixtures()["encoder.1"]
    weight = plain.get_parameter("encoder.1.conv.conv.weight")
    assert torch.equal(weight, mixture.weights[0][:, :, 1:7, 1:7])
    assert weight.untyped_storage().data_ptr() != mixture.weights[0].untyped_storage().data_ptr()


def test_weights_of_another_space_are_refused() -> None:
    shared, paper = both_generators()
    with pytest.raises(RuntimeError, match="weights"):
        shared.load_state_dict(paper.state_dict())
