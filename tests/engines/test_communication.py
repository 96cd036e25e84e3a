"""Several processes are one: the same numbers as one process with the whole batch, the same decisions everywhere."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.losses import DiceCELoss
from torch import Tensor

from genseg_monai.engines import Communication, GenSegTrainer, LoopSettings, Phase, Shares, stages, take_state
from genseg_monai.engines.communication import begin, device_of_this_process
from genseg_monai.engines.shard_draws import by_shard
from genseg_monai.errors import UserError
from genseg_monai.handlers import (
    Checkpointer,
    Resume,
    StopOnDivergence,
    TrainingDiverged,
    of_this_process,
    scalars,
)
from genseg_monai.multilevel import alone
from tests.engines.processes import together
from tests.engines.tiny import EPOCHS, LENGTH, SHARES, differing, make_cases, make_trainer

WORLD = 2
ESTIMATORS = ("mixed", "finite_difference", "hybrid")
SEARCH_ALONE = Shares(warm_up=0, search=1, fine_tune=0, final_fit=0)


def build(estimator: str = "mixed", communication: Communication | None = None, **arguments: Any) -> GenSegTrainer:
    """Build a run of two shards: this process's, or in a process of its own both."""
    communication = communication or Communication.of_this_process()
    torch.manual_seed(0)
    given: dict[str, Any] = {
        # the mean over the items of a batch, as the loss of a batch has to be that is shared
        "loss": DiceCELoss(softmax=True, include_background=False),
        "cases": make_cases(8),
        "dtype": torch.float64,
        "sgd": True,
        "settings": LoopSettings(SHARES, outer_every=1, outer_after=0, estimator=estimator, search_fraction=0.4),
        "shards": WORLD,
        "shard": communication.rank if communication.world > 1 else None,
        "communication": communication,
    }
    return make_trainer(**given | arguments)


def end_of(trainer: GenSegTrainer) -> dict[str, Any]:
    """Return the state at the end of a run, and the losses of every iteration."""
    losses: list[dict[str, float]] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(scalars(e.state.output)))
    trainer.run()
    return {"state": take_state(trainer), "losses": losses}


def first_alpha(separately: bool) -> dict[str, Tensor]:
    """Return alpha after the first step of stage III, averaged where it must be or only at the end."""
    estimate = stages.hypergradient
    if separately:  # the mean of products in place of the product of means
        stages.hypergradient = lambda levels, *args, average, **kwargs: average(estimate(levels, *args, **kwargs))
    alpha: list[dict[str, Tensor]] = []
    trainer = build(settings=LoopSettings(SEARCH_ALONE, (), 1.0, 1, 0, search_fraction=0.4), max_epochs=1)
    trainer.players.arch_optimizer = torch.optim.SGD(trainer.generator.arch_parameters().values(), 1.0)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=1),
        lambda e: alpha.append({n: v.detach().clone() for n, v in e.generator.arch_parameters().items()}),
    )
    trainer.run()
    stages.hypergradient = estimate
    return alpha[0]


def stopped_and_resumed(folder: Path) -> dict[str, Any]:
    """Run as a whole; then again, asked to stop in the second process alone, and resumed."""
    given: dict[str, Any] = {"kind": "dropout", "dtype": torch.float32, "sgd": False}
    rank = Communication.of_this_process().rank
    whole = build(**given)
    torch.manual_seed(10 + rank)  # dropout masks differ from process to process
    whole.run()
    end = take_state(whole)

    stopped = build(**given, train_handlers=[Checkpointer(folder / "checkpoints", epochs=100)])
    torch.manual_seed(10 + rank)
    if rank == 1:
        stopped.add_event_handler(Events.ITERATION_COMPLETED(once=5), lambda e: os.kill(os.getpid(), signal.SIGTERM))
    try:
        stopped.run()
    except SystemExit as stop:
        code = stop.code
    resumed = build(**given, train_handlers=[Resume(folder / "checkpoints", wanted=True)])
    resumed.run()
    return {"whole": end, "resumed": take_state(resumed), "code": code, "at": stopped.state.iteration}


