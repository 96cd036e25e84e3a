"""Maps of how unsure a prediction is."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from scipy.stats import entropy

from genseg_monai.errors import UserError
from genseg_monai.transforms.uncertainty import SaveUncertaintyd, Uncertaintyd, case_uncertainty, entropy_map


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_entropy_is_that_of_scipy(classes: int) -> None:
    p = torch.randn(classes, 4, 5, 2, generator=torch.Generator().manual_seed(0)).softmax(0)
    wanted = entropy(p.numpy(), axis=0) / math.log(classes)
    np.testing.assert_allclose(entropy_map(p)[0].numpy(), wanted, atol=1e-6)


def test_certainty_and_a_guess() -> None:
    assert entropy_map(torch.eye(3)[:, :, None]).abs().max() == 0
    assert entropy_map(torch.full((4, 2, 2), 0.25)).numpy() == pytest.approx(np.ones((1, 2, 2)))


def test_plain_background_does_not_count() -> None:
    p = torch.zeros(2, 10, 10)
    p[0] = 1.0
    assert case_uncertainty(p) == 0.0
    p[:, 3, 3:5] = 0.5
    assert case_uncertainty(p) == pytest.approx(1.0)


def case(name: str, shape: tuple[int, ...], affine: np.ndarray | None = None) -> dict[str, object]:
    p = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    meta = {"filename_or_obj": name, "spatial_shape": np.array(shape)}
    pred = MetaTensor(p / p.sum(0), affine=None if affine is None else torch.as_tensor(affine), meta=meta)
    return Uncertaintyd("pred")({"pred": pred, "case": Path(name).name.partition(".")[0]})


def test_pictures_and_volumes(tmp_path: Path) -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    save = SaveUncertaintyd(output_dir=tmp_path)
    picture, volume = case("a.png", (5, 7)), case("b.nii.gz", (4, 5, 6), affine)
    for one in (picture, volume):
        assert save(one)["pred"] is one["pred"]
    pixels = np.asarray(Image.open(tmp_path / "a_uncertainty.png"))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.rint(entropy_map(picture["pred"])[0].numpy() * 255))
    stored = nibabel.load(tmp_path / "b_uncertainty.nii.gz")
    assert stored.get_data_dtype() == np.float32
    np.testing.assert_allclose(np.asarray(stored.dataobj), entropy_map(volume["pred"])[0].numpy())
    np.testing.assert_allclose(stored.affine, affine)
    lines = (tmp_path / "uncertainty.csv").read_text().splitlines()
    assert lines == ["case,uncertainty"] + [
        f"{n},{c['result']['uncertainty']}" for n, c in zip("ab", (picture, volume), strict=True)
    ]
    assert 0 < picture["result"]["uncertainty"] < 1


def test_a_map_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "a_uncertainty.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="a file is there"):
        SaveUncertaintyd(output_dir=tmp_path)(case("a.png", (5, 7)))
    SaveUncertaintyd(output_dir=tmp_path, overwrite=True)(case("a.png", (5, 7)))


def test_the_result_of_others_stays() -> None:
    assert Uncertaintyd("pred")({"pred": torch.full((2, 1, 1), 0.5), "result": {"time": 1}})["result"]["time"] == 1
