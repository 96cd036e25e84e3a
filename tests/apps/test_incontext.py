from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from genseg_monai.__main__ import main
from genseg_monai.apps import incontext as command
from genseg_monai.data.cases import data_folder, find_cases
from genseg_monai.data.read import CaseReader, LabelReader
from genseg_monai.networks.universeg import UniverSeg
from tests.bundle.tiny import PLAN_2D, PLAN_3D, make_bundle
from tests.data.sets import picture, pictures, splits, volume
from tests.dicom.study import write_study


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a small network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(UniverSeg(features=(4, 4, 4, 4)).state_dict(), path)
    return path


def _run(weights: Path, support: Path | str, source: Path | str, out: Path, *more: str) -> int:
    words = ["incontext", "--support", str(support), "--input", str(source), "--output", str(out)]
    words += ["--weights", str(weights), "--device", "cpu", "--support-size", "3", "--ensemble", "2", "--size", "48"]
    return main([*words, *more])


def test_pictures(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    support = data_folder("phantom://2d?cases=6&size=32")
    random = np.random.default_rng(0)
    picture(tmp_path / "in" / "a.png", random.integers(0, 256, (41, 60), dtype=np.uint8))
    picture(tmp_path / "in" / "b.jpg", random.integers(0, 256, (20, 33, 3), dtype=np.uint8))
    assert _run(weights, support, tmp_path / "in", tmp_path / "out", "--uncertainty") == 0
    said = capsys.readouterr()
    assert said.out == f"2 masks written to {tmp_path / 'out'} by 4 labelled cases\n", "of the training split"
    assert "4 of 6 labelled cases are used" in said.err
    out = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert set(out) == {"a.png", "b.png", "a_uncertainty.png", "b_uncertainty.png", "uncertainty.csv"}
    for name, shape in (("a", (41, 60)), ("b", (20, 33))):
        mask = np.asarray(Image.open(out[f"{name}.png"]))
        assert mask.shape == np.asarray(Image.open(out[f"{name}_uncertainty.png"])).shape == shape
        assert set(np.unique(mask)) <= {0, 1}
    with out["uncertainty.csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["a", "b"]
    assert all(0 <= float(row["uncertainty"]) <= 1 for row in rows)


def test_volumes_of_several_classes(weights: Path, tmp_path: Path) -> None:
    support = data_folder("phantom://3d?cases=4&size=32")
    source = Path(find_cases(support)[-1]["image"])
    assert _run(weights, support, source, tmp_path / "out") == 0
    mask, image = nibabel.load(tmp_path / "out" / source.name), nibabel.load(source)
    assert mask.shape == image.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}


def test_a_dicom_series_and_its_seg(weights: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", seg=False, rtstruct=False, oblique=True, phi=False)
    series = study.images[0].parent
    array, meta = CaseReader().get_data(CaseReader().read(series))
    for i in range(2):
        volume(tmp_path / "d" / "imagesTr" / f"v{i}.nii.gz", array[0], meta["affine"])
        volume(tmp_path / "d" / "labelsTr" / f"v{i}.nii.gz", study.labels.astype(np.uint8), meta["affine"])
    assert _run(weights, tmp_path / "d", series, tmp_path / "out", "--dicom-seg") == 0
    mask = nibabel.load(tmp_path / "out" / f"{series.name}.nii.gz")
    assert mask.shape == study.volume.shape
    np.testing.assert_allclose(mask.affine, np.asarray(meta["affine"]), atol=1e-4)
    assert (tmp_path / "out" / f"{series.name}.dcm").is_file()


def test_the_same_again(weights: Path, tmp_path: Path) -> None:
    support = pictures(tmp_path / "d", 8)
    query = picture(tmp_path / "q.png", np.random.default_rng(1).integers(0, 256, (20, 24), dtype=np.uint8))
    for name, more in (("a", ()), ("b", ()), ("c", ("--seed", "1"))):
        assert _run(weights, support, query, tmp_path / name, "--uncertainty", *more) == 0
    a, b, c = (np.asarray(Image.open(tmp_path / name / "q_uncertainty.png")) for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_scores_are_those_of_the_masks_written(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = splits(pictures(tmp_path / "d"), train=["c0", "c1", "c2"], test=["c4", "c5"])
    assert _run(weights, root, root, tmp_path / "out", "--score") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Dice of 2 cases, mean [95 % interval]"
    assert lines[-1] == f"2 masks written to {tmp_path / 'out'} by 3 labelled cases"
    expected = []
    for name in ("c4", "c5"):
        mask, truth = (np.asarray(Image.open(tmp_path / p / f"{name}.png")) > 0 for p in ("out", "d/masks"))
        expected.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert lines[2].startswith(f"foreground  {np.mean(expected):.3f} [")


@pytest.mark.parametrize("scene", [False, True])
def test_a_generator_enlarges_the_supports(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scene: bool
) -> None:
    root = splits(pictures(tmp_path / "d"), train=["c0", "c1", "c2"], test=["c4"])
    # a training on JPEG masks, whose classes have many raw values
    values = {0: 0, 1: 0, 128: 1, 255: 1} if scene else {0: 0, 1: 1}
    bundle = make_bundle(tmp_path / "b", PLAN_2D | {"label_values": values}, generator=True, scene=scene)
    more = ("--score", "--generator", str(bundle), "--synthetic", "4", "--support-size", "20")
    words = ["incontext", "--support", str(root), "--input", str(root), "--output", str(tmp_path / "out"), *more]
    assert main([*words, "--weights", str(weights), "--ensemble", "1", "--size", "48", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [part.strip() for part in lines[1].split("  ") if part] == [
        "class",
        "3 labelled + 12 synthetic",
        "3 labelled",
    ]
    assert lines[-1].endswith("by 3 labelled cases and 12 synthetic ones")
    assert len(lines[2].split("[")) == 3, "two columns"
    with_generator = np.asarray(Image.open(tmp_path / "out" / "c4.png"))
    assert _run(weights, root, root, tmp_path / "plain", "--score") == 0
    assert with_generator.shape == np.asarray(Image.open(tmp_path / "plain" / "c4.png")).shape


def test_a_generator_of_volumes(weights: Path, tmp_path: Path) -> None:
    support = data_folder("phantom://3d?cases=3&size=32")
    bundle = make_bundle(tmp_path / "b", PLAN_3D, generator=True)
    source = find_cases(support)[-1]["image"]
    assert _run(weights, support, source, tmp_path / "out", "--generator", str(bundle), "--synthetic", "1") == 0
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_generator_of_something_else(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path / "d")
    bundle = make_bundle(tmp_path / "b", PLAN_2D | {"classes": ["a", "b", "c"], "label_values": {0: 0, 1: 1, 2: 2}})
    for given, told in [
        (bundle, f"{bundle}: wanted a generator of 2 classes in 2D, as the supports, got one of 3 in 2D"),
        (tmp_path, f"{tmp_path}: wanted the folder of what a training left, it has no configs/generate.yaml"),
        (make_bundle(tmp_path / "c"), "generator.json: wanted a trained generator"),
    ]:
        assert _run(weights, root, root / "images", tmp_path / "out", "--generator", str(given)) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unreadable_inputs_are_told_and_the_rest_goes_on(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = pictures(tmp_path / "d")
    good = picture(tmp_path / "in" / "a.png", np.zeros((9, 9), np.uint8))
    (tmp_path / "in" / "b.png").write_bytes(good.read_bytes()[:40])
    volume(tmp_path / "in" / "c.nii.gz", np.zeros((4, 5, 6), np.int16))
    assert _run(weights, root, tmp_path / "in", tmp_path / "out") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"genseg: {tmp_path / 'in' / 'b.png'}: wanted an image, it cannot be read")
    assert "c.nii.gz: wanted pictures, as the supports are, got a volume of 4 x 5 x 6; give others" in lines[1]
    assert lines[2] == "genseg: incontext: 2 of 3 inputs failed, each told above"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_wrong_use(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, empty = pictures(tmp_path / "d"), tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "unlabelled" / "images").mkdir(parents=True)
    picture(tmp_path / "unlabelled" / "images" / "a.png", np.zeros((4, 4), np.uint8))
    colours = pictures(tmp_path / "colours")
    picture(colours / "masks" / "c1.png", np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8))
    for support, source, more, told in [
        (root, tmp_path / "none", (), f"{tmp_path / 'none'}: wanted images, there is no such file or folder"),
        (root, empty, (), f"{empty}: wanted PNG"),
        (empty, root, (), f"{empty}: wanted images/ with masks/"),
        (tmp_path / "unlabelled", root, (), "wanted the folder masks/ or labels/ beside images/"),
        (colours, root, (), "c1.png: wanted a grey mask with one value a class, got colours"),
        (root, root, ("--ensemble", "0"), "--ensemble: wanted 1 or more, got 0"),
        (root, root, ("--size", "8"), "--size: wanted 16 or more, got 8"),
        (root, root, ("--codes", "c.yaml"), "--codes: goes with --dicom-seg"),
        (root, root, ("--dicom-seg",), "wanted a DICOM series to write a DICOM SEG for"),
        (root, root, ("--score",), "wanted labelled cases beside the supports to score, found none"),
        (root, root, ("--device", "gpu"), "--device: wanted cpu, cuda or cuda:N, got 'gpu'"),
    ]:
        words = ["incontext", "--support", str(support), "--input", str(source), "--output", str(tmp_path / "out")]
        assert main([*words, "--weights", str(weights), *more]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_masks_are_not_replaced_unasked(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path / "d")
    source = root / "images" / "c0.png"
    picture(tmp_path / "out" / "c0.png", np.full((3, 3), 9, np.uint8))
    assert _run(weights, root, source, tmp_path / "out") == 2
    assert "there is a mask already" in capsys.readouterr().err
    assert np.asarray(Image.open(tmp_path / "out" / "c0.png")).max() == 9
    assert _run(weights, root, source, tmp_path / "out", "--overwrite") == 0
    assert np.asarray(Image.open(tmp_path / "out" / "c0.png")).shape == (20, 24)


def test_missing_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run(tmp_path / "none.pt", "phantom://2d", "phantom://2d", tmp_path / "out") == 2
    assert capsys.readouterr().err == (
        f"genseg: {tmp_path / 'none.pt'}: wanted the weights of UniverSeg, there is no such file; correct the path\n"
    )
    monkeypatch.setattr(command, "shipped_bundle", lambda: tmp_path)
    words = ["--support", "phantom://2d", "--input", "phantom://2d", "--output", str(tmp_path / "out")]
    assert main(["incontext", *words]) == 2
    assert "models/universeg/model.pt: wanted the weights of UniverSeg" in capsys.readouterr().err


def test_labels_of_other_values_are_classes(weights: Path, tmp_path: Path) -> None:
    root = pictures(tmp_path / "d")
    for path in (root / "masks").iterdir():
        mask = np.asarray(Image.open(path)).copy()
        mask[12:18, 4:9] = 128
        picture(path, mask)
    assert _run(weights, root, root / "images" / "c0.png", tmp_path / "out") == 0
    values, _ = LabelReader().get_data((tmp_path / "out" / "c0.png",))
    assert set(np.unique(values)) <= {0, 1, 2}
