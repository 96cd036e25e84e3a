"""Who moves in each stage, what holds still, and that the hypergradient is that of the step really taken."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn

from genseg_monai.engines import GenSegTrainer, LoopSettings, Phase, Shares, StageEvents, stages
from genseg_monai.engines.stages import frozen, segmenter_step
from genseg_monai.losses import SegmentationLoss
from genseg_monai.multilevel import ThreeLevels, hypergradient
from genseg_monai.multilevel.tree import Tree, detached, gradient
from tests.engines.tiny import differing, frozen_state, make_network, make_trainer

SEARCH_ALONE = Shares(warm_up=0, search=1, fine_tune=0, final_fit=0)
ONE, TWO, THREE = (
    StageEvents.GENERATOR_STEP_COMPLETED,
    StageEvents.SEGMENTER_STEP_COMPLETED,
    StageEvents.OUTER_STEP_COMPLETED,
)


def owners(trainer: GenSegTrainer) -> dict[str, dict[str, Any]]:
    """Return every tensor of the run by the level that owns it, and the optimisers' memories."""
    players = trainer.players
    state = frozen_state(trainer)
    alpha = players.generator.arch_parameters() if players.genotype is None else {}
    phi = dict(players.network.named_parameters())
    return {
        "alpha": {n: v for n, v in state["generator"].items() if n in alpha},
        "theta": {n: v for n, v in state["generator"].items() if n not in alpha},
        "psi": state["discriminator"],
        "phi": {n: v for n, v in state["network"].items() if n in phi},
        "phi buffers": {n: v for n, v in state["network"].items() if n not in phi},
        **{name: state[f"{name}optimizer"] for name in ("", "arch_", "generator_", "discriminator_")},
    }


