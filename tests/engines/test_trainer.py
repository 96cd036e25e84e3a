"""One run: its phases, its events in MONAI's order, which cases move what, and MONAI's own handlers on it."""

from __future__ import annotations

from dataclasses import replace
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
from torch import Tensor

from genseg_monai.engines import GenSegTrainer, LoopSettings, Phase, Shares, StageEvents, iterations
from genseg_monai.errors import UserError
from genseg_monai.networks import SearchableGenerator
from tests.engines import tiny
from tests.engines.tiny import EPOCHS, LENGTH, SHARES, differing, frozen_state, make_trainer

MONAI_ORDER = [
    IterationEvents.FORWARD_COMPLETED,
    IterationEvents.LOSS_COMPLETED,
    IterationEvents.BACKWARD_COMPLETED,
    IterationEvents.MODEL_COMPLETED,
]


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


@pytest.mark.parametrize(("synthesis", "scene"), [("scenes", False), ("styles", False), ("masks", True)])
def test_scenes_go_with_a_generator_of_scenes(monkeypatch, synthesis, scene):
    other = lambda *sizes, **settings: SearchableGenerator(*sizes, **settings | {"scene": scene})  # noqa: E731
    monkeypatch.setattr(tiny, "SearchableGenerator", other)
    with pytest.raises(
        UserError, match=f"synthesis: wanted {'scenes or styles' if scene else 'masks'}, .* got {synthesis}"
    ):
        make_trainer(settings=LoopSettings(synthesis=synthesis))


def test_a_run_on_scenes_goes_through_every_phase_and_fits_on_real_images_with_other_objects():
    trainer = make_trainer(settings=LoopSettings(SHARES, outer_every=1, outer_after=1, synthesis="scenes"))
    images = trainer.loader.cases.images
    alpha = {name: value.detach().clone() for name, value in trainer.generator.arch_parameters().items()}
    searched = trainer.generator
    trainer.run()
    assert all((value != alpha[name]).any() for name, value in searched.arch_parameters().items())
    assert trainer.generator.scene
    masks = trainer.to_masks(trainer.loader.cases.labels)
    trainer.conditions = replace(trainer.conditions, augment=None)
    made, wanted = trainer.synthesise(images, masks)
    same = (made == images).flatten(1).float().mean(1)
    assert ((same > 0.05) & (same < 0.95)).all(), "all of an image but its hole"
    assert (wanted != masks).any()


def test_the_synthetic_pairs_may_come_in_by_and_by(monkeypatch):
    weights: dict[Phase, list[float]] = {}
    step = iterations.segmenter_step

    def noted(*args: Any, **named: Any) -> Any:
        weights.setdefault(trainer.phase, []).append(named["gamma"])
        return step(*args, **named)

    monkeypatch.setattr(iterations, "segmenter_step", noted)
    shares = Shares(warm_up=0, search=1, fine_tune=0, final_fit=1)
    settings = LoopSettings(shares, (), gamma=2.0, gamma_ramp=0.5, outer_every=0)
    trainer = make_trainer(settings=settings, max_epochs=2, epoch_length=4)
    trainer.run()
    assert weights == {Phase.SEARCH: [0.5, 1.0, 1.5, 2.0], Phase.FINAL_FIT: [2.0] * 4}


def test_real_pairs_may_take_the_place_of_synthetic_ones_towards_the_end(monkeypatch):
    seen: list[tuple[int, int]] = []
    step = iterations.segmenter_step

    def noted(*args: Any, **named: Any) -> Any:
        seen.append((len(args[3]), 0 if args[5] is None else len(args[5][0])))
        return step(*args, **named)

    monkeypatch.setattr(iterations, "segmenter_step", noted)
    settings = LoopSettings(Shares(0, 1, 0, 1), (), outer_every=0, synthetic_until=0.75)
    make_trainer(settings=settings, max_epochs=2, epoch_length=4).run()
    assert seen == [(2, 2)] * 6 + [(4, 0)] * 2


@pytest.mark.parametrize("kind", ["plain", "batch_norm"])
def test_the_segmenter_may_end_with_the_mean_of_its_weights(kind):
    settings = LoopSettings(Shares(0, 1, 0, 1), (), outer_every=0, average=0.75)
    trainer = make_trainer(settings=settings, kind=kind, max_epochs=2, epoch_length=3)
    mean: dict[str, Tensor] = {}

    def follow(engine: Any) -> None:
        for name, value in engine.network.state_dict().items():
            if value.is_floating_point():
                # m <- d m + (1 - d) phi, from the first phi
                mean[name] = 0.75 * mean.get(name, value) + 0.25 * value

    trainer.add_event_handler(StageEvents.SEGMENTER_STEP_COMPLETED, follow)
    trainer.run()
    for name, value in mean.items():
        torch.testing.assert_close(trainer.network.state_dict()[name], value, msg=name)


def test_whole_numbers_of_a_segmenter_are_not_averaged():
    network = tiny.make_network()
    network.register_buffer("labels", torch.arange(9, dtype=torch.uint8))
    trainer = make_trainer(settings=LoopSettings(Shares(0, 1, 0, 1), (), outer_every=0, average=0.9))
    trainer.players.network = network
    for _ in range(20):
        trainer.players.follow(0.9)
    assert trainer.players.kept()["labels"].tolist() == list(range(9))


def test_a_run_on_styles_moves_alpha_and_draws_whole_images():
    trainer = make_trainer(settings=LoopSettings(SHARES, outer_every=1, outer_after=1, synthesis="styles"))
    alpha = {name: value.detach().clone() for name, value in trainer.generator.arch_parameters().items()}
    searched = trainer.generator
    trainer.run()
    assert all((value != alpha[name]).any() for name, value in searched.arch_parameters().items())
    images, masks = trainer.loader.cases.images, trainer.to_masks(trainer.loader.cases.labels)
    made, wanted = trainer.synthesise(images, masks)
    assert made.shape == images.shape
    assert wanted.shape == masks.shape
    assert not (made == images).any()
