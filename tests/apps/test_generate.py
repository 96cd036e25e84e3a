from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from genseg_monai.__main__ import main
from genseg_monai.apps.workflow import open_workflow
from genseg_monai.data.cases import data_folder, find_cases
from genseg_monai.data.read import CaseReader
from genseg_monai.transforms.scene import hole_of
from tests.bundle.tiny import PLAN_2D, PLAN_3D, make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "grey", generator=True)


@pytest.fixture(scope="module")
def masks() -> Path:
    return data_folder("phantom://2d?cases=3&size=32") / "masks"


def _generate(bundle: Path, masks: Path, out: Path, *more: str) -> int:
    return main(
        ["generate", "--bundle", str(bundle), "--masks", str(masks), "--output", str(out), "--device", "cpu", *more]
    )


def _read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_pairs(bundle: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _generate(bundle, masks, tmp_path, "--count", "3") == 0
    assert capsys.readouterr().out == f"9 images and masks written to {tmp_path}\n"
    cases = find_cases(tmp_path)
    assert [case["case"] for case in cases] == [f"case_{i:03d}_{j}" for i in range(3) for j in range(3)]
    drawn = [_read(Path(case["label"])) for case in cases]
    assert {mask.shape for mask in drawn} == {(32, 32)}
    assert set(np.unique(drawn)) == {0, 255}, "the label values of the training data"
    assert all(_read(Path(case["image"])).shape == (32, 32) for case in cases)
    # the first shows the mask as it is, at the working size; the others do not
    np.testing.assert_array_equal(drawn[0], _read(masks / "case_000.png"))
    assert (drawn[1] != drawn[0]).any()
    assert (drawn[2] != drawn[1]).any()


def test_the_seed_decides(bundle: Path, masks: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert _generate(bundle, masks, tmp_path / name, "--count", "2", "--seed", seed) == 0
    a, b, c = (_read(tmp_path / name / "masks" / "case_000_1.png") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_one_image_a_mask_keeps_the_name(bundle: Path, masks: Path, tmp_path: Path) -> None:
    assert _generate(bundle, masks / "case_001.png", tmp_path) == 0
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")) == [
        "images/case_001.png",
        "masks/case_001.png",
    ]


def test_colour(masks: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", PLAN_2D | {"in_channels": 3}, generator=True)
    assert _generate(bundle, masks, tmp_path / "out") == 0
    assert _read(tmp_path / "out" / "images" / "case_000.png").shape == (32, 32, 3)


@pytest.mark.parametrize("plan", [PLAN_2D, PLAN_3D])
def test_objects_are_drawn_into_images(
    tmp_path: Path, plan: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first pair of a case is its own image but for the object."""
    bundle = make_bundle(tmp_path / "b", plan, generator=True, scene=True)
    data = data_folder(f"phantom://{plan['spatial_dims']}d?cases=3&size=32")
    images, masks = (data / name for name in (("images", "masks") if plan is PLAN_2D else ("imagesTr", "labelsTr")))
    assert _generate(bundle, masks, tmp_path / "none") == 2
    assert "case_000: wanted its image too, since this generator starts from real images" in capsys.readouterr().err
    assert _generate(bundle, masks, tmp_path / "out", "--images", str(images), "--count", "2") == 0
    cases = find_cases(tmp_path / "out")
    assert [case["case"] for case in cases] == [f"case_{i:03d}_{j}" for i in range(3) for j in range(2)]
    preprocessed = open_workflow(
        bundle, "generate", dataset_dir=str(masks), image_dir=str(images), output_dir=str(tmp_path), device="cpu"
    ).parser.get_parsed_content("dataset")
    for i, item in enumerate(preprocessed):
        mask = torch.nn.functional.one_hot(item["label"].long()[0], len(plan["classes"])).movedim(-1, 0)[None].float()
        outside = ~hole_of(mask)[0].bool().expand_as(item["image"])
        drawn, _ = CaseReader().get_data(CaseReader().read(cases[2 * i]["image"]))
        drawn = torch.tensor(drawn).float() / (255 if plan is PLAN_2D else 1)
        assert (drawn.reshape(item["image"].shape)[outside] - item["image"][outside]).abs().max() < 0.01
    wrong = tmp_path / "one"
    wrong.mkdir()
    shutil.copy(sorted(images.iterdir())[0], wrong)
    assert _generate(bundle, masks, tmp_path / "more", "--images", str(wrong)) == 2
    assert "wanted an image for every mask, 2 have none, the first is case_001" in capsys.readouterr().err


def test_the_looks_of_images_are_taken(masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "b", PLAN_2D, generator=True, scene=True)
    config = bundle / "configs" / "generate.yaml"
    config.write_text(config.read_text().replace("pairs: null", "pairs: styles"))
    assert "pairs: styles" in config.read_text()
    images = data_folder("phantom://2d?cases=3&size=32") / "images"
    assert _generate(bundle, images.parent / "masks", tmp_path / "out", "--images", str(images), "--count", "2") == 0
    assert len(find_cases(tmp_path / "out")) == 6
    config.write_text(config.read_text().replace("pairs: styles", "pairs: masks"))
    assert _generate(bundle, masks, tmp_path / "masks", "--images", str(images)) == 2
    assert "synthesis: wanted scenes or styles, as the generator draws, got masks" in capsys.readouterr().err


def test_volumes(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", PLAN_3D, generator=True)
    labels = data_folder("phantom://3d?cases=3&size=32") / "labelsTr"
    assert _generate(bundle, labels, tmp_path / "out") == 0
    image = nibabel.load(tmp_path / "out" / "images" / "case_000.nii.gz")
    mask = nibabel.load(tmp_path / "out" / "masks" / "case_000.nii.gz")
    assert image.shape == mask.shape == (32, 32, 32)
    np.testing.assert_array_equal(image.affine, mask.affine)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}
    assert 0 <= image.get_fdata().min() <= image.get_fdata().max() <= 1


def test_nothing_is_overwritten(bundle: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _generate(bundle, masks, tmp_path) == 0
    before = (tmp_path / "images" / "case_000.png").read_bytes()
    assert _generate(bundle, masks, tmp_path, "--seed", "5") == 2
    assert "case_000.png: wanted to write here, a file is there" in capsys.readouterr().err
    assert (tmp_path / "images" / "case_000.png").read_bytes() == before


def test_wrong_use(bundle: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = make_bundle(tmp_path / "plain")
    assert _generate(plain, masks, tmp_path / "out") == 2
    assert "generator.json: wanted a trained generator" in capsys.readouterr().err
    assert _generate(bundle, masks, tmp_path / "out", "--count", "0") == 2
    assert capsys.readouterr().err == "genseg: count: wanted 1 image a mask or more, got 0\n"
    assert _generate(bundle, tmp_path / "none", tmp_path / "out") == 2
    assert "wanted masks, there is no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unexpected_label_value(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.full((8, 8), 3, np.uint8)).save(tmp_path / "masks" / "a.png")
    assert _generate(bundle, tmp_path / "masks", tmp_path / "out") == 1
    assert "a.png: wanted the label values 0, 255, got also 3" in capsys.readouterr().err
