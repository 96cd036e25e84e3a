"""What MONAI Label does with the bundle: it trains it in place, with its own cases, again and again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml

from genseg_monai import engines
from tests.bundle.tiny import SHIPPED
from tests.bundle.training import TINY, run


@pytest.fixture(autouse=True)
def _hook() -> Iterator[None]:
    """The config makes errors that end a process one line; undo it."""
    hook = sys.excepthook
    yield
    sys.excepthook = hook


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the shipped bundle, as it would lie in MONAI Label's app, without weights."""
    folder = tmp_path / "model" / "genseg"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.pt"))
    (folder / "models").mkdir(exist_ok=True)
    return folder


def label_cases(folder: Path) -> list[dict[str, str]]:
    """Write six labelled volumes as MONAI Label's datastore holds them."""
    random = np.random.default_rng(0)
    (folder / "labels" / "final").mkdir(parents=True)
    found = []
    for i in range(6):
        label = np.zeros((20, 20, 20), np.uint8)
        label[2 + i : 10 + i, 4:14, 4:14] = 1
        image = 200.0 * label + random.normal(0, 30, label.shape)
        paths = folder / f"case{i}.nii.gz", folder / "labels" / "final" / f"case{i}.nii.gz"
        for array, path in ((image.astype(np.float32), paths[0]), (label, paths[1])):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
        found.append({"image": str(paths[0]), "label": str(paths[1])})
    return found


def label_overrides(bundle: Path, train: list[dict[str, str]], val: list[dict[str, str]]) -> dict[str, Any]:
    """Return what MONAI Label's BundleTrainTask sets, each by assignment."""
    handlers = yaml.safe_load((bundle / "configs" / "train.yaml").read_text())["train"]["handlers"]
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(bundle / "models" / "model.pt"),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    return {
        "bundle_root": str(bundle),
        "train#trainer#max_epochs": 1,
        "train#dataset#data": train,
        "device": "cpu",
        "train#handlers": [loader, *handlers],
        "validate#dataset#data": val,
    }


@pytest.mark.slow
@pytest.mark.parametrize("validated", [0, 2])
def test_monai_label_trains_a_bundle_in_place_and_again(monkeypatch, bundle, tmp_path, validated):
    """Three short trainings of volumes: with and without validation, and one that goes on from the first's weights."""
    cases = label_cases(tmp_path / "studies")
    train, val = cases[: 6 - validated], cases[6 - validated :]
    begun: list[dict[str, torch.Tensor]] = []
    note = engines.players.Players.note_initial

    def noted(players: Any) -> None:
        note(players)
        begun.append(players.initial)

    monkeypatch.setattr(engines.players.Players, "note_initial", noted)
    settings = {
        "baselines": [],
        "segmenter": "segresnet",
        "network_def#name": "segresnet",
        "network_def#image_size": None,
        "network_def#init_filters": 8,
    }
    first = label_overrides(bundle, train, val)
    first["train#handlers"] = first["train#handlers"][1:]  # no weights of this network yet
    run(bundle, "", **first, **settings)
    trained = torch.load(bundle / "models" / "model.pt", weights_only=True)
    plan = yaml.safe_load((bundle / "configs" / "inference.yaml").read_text())["plan"]
    assert (plan["spatial_dims"], plan["size"]) == (3, [32, 32, 32])
    record = json.loads((bundle / "run.json").read_text())
    assert record["cases"]["training"] == len(train)
    assert sum(record["iterations"].values()) == TINY["epoch_length"]
    assert (bundle / "scores" / "comparison.csv").exists() == bool(val)

    if not val:
        return
    begun.clear()
    run(bundle, "", **label_overrides(bundle, train, val), **settings)
    for name, value in begun[-1].items():
        assert torch.equal(value, trained[name]), name
    again = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert any(not torch.equal(again[name], trained[name]) for name in trained)
    assert [path.name for path in (bundle / "models").iterdir() if path.is_file()] == ["model.pt"]
