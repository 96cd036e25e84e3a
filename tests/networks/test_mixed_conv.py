"""The collapsed mixture against the explicit one: candidates run one by one from plain layers, outputs added."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from genseg_monai.errors import UserError
from genseg_monai.networks.candidates import CandidateSpec, SearchSpace, candidates, make_candidate
from genseg_monai.networks.collapsing import collapse, embed, live_taps, window
from genseg_monai.networks.mixed_conv import MixedConv

GRID = [(d, t, s) for d in (2, 3) for t in (False, True) for s in SearchSpace]
IDS = [f"{d}d-{'transposed' if t else 'conv'}-{s}" for d, t, s in GRID]


class ExplicitMixture(nn.Module):
    """What the paper's release does: every candidate runs, and the outputs are added."""

    def __init__(self, dims: int, mixed: MixedConv, transposed: bool) -> None:
        super().__init__()
        inputs, outputs = mixed.weights[0].shape[:2] if transposed else reversed(mixed.weights[0].shape[:2])
        self.candidates = nn.ModuleList(
            make_candidate(s, dims, inputs, outputs, transposed=transposed) for s in mixed.specs
        )
        self.double()

    def forward(self, x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        probabilities = torch.softmax(parameters["alpha"], dim=0)
        total = torch.zeros(())
        for i, candidate in enumerate(self.candidates):
            taps = candidate.get_submodule("conv").weight.shape[2:]
            weight = parameters[f"weights.{i}"] if f"weights.{i}" in parameters else parameters["weights.0"]
            margins = [(outer - inner) // 2 for outer, inner in zip(weight.shape[2:], taps, strict=True)]
            own = {
                "conv.weight": weight[(..., *(slice(m, m + k) for m, k in zip(margins, taps, strict=True)))],
                "conv.bias": parameters["bias"].expand(len(self.candidates), -1)[i],
            }
            total = total + probabilities[i] * functional_call(candidate, own, (x,))
        return total


def pair(dims: int, transposed: bool, space: str) -> tuple[MixedConv, ExplicitMixture, dict[str, Tensor], Tensor]:
    mixed = MixedConv(dims, 2, 3, transposed, space).double()
    parameters = {n: torch.randn_like(p).requires_grad_() for n, p in mixed.named_parameters()}
    x = torch.randn(2, 2, *(6, 4, 2)[:dims], dtype=torch.float64, requires_grad=True)
    return mixed, ExplicitMixture(dims, mixed, transposed), parameters, x


@pytest.mark.parametrize(("dims", "transposed", "space"), GRID, ids=IDS)
def test_equals_the_explicit_mixture(dims: int, transposed: bool, space: str) -> None:
    mixed, explicit, parameters, x = pair(dims, transposed, space)
    ours, theirs = functional_call(mixed, parameters, (x,)), explicit(x, parameters)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert ours.shape[2:] == torch.Size(side * 2 if transposed else side // 2 for side in x.shape[2:])
    variables = [x, *parameters.values()]
    cotangent = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, variables, cotangent), torch.autograd.grad(theirs, variables, cotangent), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dims", "transposed", "space"), GRID, ids=IDS)
def test_second_derivatives_equal_those_of_the_explicit_mixture(dims: int, transposed: bool, space: str) -> None:
    mixed, explicit, parameters, x = pair(dims, transposed, space)
    directions = {n: torch.randn_like(p) for n, p in parameters.items()}
    found = []
    for y in (functional_call(mixed, parameters, (x,)), explicit(x, parameters)):
        first = torch.autograd.grad(y.square().sum(), list(parameters.values()), create_graph=True)
        slope = sum((g * v).sum() for g, v in zip(first, directions.values(), strict=True))
        found.append(torch.autograd.grad(slope, [x, *parameters.values()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("wanted", ["alpha", "weights.1", "x"])
def test_gradient_of_one_variable_alone_is_that_of_all(wanted: str) -> None:
    mixed, explicit, parameters, x = pair(2, False, "wide")
    variables = {n: p.detach().requires_grad_(n == wanted) for n, p in (parameters | {"x": x}).items()}
    point = variables.pop("x")
    target = point if wanted == "x" else variables[wanted]
    (ours,) = torch.autograd.grad(functional_call(mixed, variables, (point,)).square().sum(), target, create_graph=True)
    (theirs,) = torch.autograd.grad(explicit(point, variables).square().sum(), target, create_graph=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    (ours,) = torch.autograd.grad(ours.square().sum(), target)
    (theirs,) = torch.autograd.grad(theirs.square().sum(), target)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("transposed", [False, True])
def test_gradgradcheck(transposed: bool) -> None:
    specs = candidates("wide", transposed)
    kernels = [torch.randn(1, 1, s.kernel, s.kernel, dtype=torch.float64, requires_grad=True) for s in specs]
    factors = torch.rand(len(specs), dtype=torch.float64, requires_grad=True)

    def square(factors: Tensor, *kernels: Tensor) -> Tensor:
        return collapse(factors, kernels, specs).square()

    assert torch.autograd.gradcheck(square, (factors, *kernels))
    assert torch.autograd.gradgradcheck(square, (factors, *kernels))


def test_third_derivative_of_the_collapse() -> None:
    specs = candidates("paper", False)
    kernels = [torch.ones(1, 1, s.kernel, s.kernel, dtype=torch.float64) for s in specs]
    factors = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64, requires_grad=True)
    value = collapse(factors, kernels, specs).pow(3).sum()
    (first,) = torch.autograd.grad(value, factors, create_graph=True)
    (second,) = torch.autograd.grad(first[0], factors, create_graph=True)
    (third,) = torch.autograd.grad(second[0], factors)
    # 16 taps see all three candidates: d^3 (a + b + c)^3 / da^3 = 6 at each
    assert third[0].item() == pytest.approx(16 * 6)


@pytest.mark.parametrize("transposed", [False, True])
def test_embedded_kernel_is_the_candidate(transposed: bool) -> None:
    specs = candidates("wide", transposed)
    size, padding = window(specs)
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    convolve = torch.conv_transpose2d if transposed else torch.conv2d
    for spec in specs:
        candidate = make_candidate(spec, 2, 2, 2, transposed=transposed, bias=False).double()
        kernel = embed(candidate.get_submodule("conv").weight, spec, size, padding)
        assert kernel.shape[2:] == (size, size)
        torch.testing.assert_close(convolve(x, kernel, None, 2, padding), candidate(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("space", list(SearchSpace))
@pytest.mark.parametrize("transposed", [False, True])
def test_dead_taps_are_left_out_exactly(transposed: bool, space: str) -> None:
    for sides in [(1, 1), (2, 2), (2, 4), (6, 4), (8, 16), (1, 2, 8), (4, 2, 2)]:
        if not transposed and 1 in sides:
            continue
        mixed = MixedConv(len(sides), 2, 3, transposed, space).double()
        x = torch.randn(2, 2, *sides, dtype=torch.float64)
        whole, live = mixed.collapsed(), mixed.collapsed(sides)
        spans = live_taps(mixed.specs, sides, transposed)
        assert live[0].shape[2:] == tuple(last - first for first, last in spans)
        torch.testing.assert_close(mixed(x, live), mixed(x, whole), rtol=1e-12, atol=1e-12)
        # every tap left out gets no gradient, every tap kept (in the middle) gets some
        (gradient,) = torch.autograd.grad(mixed(x, whole).square().sum(), whole[0])
        kept = gradient[(slice(None), slice(None), *(slice(*span) for span in spans))]
        assert gradient.count_nonzero() == kept.count_nonzero() == kept.numel()


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = MixedConv(2, 3, 5, False, "wide").double()
    whole = mixed.collapsed()[0]
    gradients = torch.autograd.grad(whole.pow(2).sum(), [mixed.alpha, *mixed.weights])
    monkeypatch.setattr("genseg_monai.networks.mixing._BLOCK", 2 * whole[0].numel())
    assert torch.equal(mixed.collapsed()[0], whole)
    again = torch.autograd.grad(mixed.collapsed()[0].pow(2).sum(), [mixed.alpha, *mixed.weights])
    for a, b in zip(gradients, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_shared_kernel_gives_the_same_output() -> None:
    mixed = MixedConv(2, 2, 3, True)
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(mixed(x, mixed.collapsed()), mixed(x))


def test_names_in_the_state_dict() -> None:
    names = set(MixedConv(2, 2, 3, False).state_dict())
    assert names == {"alpha", "bias", "weights.0", "weights.1", "weights.2"}
    assert "bias" not in MixedConv(2, 2, 3, False, bias=False).state_dict()


def test_output_keeps_the_variance_of_the_input() -> None:
    for transposed in (False, True):
        for spec in candidates("paper", transposed):
            mixed = MixedConv(2, 64, 64, transposed)
            with torch.no_grad():
                mixed.alpha[list(mixed.specs).index(spec)] = 50.0
                variance = mixed(torch.randn(2, 64, 32, 32))[:, :, 4:-4, 4:-4].var()
            assert 1.7 < variance < 2.3  # He: twice the input's, which the activation halves


def test_unknown_space() -> None:
    with pytest.raises(UserError, match="wanted one of paper, wide, shared, got 'narrow'"):
        candidates("narrow", False)


@pytest.mark.parametrize("wrong", [{"kernel": 0}, {"padding": -1}, {"kind": "pool", "kernel": 4}, {"kind": "maxpool"}])
def test_impossible_candidates(wrong: dict) -> None:
    with pytest.raises(ValueError, match="wanted|not a valid"):
        CandidateSpec(**{"kind": "conv", "kernel": 3, "stride": 2, "padding": 1} | wrong)
