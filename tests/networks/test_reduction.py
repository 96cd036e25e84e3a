"""Every search space in the loop: estimators, derived generators, resume; kernels as what the generator is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor

from genseg_monai.engines import GenSegTrainer, LoopSettings, Shares, load_state, stages, take_state
from genseg_monai.engines.state import load_file, save_file
from genseg_monai.errors import UserError
from genseg_monai.multilevel import ThreeLevels, hypergradient
from genseg_monai.multilevel.tree import Tree
from genseg_monai.networks.candidates import SearchSpace
from genseg_monai.networks.generator import DiscreteGenerator, SearchableGenerator
from genseg_monai.networks.reduction import blocks_of, draw, reduce_all
from tests.engines import tiny
from tests.engines.tiny import differing, frozen_state, make_trainer

SEARCH_ALONE = Shares(warm_up=0, search=1, fine_tune=0, final_fit=0)


def searched(monkeypatch: pytest.MonkeyPatch, space: str, depth: int = 2) -> None:
    """Let the trainers of a test search another space."""
    monkeypatch.setattr(
        tiny,
        "SearchableGenerator",
        lambda *arguments, **named: SearchableGenerator(*arguments, **{**named, "space": space, "depth": depth}),
    )


@pytest.mark.parametrize("space", list(SearchSpace))
@pytest.mark.parametrize(("dims", "size"), [(2, (16, 8)), (3, (8, 8, 8))])
def test_the_blocks_make_the_kernels_that_draw_the_images(dims: int, size: tuple[int, ...], space: str) -> None:
    generator = SearchableGenerator(dims, 2, 1, size, base_width=2, space=space)
    masks, blocks = torch.rand(1, 2, *size), blocks_of(generator)
    assert {name for block in blocks for name in block.names} == set(generator.weight_parameters())
    kappa = reduce_all(blocks, generator.weight_parameters(), generator.arch_parameters())
    assert torch.equal(draw(generator, masks, kappa), generator(masks))


def flat(tree: Tree) -> Tensor:
    return torch.cat([value.detach().reshape(-1) for value in tree.values()])


@pytest.mark.parametrize(
    ("estimator", "tolerance"),
    [("mixed", 1e-9), ("hybrid", 1e-2), ("finite_difference", 1e-2), ("one_sided", 1e-2), ("direct", None)],
)
@pytest.mark.parametrize("dims", [2, 3])
def test_the_estimators_in_the_shared_space(
    monkeypatch: pytest.MonkeyPatch, dims: int, estimator: str, tolerance: float | None
) -> None:
    """What stage III takes from stages I and II, kernels and graphs, against autograd through both inner steps."""
    searched(monkeypatch, "shared")
    errors: list[float] = []

    def compare(levels: ThreeLevels, *settings: Any, **named: Any) -> Tree:
        wanted = flat(hypergradient(replace(levels, synthetic=None, shared=None), "unrolled"))
        found = hypergradient(levels, *settings, **named)
        errors.append(float((flat(found) - wanted).norm() / wanted.norm()))
        return found

    monkeypatch.setattr(stages, "hypergradient", compare)
    settings = LoopSettings(
        SEARCH_ALONE, (), outer_every=1, outer_after=1, search_fraction=0.25, estimator=estimator, epsilon=2e-5
    )
    trainer = make_trainer(dims=dims, dtype=torch.float64, max_epochs=1, epoch_length=3, settings=settings)
    trainer.run()
    assert len(errors) == 2
    assert max(errors) < (2.0 if tolerance is None else tolerance)


def test_a_whole_run_in_the_shared_space_and_its_resume(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    searched(monkeypatch, "shared")

    def run(**arguments: Any) -> GenSegTrainer:
        trainer = make_trainer(**arguments)
        torch.manual_seed(1)
        return trainer

    whole = run()
    before = {name: value.clone() for name, value in whole.generator.arch_parameters().items()}
    searching: list[dict[str, Tensor]] = []
    whole.add_event_handler(
        Events.ITERATION_COMPLETED(once=5),
        lambda e: searching.append({n: v.detach().clone() for n, v in e.generator.arch_parameters().items()}),
    )
    whole.add_event_handler(Events.ITERATION_COMPLETED(once=5), lambda e: save_file(take_state(e), tmp_path / "5.pt"))
    whole.add_event_handler(Events.ITERATION_COMPLETED(once=9), lambda e: save_file(take_state(e), tmp_path / "9.pt"))
    whole.run()
    assert all((searching[0][name] != value).any() for name, value in before.items())
    assert isinstance(whole.generator, DiscreteGenerator)
    assert whole.genotype.space == SearchSpace.SHARED
    for iteration in (5, 9):
        again = run()
        again.add_event_handler(Events.STARTED, lambda e, n=iteration: load_state(e, load_file(tmp_path / f"{n}.pt")))
        again.run()
        assert differing(frozen_state(again), frozen_state(whole)) == []

    searched(monkeypatch, "paper")
    with pytest.raises(UserError, match="checkpoint: its 'generator' does not fit this configuration"):
        load_state(make_trainer(), load_file(tmp_path / "5.pt"))


def test_no_candidate_is_preferred_where_none_differs_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam makes steps of the smallest gradient, and so of rounding: equal has to mean equal to the last bit."""
    searched(monkeypatch, "shared", depth=4)
    trainer = make_trainer(settings=LoopSettings(SEARCH_ALONE, (), outer_every=1, outer_after=0), max_epochs=2)
    trainer.run()
    alpha = {name.removesuffix(".conv.alpha"): value for name, value in trainer.generator.arch_parameters().items()}
    different = [len(value.unique()) for value in alpha.values()]
    # cells of 2 voxels a side (or that write 2) meet 2 taps, and those of 4 meet 6, which kernels 6 and 8 both have
    assert different == [3, 3, 2, 1, 1, 2, 3, 3]
    genotype = trainer.generator.derive()
    assert (genotype.encoder[3], genotype.decoder[0]) == ("conv_4", "conv_4")
