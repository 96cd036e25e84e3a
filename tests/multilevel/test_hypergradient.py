"""The hypergradient: closed form, full unroll, scale, order in epsilon, what moves and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from genseg_monai.multilevel import Estimator, ThreeLevels, hypergradient
from tests.multilevel.problems import convolutional, quadratic, stepped

EXACT = [Estimator.UNROLLED, Estimator.MIXED]
WHOLE = [*EXACT, Estimator.FINITE_DIFFERENCE, Estimator.ONE_SIDED]
TOLERANCE = {
    Estimator.UNROLLED: 1e-12,
    Estimator.MIXED: 1e-12,
    Estimator.FINITE_DIFFERENCE: 1e-9,
    Estimator.ONE_SIDED: 1e-9,
}


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("estimator", WHOLE)
@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_quadratic_problem_has_the_closed_form_answer(estimator, gamma):
    levels, answer = quadratic(gamma)
    assert relative(hypergradient(levels, estimator)["a"], answer) < TOLERANCE[estimator]


def test_direct_is_the_closed_form_without_the_path_through_theta():
    levels, answer = quadratic()
    frozen = replace(levels, generator=replace(levels.generator, rate=0.0))
    assert relative(hypergradient(levels, "direct")["a"], hypergradient(frozen, "mixed")["a"]) < 1e-12
    assert relative(hypergradient(levels, "direct")["a"], answer) > 1e-3


def test_brute_force_differences_of_the_whole_chain_agree():
    """Move alpha itself, take both inner steps again, and look at the validation loss."""
    levels, answer = quadratic()

    def value(alpha: Tensor) -> Tensor:
        moved = stepped(replace(levels, outer={"a": alpha}))
        return moved.search_loss(moved.segmenter.reached)

    alpha, step = levels.outer["a"], 1e-5
    differences = [
        (value(alpha + step * axis) - value(alpha - step * axis)) / (2 * step)
        for axis in torch.eye(3, dtype=alpha.dtype)
    ]
    assert relative(torch.stack(differences), answer) < 1e-8


@pytest.mark.parametrize(
    ("estimator", "tolerance"), [("mixed", 1e-12), ("finite_difference", 1e-3), ("one_sided", 0.1)]
)
def test_small_networks_agree_with_the_full_unroll(estimator, tolerance):
    levels = convolutional()
    reference = hypergradient(levels, "unrolled")["alpha"]
    assert relative(hypergradient(levels, estimator)["alpha"], reference) < tolerance


@pytest.mark.parametrize("estimator", list(Estimator))
def test_doubling_the_validation_loss_doubles_the_hypergradient(estimator):
    once, twice = (hypergradient(quadratic(loss_scale=factor)[0], estimator)["a"] for factor in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once, rtol=1e-8, atol=0.0)


@pytest.mark.parametrize(("estimator", "order"), [("finite_difference", 2), ("one_sided", 1)])
def test_halving_epsilon_divides_the_error_by_two_to_the_order(estimator, order):
    levels = convolutional()
    reference = hypergradient(levels, "mixed")["alpha"]
    lengths = (0.04, 0.02, 0.01) if order == 2 else (0.004, 0.002, 0.001)
    errors = [relative(hypergradient(levels, estimator, epsilon=eps)["alpha"], reference) for eps in lengths]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert coarse / fine == pytest.approx(2**order, rel=0.15)


def test_kinks_do_not_disturb_the_exact_form():
    levels = convolutional(smooth=False)
    assert relative(hypergradient(levels, "mixed")["alpha"], hypergradient(levels, "unrolled")["alpha"]) < 1e-10


@pytest.mark.parametrize(
    "estimator", [Estimator.MIXED, Estimator.FINITE_DIFFERENCE, Estimator.ONE_SIDED, Estimator.DIRECT]
)
def test_a_zero_cotangent_leaves_alpha_alone(estimator):
    levels = replace(convolutional(), gamma=0.0)
    assert not hypergradient(levels, estimator)["alpha"].any()


@pytest.mark.parametrize("estimator", list(Estimator))
def test_no_tensor_of_the_levels_moves(estimator):
    levels = convolutional()

    def snapshot(levels: ThreeLevels) -> list[Tensor]:
        trees = (
            levels.outer,
            levels.generator.point,
            levels.generator.reached,
            levels.segmenter.point,
            levels.segmenter.reached,
        )
        return [value.clone() for tree in trees for value in tree.values()]

    before = snapshot(levels)
    hypergradient(levels, estimator)
    assert all(torch.equal(left, right) for left, right in zip(before, snapshot(levels), strict=True))


def test_a_synthetic_batch_already_made_gives_the_same_answer():
    levels = convolutional()
    theta = {n: v.clone().requires_grad_() for n, v in levels.generator.reached.items()}
    alpha = {n: v.clone().requires_grad_() for n, v in levels.outer.items()}
    ready = replace(levels, synthetic=levels.synthesise(theta, alpha), shared=(theta, alpha))
    torch.testing.assert_close(hypergradient(ready, "mixed")["alpha"], hypergradient(levels, "mixed")["alpha"])


def test_an_outer_variable_of_the_masks_gets_its_gradient():
    """A warp range acts on the target A(M) as well as on the images."""
    levels, _ = quadratic()
    outer = {"a": levels.outer["a"], "m": torch.tensor([0.4], dtype=torch.float64)}
    wider = replace(
        levels,
        outer=outer,
        synthesise=lambda theta, o: (levels.synthesise(theta, o)[0] * o["m"], o["m"].square()),
        synthetic_loss=lambda phi, x, m: levels.synthetic_loss(phi, x, m) + m.sum() * phi["p"].square().sum(),
    )
    for name in outer:
        assert relative(hypergradient(wider, "mixed")[name], hypergradient(wider, "unrolled")[name]) < 1e-12


def test_unknown_estimators_are_named():
    with pytest.raises(ValueError, match="newton"):
        hypergradient(quadratic()[0], "newton")
