"""`label --bundle RUN`: what a training has left, trained further in place by the server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml

from genseg_monai.apps.predict import predict
from tests.apps.label.server import (
    genseg_label,
    label_environment,
    label_python,
    quick_bundle,
    running,
    write_cases,
)

pytestmark = pytest.mark.xdist_group("label_run")


def test_a_run_is_trained_further_with_another_size_a_new_class_and_a_search(tmp_path: Path) -> None:
    """Labels 0 and 1 made the run, without a search; then there is a value 2."""
    names = write_cases(tmp_path / "studies", 5, labelled=5)
    cases = [{"image": f"studies/{name}.nii.gz", "label": f"studies/truth/{name}.nii.gz"} for name in names]
    (tmp_path / "list.json").write_text(json.dumps({"training": cases}))
    made = [
        label_python(), "-m", "monai.bundle", "run", "training",
        "--config_file", str(quick_bundle(tmp_path / "quick") / "configs" / "train.yaml"),
        "--dataset_dir", str(tmp_path / "list.json"), "--output_dir", str(tmp_path / "run"), "--outer_every", "0",
    ]  # fmt: skip
    ran = subprocess.run(made, cwd=tmp_path, env=label_environment(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    weights = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    for name in names[:2]:
        path = tmp_path / "studies" / "labels" / "final" / f"{name}.nii.gz"
        label = nibabel.load(path)
        voxels = np.asarray(label.dataobj).copy()
        voxels[:, 17:20, 3:9] = 2
        nibabel.save(nibabel.Nifti1Image(voxels, label.affine), path)
    with running(genseg_label(str(tmp_path / "studies"), "--bundle", str(tmp_path / "run")), tmp_path) as server:
        assert server.info()["trainers"]["genseg"]["config"]["search"] is False
        status = server.train(size="32, 32, 48", search=True, val_split=0, max_epochs=1)
        assert status["status"] == "DONE", status["details"][-8:]
        mask = server.mask("genseg", names[0], tmp_path / "mask.nii.gz")
        labels = server.info()["models"]["genseg"]["labels"]
    plan = yaml.safe_load((tmp_path / "run" / "configs" / "inference.yaml").read_text())["plan"]
    assert (plan["size"], plan["label_values"]) == ([32, 32, 48], {0: 0, 1: 1, 2: 2})
    assert labels == {plan["classes"][1]: 1, "class_2": 2}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["settings"]["outer_every"], record["cases"]["training"]) == (4, 5)
    trained = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    assert any(
        not torch.equal(trained[name], weights[name]) for name in weights if trained[name].shape == weights[name].shape
    )
    predict(
        bundle=str(tmp_path / "run"),
        input=str(tmp_path / "studies" / f"{names[0]}.nii.gz"),
        output=str(tmp_path / "out"),
        device="cpu",
    )
    np.testing.assert_array_equal(mask.get_fdata(), nibabel.load(tmp_path / "out" / f"{names[0]}.nii.gz").get_fdata())
