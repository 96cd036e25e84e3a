"""UniverSeg as the segmenter of the three stages: trained, continued to the bit, and predicted from its bundle."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow
from PIL import Image

from genseg_monai.engines import GenSegTrainer
from genseg_monai.engines.schedule import Phase
from genseg_monai.engines.state import load_file
from tests.bundle.tiny import SHIPPED
from tests.bundle.training import DATA_2D, run

SETTINGS = {"dataset_dir": DATA_2D, "segmenter": "universeg", "support_size": 3}
LENGTH = {"max_epochs": 4, "epoch_length": 6}


@pytest.fixture(autouse=True, scope="module")
def _hook() -> Iterator[None]:
    """The config makes errors that end a process one line; undo it."""
    hook = sys.excepthook
    yield
    sys.excepthook = hook


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[Phase], list[torch.Tensor]]:
    """A run, the iterations of each of its phases, and the lengths of the hypergradient."""
    out = tmp_path_factory.mktemp("runs") / "universeg"
    phases: Counter[Phase] = Counter()
    norms = []
    take = GenSegTrainer.take

    def counted(trainer, phase, *args):
        phases[phase] += 1
        output = take(trainer, phase, *args)
        norms.extend([output["hypergradient_norm"]] if "hypergradient_norm" in output else [])
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GenSegTrainer, "take", counted)
        run(SHIPPED, output_dir=str(out), **SETTINGS, **LENGTH)
    return out, phases, norms


def test_every_phase_ran_and_the_architecture_felt_the_segmenter(trained):
    _, phases, norms = trained
    assert set(phases) == set(Phase)
    assert min(phases.values()) >= 2
    assert norms
    assert all(float(norm) > 0 for norm in norms)


def test_the_model_holds_its_supports_and_the_configs_say_how_many(trained):
    out, *_ = trained
    weights = torch.load(out / "models" / "model.pt", weights_only=True)
    assert weights["support_images"].shape == (3, 1, 32, 32)
    assert int(weights["support_held"]) == 3
    for baseline in ("plain", "augment"):
        other = torch.load(out / "models" / "baselines" / f"{baseline}.pt", weights_only=True)
        assert torch.equal(other["support_images"], weights["support_images"])
    for name in ("inference", "evaluate"):
        config = yaml.safe_load((out / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
        assert (config["segmenter"], config["support_size"]) == ("universeg", 3)


def test_its_bundle_predicts(trained, tmp_path):
    out, *_ = trained
    workflow = ConfigWorkflow(
        str(out / "configs" / "inference.yaml"),
        workflow_type="inference",
        logging_file=False,
        dataset_dir="phantom://2d?cases=3&size=40",
        output_dir=str(tmp_path),
        device="cpu",
    )
    workflow.initialize()
    workflow.run()
    masks = sorted(tmp_path.glob("*.png"))
    assert len(masks) == 3
    for mask in masks:
        with Image.open(mask) as picture:
            assert picture.size == (40, 40)


def test_a_run_continued_ends_as_one_that_was_not_stopped(trained, tmp_path):
    whole, *_ = trained
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    last = out / "checkpoints" / "iteration_24.pt"
    last.unlink()
    run(SHIPPED, output_dir=str(out), resume=True, **SETTINGS, **LENGTH)
    ours, theirs = (load_file(folder / "checkpoints" / last.name) for folder in (out, whole))
    for name, value in theirs["trained"]["augment"].items():
        assert torch.equal(ours["trained"]["augment"][name], value), name
    assert torch.equal(ours["network"]["support_images"], theirs["network"]["support_images"])