def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Return the levels (not the optimisers) that differ, after checking that the optimisers agree with that."""
    found = {name for name in before if differing(before[name], after[name])}
    owner = {"": "phi", "arch_": "alpha", "generator_": "theta", "discriminator_": "psi"}
    assert {owner[name] for name in found & owner.keys()} == found - owner.keys() - {"phi buffers"}
    return found - owner.keys()


def watch(trainer: GenSegTrainer, *events: Any) -> list[tuple[Phase, Any, dict[str, Any]]]:
    """Collect (phase, event, owners) at the start of every iteration and at ``events``."""
    seen: list[tuple[Phase, Any, dict[str, Any]]] = []
    for event in (Events.ITERATION_STARTED, *events):
        trainer.add_event_handler(event, lambda e, name: seen.append((e.phase, name, owners(e))), event)
    return seen


@pytest.mark.parametrize(
    ("dims", "kind", "synthesis"),
    [
        *((2, kind, "masks") for kind in ("plain", "batch_norm", "dropout")),
        (3, "plain", "masks"),
        (2, "plain", "scenes"),
        (3, "plain", "scenes"),
    ],
)
def test_each_stage_moves_its_own_level_and_nothing_else(dims, kind, synthesis):
    settings = LoopSettings(SEARCH_ALONE, (), outer_every=2, outer_after=1, synthesis=synthesis)
    trainer = make_trainer(dims=dims, kind=kind, max_epochs=1, settings=settings)
    seen = watch(trainer, ONE, TWO, THREE)
    trainer.run()
    fitted = {"phi", "phi buffers"} if kind == "batch_norm" else {"phi"}
    wanted = {ONE: {"theta", "psi"}, TWO: fitted, THREE: {"alpha"}}
    stages_seen = []
    for (_, _, before), (_, name, after) in pairwise(seen):
        stages_seen.append(name)
        assert moved(before, after) == wanted.get(name, set()), name
    start = Events.ITERATION_STARTED
    assert stages_seen == [ONE, TWO, start, ONE, TWO, THREE, start, ONE, TWO, start, ONE, TWO, THREE]


@pytest.mark.parametrize("kind", ["plain", "batch_norm"])
def test_each_phase_moves_its_own_levels(kind):
    trainer = make_trainer(kind=kind)
    seen = watch(trainer, Events.ITERATION_COMPLETED)
    trainer.run()
    fitted = {"phi", "phi buffers"} if kind == "batch_norm" else {"phi"}
    wanted = {Phase.WARM_UP: {"theta", "psi"}, Phase.FINE_TUNE: {"theta", "psi"}, Phase.FINAL_FIT: fitted}
    for (phase, name, before), (_, _, after) in pairwise(seen):
        if name is Events.ITERATION_STARTED and phase is not Phase.SEARCH:
            assert moved(before, after) == wanted.get(phase, set()), phase


def test_every_row_of_alpha_moves():
    trainer = make_trainer(settings=LoopSettings(SEARCH_ALONE, (), outer_every=1, outer_after=0))
    before = owners(trainer)["alpha"]
    trainer.run()
    # the search is over, its generator is what the derived one was made from
    assert trainer.genotype is None
    after = owners(trainer)["alpha"]
    assert all((before[name] != after[name]).all() for name in before)
    assert len(after) == 4  # two encoder and two decoder cells


def test_no_row_of_alpha_moves_when_the_synthetic_pairs_weigh_nothing():
    trainer = make_trainer(settings=LoopSettings(SEARCH_ALONE, (), gamma=0.0, outer_every=1, outer_after=0))
    norms: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: norms.append(float(e.state.output[0]["hypergradient_norm"]))
    )
    before = owners(trainer)["alpha"]
    trainer.run()
    assert differing(before, owners(trainer)["alpha"]) == []
    assert norms == [0.0] * trainer.state.iteration


def test_real_and_synthetic_pairs_are_normalised_separately():
    network = make_network(kind="batch_norm").double()
    convolution, norm = network[0], network[1]
    real, synthetic = torch.rand(2, 1, 8, 8).double(), 5 + torch.rand(3, 1, 8, 8).double()
    masks = torch.eye(2, dtype=torch.float64)[torch.randint(0, 2, (3, 8, 8))].movedim(-1, 1)
    loss, gamma, momentum = SegmentationLoss(), 0.5, norm.momentum

    with torch.no_grad():
        wanted = norm.running_mean.clone()
        for images in (real, synthetic):
            wanted = (1 - momentum) * wanted + momentum * convolution(images).mean((0, 2, 3))
    reference = torch.nn.Sequential(*network).requires_grad_(True)
    expected = torch.autograd.grad(
        loss(reference(real), masks[:2]) + gamma * loss(reference(synthetic), masks), list(reference.parameters())
    )
    norm.reset_running_stats()

    before = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    segmenter_step(network, loss, optimizer, real, masks[:2], (synthetic, masks), gamma=gamma)
    assert norm.num_batches_tracked == 2
    torch.testing.assert_close(norm.running_mean, wanted)
    for old, new, slope in zip(before, network.parameters(), expected, strict=True):
        torch.testing.assert_close(new, old - slope)


def record_levels(
    monkeypatch: pytest.MonkeyPatch, synthesis: str = "masks", **arguments: Any
) -> tuple[GenSegTrainer, ThreeLevels]:
    """Run two iterations of a search in float64 and return what stage III of the last was given."""
    caught: list[ThreeLevels] = []

    def recorder(levels: ThreeLevels, *settings: Any, **named: Any) -> Tree:
        held = {name: value.detach().clone() for name, value in levels.outer.items()}  # alpha is about to move
        caught.append(replace(levels, outer=held, synthetic=None, shared=None))
        return hypergradient(levels, *settings, **named)

    monkeypatch.setattr(stages, "hypergradient", recorder)
    trainer = make_trainer(
        dtype=torch.float64,
        max_epochs=1,
        epoch_length=2,
        # with these cases, unmoved, no difference step crosses a kink of LeakyReLU or L1
        settings=LoopSettings(
            SEARCH_ALONE, (), outer_every=1, outer_after=1, search_fraction=0.25, synthesis=synthesis, warp_real=False
        ),
        **arguments,
    )
    trainer.run()
    (levels,) = caught
    return trainer, levels


def flat(tree: Tree) -> Tensor:
    return torch.cat([value.detach().reshape(-1) for value in tree.values()])


def again(trainer: GenSegTrainer, levels: ThreeLevels, estimator: str, **settings: Any) -> Tensor:
    """Estimate the hypergradient of the same iteration once more."""
    with frozen(trainer.players.discriminator.parameters()):
        return flat(hypergradient(levels, estimator, **settings))


@pytest.mark.parametrize(
    ("kind", "synthesis"), [("plain", "masks"), ("batch_norm", "masks"), ("dropout", "masks"), ("plain", "scenes")]
)
@pytest.mark.parametrize("dims", [2, 3])
def test_the_estimators_agree_on_the_real_steps(monkeypatch, dims, kind, synthesis):
    trainer, levels = record_levels(monkeypatch, synthesis, dims=dims, kind=kind)
    wanted = again(trainer, levels, "unrolled")
    assert wanted.norm() > 0
    torch.testing.assert_close(again(trainer, levels, "mixed"), wanted, rtol=1e-8, atol=1e-12 * float(wanted.norm()))
    errors = [
        float((again(trainer, levels, "finite_difference", epsilon=eps) - wanted).norm() / wanted.norm())
        for eps in (4e-4, 2e-4)
    ]
    assert errors[1] < 1e-3
    assert errors[1] < 0.3 * errors[0]  # O(eps^2)
    one_sided = again(trainer, levels, "one_sided", epsilon=2e-5)
    assert float((one_sided - wanted).norm() / wanted.norm()) < 1e-2


def test_the_batch_of_stage_two_serves_stage_three_again(monkeypatch):
    given: list[tuple[Tree, Tree]] = []

    def both(levels: ThreeLevels, *settings: Any, **named: Any) -> Tree:
        fresh = hypergradient(replace(levels, synthetic=None, shared=None), *settings, **named)
        given.append((fresh, hypergradient(levels, *settings, **named)))
        return fresh

    monkeypatch.setattr(stages, "hypergradient", both)
    trainer = make_trainer(max_epochs=1, settings=LoopSettings(SEARCH_ALONE, (), outer_every=1, outer_after=1))
    trainer.run()
    assert len(given) == 3
    for fresh, shared in given:
        torch.testing.assert_close(flat(shared), flat(fresh))


@pytest.mark.parametrize(("kind", "synthesis"), [("plain", "masks"), ("batch_norm", "masks"), ("plain", "scenes")])
def test_the_levels_describe_the_steps_taken(monkeypatch, kind, synthesis):
    """With gradient descent the points reached are those of the formula, psi being the same in both."""
    _, levels = record_levels(monkeypatch, synthesis, kind=kind, sgd=True)
    theta = dict(levels.generator.reached)
    images, masks = (tensor.detach() for tensor in levels.synthesise(theta, levels.outer))
    losses = {
        "generator": lambda theta: levels.generator_loss(theta, levels.outer),
        "segmenter": lambda phi: levels.real_loss(phi) + levels.gamma * levels.synthetic_loss(phi, images, masks),
    }
    for name, loss in losses.items():
        step = getattr(levels, name)
        point = detached(step.point, requires_grad=True)
        slope = gradient(loss(point), point)
        for key, reached in step.reached.items():
            torch.testing.assert_close(reached.detach(), point[key].detach() - step.rate * slope[key])
        assert any(not torch.equal(reached, point[key]) for key, reached in step.reached.items())


@pytest.mark.parametrize("estimator", ["mixed", "unrolled"])
def test_a_gradient_reaches_every_weight_of_the_generator_through_the_segmenter(monkeypatch, estimator):
    _, levels = record_levels(monkeypatch)
    alpha = detached(levels.outer)
    through = replace(
        levels,
        outer=detached(levels.generator.reached),
        generator=replace(levels.generator, point=alpha, reached=alpha, preconditioner=None),
        synthesise=lambda held, theta: levels.synthesise(theta, held),
        generator_loss=lambda held, theta: torch.zeros((), dtype=torch.float64),
    )
    found = hypergradient(through, estimator)
    assert {name for name, value in found.items() if float(value.abs().max()) == 0} == set()


def test_both_evaluations_of_a_pair_see_the_same_dropout_masks(monkeypatch):
    trainer, levels = record_levels(monkeypatch, kind="dropout")
    (images, masks), phi = levels.synthesise(dict(levels.generator.reached), levels.outer), levels.segmenter.reached
    first = levels.synthetic_loss(dict(phi), images, masks)
    torch.rand(3)
    assert torch.equal(levels.synthetic_loss(dict(phi), images, masks), first)
    with torch.no_grad():
        draws = {float(trainer.loss_function(trainer.network(images), masks)) for _ in range(3)}
    assert len(draws) == 3, "this network has no dropout"


def test_stage_three_leaves_the_random_states_alone():
    """So that a run with it and one without it draw the same batches, warps and dropout masks."""

    def states(outer_every: int) -> list[Any]:
        trainer = make_trainer(
            kind="dropout",
            max_epochs=1,
            search_cases=[4, 5],
            settings=LoopSettings(SEARCH_ALONE, (), outer_every=outer_every, outer_after=1),
        )
        trainer.run()
        state = frozen_state(trainer)
        return [state[name] for name in ("random", "random_all", "loader", "train_cases", "network")]

    assert differing(states(0)[:-1], states(1)[:-1]) == []
    assert differing(states(1), states(1)) == []


def test_frozen_thaws_what_it_froze_and_nothing_else():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)

    def fail() -> None:
        with frozen(layer.parameters()):
            assert not layer.weight.requires_grad
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad
