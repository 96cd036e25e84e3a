from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from genseg_monai.__main__ import main
from genseg_monai.data.read import CaseReader
from tests.bundle.tiny import PLAN_2D, PLAN_3D, make_bundle
from tests.dicom.study import write_study


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "grey")


@pytest.fixture(scope="module")
def bundle_3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "ct", PLAN_3D)


def _pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def _predict(bundle: Path, source: Path, out: Path, *more: str) -> int:
    return main(
        ["predict", "--bundle", str(bundle), "--input", str(source), "--output", str(out), "--device", "cpu", *more]
    )


def test_pictures_of_every_kind(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(_pixels(41, 60)).save(folder / "a.png")
    Image.fromarray(_pixels(20, 33)).save(folder / "b.jpg")
    Image.fromarray(_pixels(64, 17).astype(np.uint16) * 200).save(folder / "c.tif")
    assert _predict(bundle, folder, tmp_path / "out") == 0
    out = {path.name: Image.open(path) for path in sorted((tmp_path / "out").iterdir())}
    assert {name: np.asarray(mask).shape for name, mask in out.items()} == {
        "a.png": (41, 60),
        "b.png": (20, 33),
        "c.png": (64, 17),
    }
    for mask in out.values():
        assert mask.mode == "L"
        assert set(np.unique(np.asarray(mask))) <= {0, 1}
    said = capsys.readouterr()
    assert said.out == f"3 masks written to {tmp_path / 'out'}\n"
    assert said.err == ""


def test_a_single_picture(bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(_pixels(41, 60)).save(tmp_path / "a.png")
    assert _predict(bundle, tmp_path / "a.png", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_colour_bundle_takes_grey_pictures(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", PLAN_2D | {"in_channels": 3})
    (tmp_path / "in").mkdir()
    Image.fromarray(_pixels(40, 40, 3)).save(tmp_path / "in" / "colour.png")
    Image.fromarray(_pixels(40, 40)).save(tmp_path / "in" / "grey.png")
    assert _predict(bundle, tmp_path / "in", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_nifti_keeps_affine_and_shape(bundle_3d: Path, tmp_path: Path) -> None:
    affine = np.array([[0, -1.7, 0.1, 10], [1.9, 0, 0.2, -20], [0.1, 0.3, -4.0, 5], [0, 0, 0, 1]])
    array = np.random.default_rng(0).integers(-200, 300, (37, 22, 9)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "scan.nii.gz")
    assert _predict(bundle_3d, tmp_path / "scan.nii.gz", tmp_path / "out") == 0
    mask = nibabel.load(tmp_path / "out" / "scan.nii.gz")
    assert mask.shape == array.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_allclose(mask.affine, nibabel.load(tmp_path / "scan.nii.gz").affine, atol=1e-5)


@pytest.mark.parametrize("oblique", [False, True])
def test_a_dicom_series_gives_nifti_in_its_place(bundle_3d: Path, tmp_path: Path, oblique: bool) -> None:
    study = write_study(tmp_path / "study", seg=False, rtstruct=False, oblique=oblique, phi=False)
    series = study.images[0].parent
    assert _predict(bundle_3d, series, tmp_path / "out") == 0
    [path] = (tmp_path / "out").iterdir()
    assert path.name == f"{series.name}.nii.gz"
    mask = nibabel.load(path)
    array, meta = CaseReader().get_data(CaseReader().read(series))
    assert mask.shape == array.shape[1:] == study.volume.shape
    np.testing.assert_allclose(mask.affine, np.asarray(meta["affine"]), atol=1e-4)


def test_unreadable_inputs_are_told_and_the_rest_goes_on(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "c"):
        Image.fromarray(_pixels(41, 60)).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:300])
    Image.fromarray(_pixels(9, 9, 3)).save(folder / "d.png")
    assert _predict(bundle, folder, tmp_path / "out") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"genseg: {folder / 'b.png'}: wanted an image, it cannot be read")
    assert lines[1].startswith(f"genseg: {folder / 'd.png'}: wanted 1 channel(s), got 3")
    assert lines[2] == "genseg: predict: 2 of 4 inputs failed, each told above"


def test_only_unreadable_inputs(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    assert _predict(bundle, tmp_path / "a.png", tmp_path / "out") == 1
    assert "1 of 1 inputs failed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unasked(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(_pixels(41, 60)).save(source)
    out.mkdir()
    (out / "a.png").write_bytes(b"mine")
    assert _predict(bundle, source, out) == 2
    assert capsys.readouterr().err.startswith(f"genseg: {out / 'a.png'}: there is a mask already")
    assert (out / "a.png").read_bytes() == b"mine"
    assert _predict(bundle, source, out, "--overwrite") == 0
    assert np.asarray(Image.open(out / "a.png")).shape == (41, 60)
    assert _predict(bundle, source, tmp_path, "--overwrite") == 2, "the image itself"
    np.testing.assert_array_equal(np.asarray(Image.open(source)), _pixels(41, 60))


def test_two_images_of_one_name(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for ending in ("png", "jpg"):
        Image.fromarray(_pixels(41, 60)).save(folder / f"a.{ending}")
    assert _predict(bundle, folder, tmp_path / "out") == 2
    assert "got several called 'a'" in capsys.readouterr().err


def test_wrong_use(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    Image.fromarray(_pixels(4, 4)).save(tmp_path / "a.png")
    for source, of, told in [
        (tmp_path / "nothing", bundle, f"{tmp_path / 'nothing'}: wanted images, there is no such file or folder"),
        (empty, bundle, f"{empty}: wanted PNG"),
        (tmp_path / "a.png", empty, f"{empty / 'models' / 'model.pt'}: wanted the weights of a trained segmenter"),
    ]:
        assert _predict(of, source, tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert said.startswith(f"genseg: {told}")
        assert said.count("\n") == 1
    assert main(["predict", "--bundle", str(bundle), "--input", str(tmp_path), "--output", "o", "--device", "gpu"]) == 2
    assert "--device: wanted cpu, cuda or cuda:N, got 'gpu'" in capsys.readouterr().err


def test_damaged_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "b")
    Image.fromarray(_pixels(4, 4)).save(tmp_path / "a.png")
    (bundle / "models" / "model.pt").write_bytes(b"nothing")
    assert _predict(bundle, tmp_path / "a.png", tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith(f"genseg: {bundle / 'models' / 'model.pt'}: wanted weights, cannot read")