def refused(trainer: GenSegTrainer) -> str:
    """Return why a run ended."""
    try:
        trainer.run()
    except (UserError, TrainingDiverged) as problem:
        return str(problem)
    return ""


def diverging(folder: Path) -> GenSegTrainer:
    """Build a run whose images the second process loses in iteration 7."""
    trainer = build(train_handlers=[StopOnDivergence(folder)])
    if trainer.communication.rank == 1:
        trainer.add_event_handler(
            Events.ITERATION_STARTED(once=7), lambda e: e.state.batch["image"].fill_(float("nan"))
        )
    return trainer


def talking(folder: Path) -> dict[str, Any]:
    us = Communication.of_this_process()
    mine = torch.full((3,), float(us.rank))
    us.share([weights := mine.clone()])
    tree = us.average({"a": mine.clone(), "wide": torch.ones(1).expand(4) * us.rank, "b": mine.double()})
    return {
        "gathered": us.gather(us.rank),
        "any": us.any(us.rank == 1),
        "none": us.any(False),
        "shared": weights,
    } | tree


def everything(folder: Path) -> dict[str, Any]:
    """Do all that can be done by one pair of processes: to start some takes seconds."""
    rank = Communication.of_this_process().rank
    return {
        **{estimator: end_of(build(estimator)) for estimator in ESTIMATORS},
        "alpha": first_alpha(False),
        "wrong alpha": first_alpha(True),
        "batch_norm": end_of(build(kind="batch_norm", dtype=torch.float32, sgd=False)),
        "resumed": stopped_and_resumed(folder),
        "diverged": refused(diverging(folder)),
        "other data": refused(build(cases=make_cases(8, seed=rank))),
        "talk": talking(folder),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def ends(place: Path) -> list[dict[str, Any]]:
    """What each of two processes has done."""
    found = together(everything, place)
    assert isinstance(found[0], dict), found
    return found


# --- the same numbers


@pytest.mark.parametrize("what", [*ESTIMATORS, "batch_norm"])
def test_processes_hold_the_same_to_the_bit(ends, what):
    first, second = (end[what] for end in ends)
    assert differing(first, second) == []
    assert len(first["state"]["random_all"]) == WORLD
    assert ("running_mean" in "".join(first["state"]["network"])) == (what == "batch_norm")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_two_processes_are_one_with_the_whole_batch(ends, estimator):
    """All six phases, a step of alpha in each iteration of the search, float64, plain gradient descent."""
    alone, shared = end_of(build(estimator)), ends[0][estimator]
    for name in ("network", "generator", "discriminator", "trained"):
        torch.testing.assert_close(shared["state"][name], alone["state"][name], rtol=1e-8, atol=1e-10)
    assert [loss.keys() for loss in shared["losses"]] == [loss.keys() for loss in alone["losses"]]
    for found, wanted in zip(shared["losses"], alone["losses"], strict=True):
        assert found == pytest.approx(wanted, rel=1e-7)
    assert differing(shared["state"]["loader"], alone["state"]["loader"]) == []
    assert differing(shared["state"]["random"], alone["state"]["random"]) == []


def test_the_mean_of_products_is_not_the_product_of_means(ends):
    """Averages left out within the hypergradient would be noticed."""
    wanted, right, wrong = first_alpha(False), ends[0]["alpha"], ends[0]["wrong alpha"]
    torch.testing.assert_close(right, wanted, rtol=1e-9, atol=1e-14)
    start = {name: value.detach() for name, value in build().generator.arch_parameters().items()}
    moved = max(float((wanted[name] - start[name]).abs().max()) for name in wanted)
    missed = max(float((wrong[name] - wanted[name]).abs().max()) for name in wanted)
    assert missed > 1e-3 * moved > 0


# --- the same decisions


def test_one_asked_to_stop_stops_all_and_they_resume_to_the_bit(ends, place):
    for end in (end["resumed"] for end in ends):
        assert (end["code"], end["at"] in (5, 6)) == (128 + signal.SIGTERM, True)
        assert differing(end["whole"], end["resumed"]) == []
    assert len(list((place / "checkpoints").iterdir())) == 1, "more than one process wrote"


def test_a_checkpoint_of_another_number_of_processes_is_refused(ends, place):
    trainer = build(kind="dropout", dtype=torch.float32, sgd=False)
    trainer.add_event_handler(Events.STARTED, Resume(place / "checkpoints", wanted=True))
    with pytest.raises(UserError, match=r"made by 2 processes, got 1: resume with --nproc_per_node=2"):
        trainer.run()


def test_a_loss_that_explodes_in_one_ends_all(ends):
    assert ends[0]["diverged"] == ends[1]["diverged"]
    assert "nan at iteration 7" in ends[0]["diverged"]


def test_other_data_in_one_process_are_refused_by_all(ends):
    for end in ends:
        assert "data set: wanted the training cases the same in all 2 processes, process 1 has" in end["other data"]


def test_what_they_tell_each_other(ends):
    for told in (end["talk"] for end in ends):
        assert (told["gathered"], told["any"], told["none"]) == ([0, 1], True, False)
        assert told["shared"].tolist() == [0, 0, 0]
        assert told["a"].tolist() == [0.5, 0.5, 0.5]
        assert told["wide"].tolist() == [0.5, 0.5, 0.5, 0.5]
        assert told["b"].dtype == torch.float64


def dying(folder: Path) -> None:
    """Vanish in iteration 4, as a process does that the system has killed."""
    trainer = build()
    if trainer.communication.rank == 1:
        trainer.add_event_handler(Events.ITERATION_STARTED(once=4), lambda e: os._exit(9))
    trainer.run()


def test_a_process_that_dies_ends_the_others_with_a_reason(tmp_path):
    (code, said), (other, _) = together(dying, tmp_path, seconds=60)
    assert (code, other) == (1, 9)
    assert "process 0 of 2: lost another process, which says above why it ended" in said


# --- one process


def test_a_process_of_its_own_has_nobody_to_tell():
    us = Communication()
    assert us.average is alone
    begin()
    assert not torch.distributed.is_initialized()
    assert device_of_this_process().type in ("cpu", "cuda")
    assert (us.rank, us.world, us.writes) == (0, 1, True)


@pytest.mark.parametrize(("rank", "world"), [(1, 1), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world_is_refused(rank, world):
    with pytest.raises(ValueError, match="wanted a rank below the number of processes"):
        Communication(rank, world)


def test_a_loader_of_other_shards_is_refused():
    with pytest.raises(ValueError, match="wanted a loader of shard 0 of 2, got None of 1"):
        make_trainer(communication=Communication(0, 2))


def test_an_estimator_that_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match="estimator: wanted one that several processes can share, got unrolled"):
        build("unrolled", Communication(0, 2))


def test_handlers_that_write_are_those_of_the_first_process():
    handlers = ["writer", decides := StopOnDivergence("folder")]
    assert of_this_process(handlers, Communication(0, 2)) == handlers
    assert of_this_process(handlers, Communication(1, 2)) == [decides]


def test_draws_of_one_shard_are_those_of_before():
    """A run of one process is what it was before there were shards."""
    trainer = make_trainer()
    images = torch.rand(2, 1, 4, 4)
    noise = lambda images, random: (images + torch.rand(images.shape, generator=random),)  # noqa: E731
    direct = noise(images, torch.Generator().manual_seed(3))[0]
    assert torch.equal(by_shard(noise, (images,), torch.Generator().manual_seed(3), trainer.loader)[0], direct)


def test_the_lengths_of_this_file_fit_together():
    assert EPOCHS * LENGTH == 24
    assert build().schedule.steps[Phase.SEARCH] == 4
