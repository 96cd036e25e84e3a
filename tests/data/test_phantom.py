from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from genseg_monai.data import draw_phantom, find_cases, read_splits


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


@pytest.mark.parametrize("dims", [2, 3])
def test_the_same_arguments_draw_the_same_bytes(tmp_path: Path, dims: int) -> None:
    def draw(name: str, **more: int) -> str:
        return digest(draw_phantom(tmp_path / name, spatial_dims=dims, **({"cases": 3, "size": 32} | more)))

    assert draw("a") == draw("b")
    assert draw("a") != draw("c", seed=1)
    draw("d", cases=4)
    first = sorted((tmp_path / "a").rglob("case_000*"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in sorted((tmp_path / "d").rglob("case_000*"))]


def test_pictures_are_hard_but_not_hopeless(tmp_path: Path) -> None:
    draw_phantom(tmp_path, cases=24)
    parts = read_splits(tmp_path)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (16, 4, 4)
    shares, areas, crossings = [], [], []
    for case in find_cases(tmp_path):
        image, mask = (np.asarray(Image.open(case[key])) for key in ("image", "label"))
        assert image.shape == mask.shape == (64, 64)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        inside, around = image[mask > 0], image[ndimage.binary_dilation(mask > 0, iterations=6) & (mask == 0)]
        shares.append((inside.mean() - around.mean()) / 255)
        areas.append((mask > 0).mean())
        crossings.append(np.mean(inside > np.median(around)))
    assert min(areas) > 0.005
    assert max(areas) < 0.3
    assert np.std(shares) > 0.05  # no two cases have the same look
    assert min(shares) < -0.1 < 0 < max(shares)  # dark lesions and bright ones
    assert 0.05 < np.mean(crossings) < 0.5  # grey values overlap: no threshold finds the lesion


def test_volumes_are_ct_with_two_classes(tmp_path: Path) -> None:
    draw_phantom(tmp_path, spatial_dims=3, cases=6, size=48)
    for case in find_cases(tmp_path):
        image, label = nibabel.load(case["image"]), nibabel.load(case["label"])
        np.testing.assert_array_equal(image.affine, label.affine)
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        hounsfield, classes = np.asarray(image.dataobj), np.asarray(label.dataobj)
        assert hounsfield.shape == (48, 48, 24)
        assert (hounsfield.dtype, classes.dtype) == (np.int16, np.uint8)
        assert set(np.unique(classes)) == {0, 1, 2}
        assert hounsfield[0, 0].mean() < -900
        assert 20 < np.median(hounsfield[classes == 1]) < 150
    assert json.loads((tmp_path / "dataset.json").read_text())["labels"]["2"] == "lesion"


@pytest.mark.parametrize("wrong", [{"spatial_dims": 4}, {"cases": 2}, {"size": 16}])
def test_wrong_arguments(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        draw_phantom(tmp_path, **wrong)
