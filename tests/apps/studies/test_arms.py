"""An arm differs from the others in exactly what is said; updates and images are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from genseg_monai.apps.studies.arms import REAL_ONLY, arm_overrides, steps_of
from genseg_monai.apps.studies.cells import OWN_SEGMENTER, Arm, Cell, Purpose, pilots_of, scored_cells
from genseg_monai.apps.studies.settings import StudySettings, read_config
from genseg_monai.apps.train import config_files
from genseg_monai.engines import LoopSettings, Phase, Schedule, Shares
from tests.engines.tiny import differing as differing_bits

TRAINED = [arm for arm in Arm if arm is not Arm.INCONTEXT]
SHARES = {"warm_up": 0.3, "search": 0.35, "fine_tune": 0.15, "final_fit": 0.35}


def overrides(arm: Arm, updates: int = 200, preset: str | None = None, epoch: int = 20) -> dict[str, Any]:
    cell = Cell(arm, seed=0, size=8, segmenter=OWN_SEGMENTER.get(arm, "unet_small"), updates=updates)
    return arm_overrides(cell, read_config(preset), epoch=epoch, factor=1.0)


def schedule(changes: dict[str, Any]) -> Schedule:
    shares = Shares(**{name: value for name, value in changes["shares"].items() if name != "_target_"})
    return Schedule.from_total(changes["max_epochs"] * changes["epoch_length"], shares, changes["baselines"])


@pytest.mark.parametrize("updates", [10, 60, 200, 1980])
@pytest.mark.parametrize("arm", TRAINED)
def test_every_segmenter_makes_the_same_updates_on_as_many_images(arm: Arm, updates: int) -> None:
    changes = overrides(arm, updates, epoch=10)
    steps = schedule(changes)
    assert steps.segmenter_updates == updates
    batch = changes.get("batch_size", 4)
    pairs = 1 if changes.get("synthetic", True) is False else 2  # a synthetic batch beside the real one
    assert batch * pairs == 8


@pytest.mark.parametrize("arm", TRAINED)
def test_the_learning_rate_follows_one_curve(arm: Arm) -> None:
    genseg, mine = (schedule(overrides(one)) for one in (Arm.GENSEG, arm))
    curves = [
        [
            one.segmenter_rate(phase, step)
            for phase in (Phase.SEARCH, Phase.FINAL_FIT)
            for step in range(one.steps[phase])
        ]
        for one in (genseg, mine)
    ]
    if arm is Arm.NNUNET_STYLE:
        assert curves[1] == pytest.approx([(1 - i / 200) ** 0.9 for i in range(200)])
    else:
        assert curves[1] == pytest.approx(curves[0])


def test_a_generator_trained_once_gets_as_many_steps() -> None:
    drawn = {arm: steps_of(arm, 200, SHARES, 20).generator for arm in TRAINED}
    assert drawn[Arm.GENSEG] == drawn[Arm.NO_SEARCH]
    assert drawn[Arm.WGAN] == drawn[Arm.GENSEG]
    assert 0 <= drawn[Arm.SEPARATE] - drawn[Arm.GENSEG] < 20
    assert all(drawn[arm] == 0 for arm in REAL_ONLY)


def differing(one: Arm, other: Arm) -> set[str]:
    left, right = overrides(one), overrides(other)
    return {name for name in left.keys() | right.keys() if left.get(name) != right.get(name)}


def test_arms_differ_in_what_is_said() -> None:
    assert differing(Arm.GENSEG, Arm.NO_SEARCH) == {"outer_every"}
    assert differing(Arm.GENSEG, Arm.SCENES) == differing(Arm.GENSEG, Arm.STYLES) == {"synthesis"}
    assert differing(Arm.GENSEG, Arm.PAPER) == {"search_fraction", "synthesis", "warp_real", "synthetic_until"}
    assert differing(Arm.GENSEG, Arm.SEPARATE) == {"shares", "max_epochs"}
    assert differing(Arm.PLAIN, Arm.AUGMENT) == {"augment_real"}
    for arm in (Arm.ROTATE, Arm.FLIP, Arm.TRANSLATE, Arm.COMBINE):
        assert differing(Arm.AUGMENT, arm) == {"augment"}
    assert differing(Arm.AUGMENT, Arm.COPY_PASTE) == {"augment#paste"}
    own = {"augment", "loss", "optimizer", "segmenter", "shares", "learning_rate"}
    assert differing(Arm.AUGMENT, Arm.NNUNET_STYLE) == own
    no_generator = {"generator_width", "discriminator_width"}
    assert differing(Arm.SEPARATE, Arm.WGAN) == {"shares", "max_epochs", "pair_steps"} | no_generator
    assert differing(Arm.GENSEG, Arm.AUGMENT) == {"shares", "max_epochs", "synthetic", "batch_size", "augment_real"} | (
        no_generator
    )


def test_single_augmentations_move_one_thing() -> None:
    def moving(arm: Arm, preset: str | None = None) -> dict[str, Any]:
        warp = overrides(arm, preset=preset)["augment"]["warp"]
        still = {"flip": 0.0, "scale": [1.0, 1.0]}
        return {
            name: value for name, value in warp.items() if name != "_target_" and value != still.get(name, [0.0, 0.0])
        }

    assert moving(Arm.ROTATE) == {"rotate": [-15.0, 15.0]}
    assert moving(Arm.FLIP) == {"flip": 0.5}
    assert moving(Arm.TRANSLATE) == {"translate": [-0.1, 0.1]}
    assert moving(Arm.COMBINE) == {"rotate": [-15.0, 15.0], "flip": 0.5, "translate": [-0.1, 0.1]}
    assert moving(Arm.ROTATE, "wound_fuseg") == {"rotate": [-45, 45]}  # as far as the preset lets `augment` go
    assert moving(Arm.FLIP, "lungs_jsrt") == {}  # left and right are classes there
    assert overrides(Arm.NNUNET_STYLE, preset="lungs_jsrt")["augment"]["mirror"] == 0.0


def test_settings_of_the_loop_take_them() -> None:
    assert LoopSettings(synthetic=overrides(Arm.PLAIN)["synthetic"], outer_every=0).synthetic is False


def test_cells_run_learning_rates_first_then_seed_by_seed() -> None:
    settings = StudySettings(
        "data", (Arm.PLAIN, Arm.NNUNET_STYLE, Arm.INCONTEXT), (0, 1), (10, 20), ("unet", "deeplab"), updates=300
    )
    cells = settings.cells()
    pilots = [cell for cell in cells if cell.purpose is Purpose.RATE]
    assert cells[: len(pilots)] == pilots
    assert [cell.id for cell in pilots] == [
        *(f"plain_n20_s0_{name}_x{factor:g}" for name in ("unet", "deeplab") for factor in (0.3, 1, 3)),
        *(f"nnunet_style_n20_s0_dynunet_deep_x{factor:g}" for factor in (0.3, 1, 3)),
    ]
    assert {pilot.updates for pilot in pilots} == {100}
    scored = cells[len(pilots) :]
    assert len(scored) == 2 * 2 * (2 + 1 + 1)
    assert [cell.seed for cell in scored] == sorted(cell.seed for cell in scored)
    assert len({cell.id for cell in cells}) == len(cells)
    assert {cell.updates for cell in scored if cell.arm is Arm.INCONTEXT} == {0}


def test_one_rate_is_nothing_to_choose() -> None:
    [cell] = scored_cells([Arm.PLAIN], [0], [8], ["unet"], 100, 1.0)
    assert pilots_of(cell, [1.0], seed=0, size=8, epoch=20) == []
    assert cell.factor == 1.0


def test_arms_begin_with_the_same_weights(tmp_path: Path) -> None:
    begun = []
    for arm in (Arm.PLAIN, Arm.GENSEG):
        changes = overrides(arm) | {"split_file": None, "dataset_dir": "phantom://2d?cases=6&size=32", "device": "cpu"}
        files = [str(path) for path in config_files()]
        workflow = ConfigWorkflow(
            files, workflow_type="train", logging_file=False, run_id="training", output_dir=str(tmp_path), **changes
        )
        workflow.initialize()
        trainer = workflow.parser.get_parsed_content("train#trainer")
        begun.append({name: value.clone() for name, value in trainer.network.state_dict().items()})
        assert trainer.schedule.segmenter_updates == 200
    assert not differing_bits(*begun)
