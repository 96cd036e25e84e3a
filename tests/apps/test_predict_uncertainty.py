"""`genseg predict --uncertainty`: maps, numbers and masks of an ensemble."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from genseg_monai.__main__ import main
from tests.bundle.tiny import PLAN_3D, make_bundle


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles of other random weights, with a temperature; the first with a snapshot."""
    root = tmp_path_factory.mktemp("bundles")
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(make_bundle(root / f"seed{seed}"))
        (made[-1] / "models" / "calibration").mkdir()
        (made[-1] / "models" / "calibration" / "temperature.json").write_text(json.dumps({"temperature": 2.5}))
    (made[0] / "models" / "snapshots").mkdir()
    shutil.copyfile(made[1] / "models" / "model.pt", made[0] / "models" / "snapshots" / "step_000001.pt")
    return made


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, size in enumerate([(50, 31), (32, 32)]):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, size, dtype=np.uint8)).save(folder / f"p{i}.png")
    return folder


def predict(bundle: str | Path, source: Path, out: Path, *more: str) -> int:
    words = ["predict", "--bundle", str(bundle), "--input", str(source), "--output", str(out), "--device", "cpu", *more]
    return main(words)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_temperature_changes_no_plain_mask(bundles: list[Path], pictures: Path, tmp_path: Path) -> None:
    assert predict(bundles[0], pictures, tmp_path / "with") == 0
    plain = tmp_path / "bundle"
    shutil.copytree(bundles[0], plain)
    (plain / "models" / "calibration" / "temperature.json").unlink()
    assert predict(plain, pictures, tmp_path / "without") == 0
    files = {path.name for path in (tmp_path / "with").iterdir()}
    assert files == {"p0.png", "p1.png"}
    for name in files:
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_snapshots_and_the_mirror(
    bundles: list[Path], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(bundles[0], pictures, out, "--uncertainty") == 0
    assert capsys.readouterr().out == f"2 masks written to {out}, with the uncertainty of 2 models\n"
    maps = {f"p{i}_uncertainty.png" for i in (0, 1)}
    assert {path.name for path in out.iterdir()} == {"p0.png", "p1.png", "uncertainty.csv"} | maps
    assert pixels(out / "p0_uncertainty.png").shape == pixels(out / "p0.png").shape == (50, 31)
    with (out / "uncertainty.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == ["p0", "p1"]
    assert all(0 < float(row["uncertainty"]) <= 1 for row in rows)
    # an image and its mirror image get mirrored maps
    mirrored = tmp_path / "mirrored"
    mirrored.mkdir()
    Image.fromarray(pixels(pictures / "p1.png")[:, ::-1]).save(mirrored / "p1.png")
    assert predict(bundles[0], mirrored, tmp_path / "again", "--uncertainty") == 0
    left, right = (pixels(folder / "p1_uncertainty.png").astype(int) for folder in (out, tmp_path / "again"))
    assert np.abs(left - right[:, ::-1]).max() <= 1


def test_several_bundles(
    bundles: list[Path], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ",".join(map(str, bundles))
    assert predict(both, pictures, tmp_path / "out", "--uncertainty") == 0
    assert "of 2 models" in capsys.readouterr().out
    # the first has the second's weights as its snapshot, and one temperature: the same ensemble
    assert predict(bundles[0], pictures, tmp_path / "own", "--uncertainty") == 0
    for name in ("p0.png", "p0_uncertainty.png", "uncertainty.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "own" / name).read_bytes()


def test_volumes_keep_their_place(tmp_path: Path) -> None:
    affine = np.array([[0, -1.7, 0.1, 10], [1.9, 0, 0.2, -20], [0.1, 0.3, -4.0, 5], [0, 0, 0, 1]])
    array = np.random.default_rng(0).integers(-200, 300, (37, 22, 9)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "scan.nii.gz")
    bundle = make_bundle(tmp_path / "bundle", PLAN_3D)
    assert predict(bundle, tmp_path / "scan.nii.gz", tmp_path / "out", "--uncertainty") == 0
    found = nibabel.load(tmp_path / "out" / "scan_uncertainty.nii.gz")
    assert found.shape == array.shape
    assert found.get_data_dtype() == np.float32
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    values = np.asarray(found.dataobj)
    assert values.min() >= 0
    assert 0 < values.max() <= 1


def test_wrong_use(bundles: list[Path], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(",".join(map(str, bundles)), pictures, tmp_path / "out") == 2
    assert "--bundle: wanted one bundle, got several; add --uncertainty" in capsys.readouterr().err
    assert predict(f"{bundles[0]},nowhere", pictures, tmp_path / "out", "--uncertainty") == 2
    assert "wanted the weights of a trained segmenter" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "p0_uncertainty.png").write_bytes(b"mine")
    assert predict(bundles[0], pictures, tmp_path / "out", "--uncertainty") == 2
    assert "p0_uncertainty.png: there is a mask already" in capsys.readouterr().err
