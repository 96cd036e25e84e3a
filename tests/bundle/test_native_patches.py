"""A training on native patches, and the prediction of images of other sizes with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from monai.bundle import ConfigWorkflow
from PIL import Image

from genseg_monai._outcome import one_line
from genseg_monai.data import find_cases
from genseg_monai.data.patches import PatchCases
from genseg_monai.engines import GenSegTrainer
from tests.bundle.tiny import SHIPPED
from tests.bundle.training import run, workflow

DATA = "phantom://2d?cases=8&size=72"


@pytest.fixture(autouse=True)
def _hook() -> Iterator[None]:
    """The config makes errors that end a process one line; undo it."""
    hook = sys.excepthook
    yield
    sys.excepthook = hook


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "patches"
    hook = sys.excepthook
    run(SHIPPED, dataset_dir=DATA, output_dir=str(folder), patch_size=[32, 48], max_epochs=1, baselines=[])
    sys.excepthook = hook
    return folder


def test_it_leaves_the_plan_and_scores_at_native_size(out):
    plan = yaml.safe_load((out / "configs" / "inference.yaml").read_text())["plan"]
    assert (plan["native"], plan["size"], plan["spacing"]) == (True, [32, 48], None)
    assert (out / "scores" / "genseg.csv").is_file()
    with Image.open(out / "pictures" / "panel_fine_tune.png") as panel:
        assert panel.size[0] > 5 * 150


def test_patches_are_what_it_trains_on(monkeypatch, tmp_path):
    found: list[GenSegTrainer] = []
    monkeypatch.setattr(GenSegTrainer, "run", lambda trainer: found.append(trainer))
    run(SHIPPED, dataset_dir=DATA, output_dir=str(tmp_path), patch_size=[32, 48])
    assert isinstance(found[0].loader.cases, PatchCases)
    assert found[0].loader.draw()["image"].shape == (2, 1, 32, 48)


def test_monai_finds_every_property(tmp_path):
    started = workflow(SHIPPED, dataset_dir=DATA, output_dir=str(tmp_path), patch_size=[32, 32])
    started.initialize()
    assert started.check_properties() == []


def predict(bundle: Path, out: Path, **overrides: object) -> np.ndarray:
    started = ConfigWorkflow(
        str(bundle / "configs" / "inference.yaml"),
        workflow_type="infer",
        logging_file=False,
        dataset_dir=str(Path(find_cases(DATA)[0]["image"])),
        output_dir=str(out),
        **overrides,
    )
    started.initialize()
    started.run()
    (mask,) = out.glob("*.png")
    return np.asarray(Image.open(mask))


def test_it_predicts_whole_images(out, tmp_path):
    small, large = (predict(out, tmp_path / str(roi), roi_size=roi) for roi in (None, [80, 80]))
    assert small.shape == large.shape == (72, 72)
    assert set(np.unique(small)) <= {0, 1}
    assert (small == large).mean() > 0.5


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"roi_size": [20, 32]}, "roi_size: wanted 2 multiples of 16, got [20, 32]"),
        ({"uncertainty": True}, "uncertainty: wanted a model of a working size"),
    ],
)
def test_what_windows_cannot_do_is_refused(out, tmp_path, given, told):
    with pytest.raises(Exception, match=r".*") as stop:
        predict(out, tmp_path, **given)
    assert told in one_line(stop.value)


def test_a_window_for_a_model_of_a_working_size_is_refused(tmp_path):
    with pytest.raises(Exception, match=r".*") as stop:
        predict(SHIPPED, tmp_path, roi_size=[32, 32])
    assert "roi_size: wanted a model of native patches (train with --patch_size)" in one_line(stop.value)
