"""One run: its phases, its events in MONAI's order, which cases move what, and MONAI's own handlers on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointSaver, MeanDice, StatsHandler, ValidationHandler, from_engine
from monai.transforms import AsDiscreted

from genseg_monai.data.resident import ResidentCases
from genseg_monai.engines import GenSegTrainer, LoopSettings, Phase, Shares, StageEvents, iterations
from genseg_monai.errors import UserError
from tests.engines.tiny import EPOCHS, LENGTH, SHARES, differing, frozen_state, make_cases, make_trainer

MONAI_ORDER = [
    IterationEvents.FORWARD_COMPLETED,
    IterationEvents.LOSS_COMPLETED,
    IterationEvents.BACKWARD_COMPLETED,
    IterationEvents.MODEL_COMPLETED,
]
SEARCH_AND_FIT = Shares(warm_up=1, search=1, fine_tune=1, final_fit=1)


def record(trainer: GenSegTrainer, *events: Any) -> list[tuple[Any, Phase | None]]:
    seen: list[tuple[Any, Phase | None]] = []
    for event in events:
        trainer.add_event_handler(event, lambda e, name: seen.append((name, e.phase)), event)
    return seen


def test_the_phases_come_in_order_and_each_starts_and_ends_once():
    trainer = make_trainer()
    seen = record(trainer, StageEvents.PHASE_STARTED, StageEvents.PHASE_COMPLETED, StageEvents.DERIVED)
    trainer.run()
    expected = []
    for phase in Phase:
        if phase is Phase.FINE_TUNE:
            expected.append((StageEvents.DERIVED, phase))
        expected += [(StageEvents.PHASE_STARTED, phase), (StageEvents.PHASE_COMPLETED, phase)]
    assert seen == expected
    assert trainer.phase is None
    assert trainer.state.iteration == EPOCHS * LENGTH


@pytest.mark.parametrize("kind", ["plain", "dropout"])
def test_the_events_of_an_iteration_come_once_and_in_the_order_of_monai(kind):
    trainer = make_trainer(kind=kind)
    seen = record(
        trainer, Events.ITERATION_STARTED, *MONAI_ORDER, Events.ITERATION_COMPLETED, StageEvents.PHASE_STARTED
    )
    trainer.run()
    names = [name for name, _ in seen if name is not StageEvents.PHASE_STARTED]
    assert names == [Events.ITERATION_STARTED, *MONAI_ORDER, Events.ITERATION_COMPLETED] * trainer.state.iteration


def test_the_stages_of_an_iteration_come_in_order():
    trainer = make_trainer(settings=LoopSettings(SHARES, outer_every=2, outer_after=1))
    seen = record(trainer, *list(StageEvents)[2:5])
    trainer.run()
    one, two, three = list(StageEvents)[2:5]
    in_phase = {phase: [name for name, p in seen if p is phase] for phase in Phase}
    assert in_phase[Phase.WARM_UP] == [one] * 2
    assert in_phase[Phase.SEARCH] == [one, two, one, two, three, one, two, one, two, three]
    assert in_phase[Phase.FINE_TUNE] == [one]
    assert in_phase[Phase.FINAL_FIT] == [two] * 3
    assert in_phase[Phase.PLAIN] == in_phase[Phase.AUGMENT] == [two] * 7


def test_the_output_names_losses_and_tensors():
    outputs: dict[Phase, dict[str, Any]] = {}
    trainer = make_trainer(decollate=False)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: outputs.setdefault(e.phase, e.state.output))
    trainer.run()
    assert set(outputs[Phase.WARM_UP]) == {
        *("image", "label", "synthetic", "loss", "generator_loss", "discriminator_loss"),
    }
    assert {"image", "label", "pred", "loss", "synthetic_loss", "generator_loss"} <= set(outputs[Phase.SEARCH])
    assert set(outputs[Phase.PLAIN]) == {"image", "label", "pred", "loss"}
    assert outputs[Phase.PLAIN]["image"].shape == (4, 1, 16, 16)
    assert outputs[Phase.FINAL_FIT]["pred"].shape == (2, 2, 16, 16)
    assert all(not value.requires_grad for output in outputs.values() for value in output.values())


# --- which cases move what


def marked_cases(count: int = 8) -> ResidentCases:
    """Case i is everywhere (i + 1) / 100, so that a batch tells which cases it holds."""
    cases = make_cases(count)
    cases.images = torch.full_like(cases.images, 0.01) * torch.arange(1, count + 1).view(-1, 1, 1, 1)
    return cases


def shown(trainer: GenSegTrainer, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[Phase, str], set[int]]:
    """Collect the cases that each stage of each phase sees."""
    seen: dict[tuple[Phase, str], set[int]] = {}

    def spy(name: str, find: Any) -> None:
        original = getattr(iterations, name)

        def wrapper(*args: Any, **named: Any) -> Any:
            images = find(args, named)
            numbers = {round(float(image.mean()) * 100) - 1 for image in images}
            seen.setdefault((trainer.phase, name), set()).update(numbers)
            return original(*args, **named)

        monkeypatch.setattr(iterations, name, wrapper)

    spy("generator_step", lambda args, named: args[5])
    spy("segmenter_step", lambda args, named: args[3])
    spy("architecture_step", lambda args, named: named["search"][0])
    return seen


def test_search_cases_move_alpha_alone_and_come_back_for_the_final_fit(monkeypatch):
    settings = LoopSettings(SEARCH_AND_FIT, ("plain",), outer_every=1, outer_after=1)
    trainer = make_trainer(cases=marked_cases(), settings=settings, max_epochs=20, augment=None, search_cases=[1, 6])
    seen = shown(trainer, monkeypatch)
    trainer.run()
    train, everyone = {0, 2, 3, 4, 5, 7}, set(range(8))
    assert seen[Phase.WARM_UP, "generator_step"] == train
    assert seen[Phase.SEARCH, "generator_step"] == train
    assert seen[Phase.SEARCH, "segmenter_step"] == train
    assert seen[Phase.SEARCH, "architecture_step"] == {1, 6}
    assert seen[Phase.FINE_TUNE, "generator_step"] == everyone
    assert seen[Phase.FINAL_FIT, "segmenter_step"] == everyone
    assert seen[Phase.PLAIN, "segmenter_step"] == everyone


def test_poisoned_search_cases_reach_no_weight_in_the_loop():
    cases = make_cases(8)
    cases.images[[1, 6]] = float("nan")
    settings = LoopSettings(Shares(1, 1, 0, 0), (), outer_every=0)
    trainer = make_trainer(cases=cases, settings=settings, search_cases=[1, 6])
    trainer.run()
    state = frozen_state(trainer)
    for name in ("network", "generator", "discriminator"):
        assert all(bool(value.isfinite().all()) for value in state[name].values()), name


def test_poisoned_validation_cases_reach_nothing():
    """MONAI validates between epochs on cases that are NaN; the run is the same as without it, to the bit."""

    def run(*, validated: bool) -> dict[str, Any]:
        handlers = []
        trainer = make_trainer(kind="batch_norm", train_handlers=handlers, max_epochs=EPOCHS)
        if validated:
            poison = torch.full((1, 16, 16), float("nan"))
            held_out = [{"image": poison, "label": torch.zeros(1, 16, 16)} for _ in range(2)]
            ValidationHandler(1, evaluator(trainer, held_out)).attach(trainer)
        trainer.run()
        return frozen_state(trainer)

    with_it, without = run(validated=True), run(validated=False)
    del with_it["random_all"], without["random_all"]  # the loader of the validation draws a seed
    assert differing(with_it, without) == []


@pytest.mark.parametrize(("count", "searched"), [(4, 1), (5, 1), (8, 2), (12, 3)])
def test_the_search_split_is_by_patient_and_works_from_four_cases(count, searched):
    cases = make_cases(count)
    trainer = make_trainer(cases=cases)
    assert len(trainer.search_cases) == searched
    assert sorted([*trainer.search_cases, *trainer.train_cases]) == list(range(count))

    twins = ResidentCases(cases.images, cases.labels, [f"patient {i // 2}" for i in range(count)])
    trainer = make_trainer(cases=twins)
    groups = [{twins.groups[i] for i in part} for part in (trainer.search_cases, trainer.train_cases)]
    assert groups[0]
    assert groups[1]
    assert not groups[0] & groups[1]


def test_too_few_cases_or_patients_say_so():
    with pytest.raises(UserError, match="training cases: wanted at least 4 .* got 3"):
        make_trainer(cases=make_cases(3))
    cases = make_cases(6)
    with pytest.raises(UserError, match="training cases: wanted at least 2 patients"):
        make_trainer(cases=ResidentCases(cases.images, cases.labels, ["one"] * 6))


@pytest.mark.parametrize("given", [[], [0, 1, 2, 3, 4, 5], [6], [-1]])
def test_search_cases_that_cannot_be_say_so(given):
    with pytest.raises(UserError, match="search_cases: wanted"):
        make_trainer(search_cases=given)


def test_without_a_search_every_case_trains_throughout():
    for settings in (LoopSettings(outer_every=0), LoopSettings(Shares(1, 0, 0, 1))):
        trainer = make_trainer(cases=make_cases(3), settings=settings)
        assert trainer.train_cases == [0, 1, 2]
        trainer.run()


# --- the comparison is fair


def test_baselines_get_the_same_updates_images_and_initial_weights(monkeypatch):
    trainer = make_trainer(settings=LoopSettings(SEARCH_AND_FIT, outer_every=1, outer_after=1), max_epochs=8)
    images: dict[Phase, list[int]] = {}
    begun: dict[Phase, Any] = {}
    original = iterations.segmenter_step

    def counted(network: Any, loss: Any, optimizer: Any, real: Any, masks: Any, synthetic: Any = None, **named: Any):
        begun.setdefault(trainer.phase, {n: v.clone() for n, v in network.state_dict().items()})
        images.setdefault(trainer.phase, []).append(len(real) + (0 if synthetic is None else len(synthetic[0])))
        return original(network, loss, optimizer, real, masks, synthetic, **named)

    monkeypatch.setattr(iterations, "segmenter_step", counted)
    trainer.run()
    own = images[Phase.SEARCH] + images[Phase.FINAL_FIT]
    assert images[Phase.PLAIN] == images[Phase.AUGMENT] == own
    assert differing(begun[Phase.SEARCH], begun[Phase.PLAIN]) == []
    assert differing(begun[Phase.SEARCH], begun[Phase.AUGMENT]) == []
    assert set(trainer.players.trained) == {Phase.PLAIN, Phase.AUGMENT}
    trained = [trainer.players.trained[Phase.PLAIN], trainer.players.trained[Phase.AUGMENT]]
    assert differing(*trained)
    assert all(differing(weights, begun[Phase.PLAIN]) for weights in trained)


def test_baselines_begin_with_weights_that_a_handler_loaded():
    loaded = {name: torch.full_like(v, 0.01) for name, v in make_trainer().network.state_dict().items()}
    trainer = make_trainer(settings=LoopSettings(Shares(0, 0, 0, 1), ("plain",)), max_epochs=1)
    trainer.add_event_handler(Events.STARTED, lambda e: e.network.load_state_dict(loaded))
    first: dict[Phase, Any] = {}
    trainer.add_event_handler(
        Events.ITERATION_STARTED,
        lambda e: first.setdefault(e.phase, {n: v.clone() for n, v in e.players.segmenter.state_dict().items()}),
    )
    trainer.run()
    assert differing(first[Phase.FINAL_FIT], loaded) == []
    assert differing(first[Phase.PLAIN], loaded) == []


def test_a_longer_run_is_planned_before_it_starts():
    trainer = make_trainer()
    trainer.set_epochs(2 * EPOCHS)
    trainer.run()
    assert trainer.state.iteration == 2 * EPOCHS * LENGTH == trainer.schedule.total


# --- MONAI's handlers


def evaluator(trainer: GenSegTrainer, data: list[dict[str, Any]], **named: Any) -> SupervisedEvaluator:
    return SupervisedEvaluator("cpu", DataLoader(Dataset(data), batch_size=2), trainer.network, **named)


def test_handlers_of_monai(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trainer = make_trainer(max_epochs=EPOCHS)
    cases = trainer.loader.cases
    discrete = AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=2)
    validator = evaluator(
        trainer,
        [{"image": image, "label": label} for image, label in zip(cases.images, cases.labels, strict=True)],
        postprocessing=discrete,
        key_val_metric={"dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))},
    )
    ValidationHandler(2, validator).attach(trainer)
    StatsHandler(output_transform=from_engine(["loss"], first=True)).attach(trainer)
    CheckpointSaver(str(tmp_path), {"network": trainer.network, "trainer": trainer}, save_interval=3).attach(trainer)
    trainer.run()
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "Loss: " in line]) == trainer.state.iteration
    assert 0 <= validator.state.metrics["dice"] <= 1
    assert validator.state.epoch == EPOCHS
    saved = sorted(tmp_path.glob("*.pt"))
    assert len(saved) == EPOCHS // 3
    assert set(torch.load(saved[-1], weights_only=True)) == {"network", "trainer"}


def test_training_metric_postprocessing_and_decollation():
    perfect: list[float] = []
    trainer = make_trainer(
        kind="batch_norm",
        postprocessing=AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=2),
        key_train_metric={"dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))},
    )
    sizes: dict[Phase, set[int]] = {}

    def look(engine: Any) -> None:
        assert isinstance(engine.state.output, list)
        sizes.setdefault(engine.phase, set()).add(len(engine.state.output))
        for item in engine.state.output:
            assert item["pred"].shape == item["label"].shape == (2, 16, 16)
            assert item["image"].shape == (1, 16, 16)
            assert isinstance(item["loss"], float)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e: perfect.append(e.state.metrics["dice"]))
    trainer.run()
    assert sizes == {p: {4} if p in (Phase.PLAIN, Phase.AUGMENT) else {2} for p in Phase}
    assert len(perfect) == EPOCHS
    assert trainer.state.best_metric == max(perfect)


def test_a_training_metric_leaves_the_run_as_it_is():
    """Predictions in the phases that do not train the segmenter move neither its buffers nor the random states."""
    metric = {"dice": MeanDice(output_transform=from_engine(["pred", "label"]))}
    post = AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=2)
    for kind in ("batch_norm", "dropout"):
        trainers = [make_trainer(kind=kind), make_trainer(kind=kind, key_train_metric=metric, postprocessing=post)]
        states = []
        for trainer in trainers:
            torch.manual_seed(1)
            trainer.run()
            states.append(frozen_state(trainer) | {"engine": None, "random_all": None})
        assert differing(*states) == []


def test_a_training_metric_compares_what_the_segmenter_saw():
    trainer = make_trainer(settings=LoopSettings(Shares(0, 0, 0, 1), ("augment",)), decollate=False)
    seen: list[dict[str, Any]] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output))
    trainer.run()
    stored = {image.numpy().tobytes() for image in trainer.loader.cases.images}
    for output in seen:
        assert not any(image.numpy().tobytes() in stored for image in output["image"])
        assert output["label"].shape == output["image"].shape
        # the blocks are bright, before and after augmentation
        block = output["label"] == 1
        assert output["image"][block].mean() > output["image"][~block].mean()
