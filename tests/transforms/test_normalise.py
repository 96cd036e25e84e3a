"""Intensities to [0, 1] and labels to class indices, against scikit-image and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from skimage.exposure import rescale_intensity

from genseg_monai.errors import UserError
from genseg_monai.transforms import MapLabel, MapLabeld, Normalise, Normalised

SIZES = [(9, 14), (7, 10, 8)]


@pytest.mark.parametrize("size", SIZES)
class TestSizes:
    @pytest.mark.parametrize(("mode", "lower", "upper"), [("range", 0, 255), ("window", -160, 240)])
    def test_fixed_bounds_against_scikit_image(
        self, size: tuple[int, ...], mode: str, lower: float, upper: float
    ) -> None:
        image = torch.randint(-1000, 1000, (2, *size), dtype=torch.int16)
        reference = rescale_intensity(image.numpy().astype(np.float64), (lower, upper), (0, 1))
        normal = Normalise(mode, lower, upper)(image)
        assert normal.dtype == torch.float32
        np.testing.assert_allclose(normal.numpy(), reference, atol=1e-6)

    def test_percentiles_against_numpy(self, size: tuple[int, ...]) -> None:
        image = torch.randn(2, *size) * torch.tensor([1.0, 50.0]).reshape(2, *[1] * len(size))
        normal = Normalise("percentile", 1, 99)(image)
        for channel, ours in zip(image.numpy(), normal.numpy(), strict=True):
            bounds = tuple(np.percentile(channel, [1, 99]))
            np.testing.assert_allclose(ours, rescale_intensity(channel, bounds, (0, 1)), atol=1e-5)

    def test_unit_range_is_left_alone(self, size: tuple[int, ...]) -> None:
        image = torch.rand(3, *size)
        assert torch.equal(Normalise("range", 0, 1)(image), image)


def test_percentile_of_many_voxels_is_that_of_a_sample() -> None:
    image = torch.rand(1, 2**12, 2**11)
    normal = Normalise("percentile", 10, 90)(image)
    torch.testing.assert_close(normal, ((image - 0.1) / 0.8).clamp(0, 1), atol=2e-3, rtol=0)


@pytest.mark.parametrize("mode", ["range", "percentile"])
def test_what_is_no_number_becomes_black(mode: str) -> None:
    image = torch.linspace(1, 100, 100).reshape(1, 10, 10)
    image[0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    normal = Normalise(mode, 0, 100)(image)
    assert normal[0, 0, :3].tolist() == [0, 1, 0]
    assert bool(normal.isfinite().all())
    assert float(normal[0, 9, 9]) == 1


@pytest.mark.parametrize("value", [0.0, 7.0, float("nan")])
def test_an_image_of_one_value_becomes_black(value: float) -> None:
    assert torch.equal(Normalise("percentile", 0.5, 99.5)(torch.full((1, 4, 4), value)), torch.zeros(1, 4, 4))


def test_all_16_bits_count() -> None:
    image = torch.tensor([[60000.0, 60001.0, 60002.0]])
    torch.testing.assert_close(Normalise("range", 60000, 60002)(image), torch.tensor([[0.0, 0.5, 1.0]]))


@pytest.mark.parametrize("transform", [Normalised("x", "range", 0, 4), MapLabeld("x", {n: n for n in range(4)})])
def test_a_meta_tensor_keeps_what_it_knows(transform: Normalised | MapLabeld) -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    operations = [{"class": "Something"}]
    given = MetaTensor(
        torch.randint(4, (1, 5, 6)), affine=affine, meta={"filename_or_obj": "a"}, applied_operations=operations
    )
    out = transform({"x": given})["x"]
    assert isinstance(out, MetaTensor)
    assert torch.equal(out.affine, affine)
    assert out.meta["filename_or_obj"] == "a"
    assert out.applied_operations == operations


def test_numpy_comes_in_too() -> None:
    assert Normalise("range", 0, 2)(np.ones((1, 2, 2))).tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    assert MapLabel({3: 1})(np.full((1, 2), 3)).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("zscore", 0, 1), "mode: wanted one of range, percentile, window, got 'zscore'"),
        (("range", 1, 1), "lower, upper: wanted lower < upper, got 1 and 1"),
        (("percentile", 0.5, 101), r"lower, upper: wanted percentiles in \[0, 100\], got 0.5 and 101"),
    ],
)
def test_settings_that_mean_nothing(settings: tuple[str, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normalise(*settings)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_values_become_indices(size: tuple[int, ...], dtype: torch.dtype) -> None:
    indices = torch.randint(0, 3, (1, *size), dtype=torch.uint8)
    raw = torch.tensor([0, 85, 170])[indices.long()].to(dtype)
    assert torch.equal(MapLabel({0: 0, 85: 1, 170: 2})(raw), indices)


def test_values_may_share_a_class() -> None:
    assert MapLabel({0: 0, 1: 1, 4: 1})(torch.tensor([[0, 1, 4]])).tolist() == [[0, 1, 1]]


def test_unexpected_values_are_named_with_their_file() -> None:
    label = MetaTensor(torch.tensor([[0.0, 3.0, 254.5, 255.0]]), meta={"filename_or_obj": "masks/b.png"})
    with pytest.raises(UserError, match=r"masks/b.png: wanted the label values 0, 255, got also 3, 254.5; list them"):
        MapLabeld("label", {0: 0, 255: 1})({"label": label})
    with pytest.raises(UserError, match=r"got also 1, 2, 3, 4, 5, 6, 7, 8, \.\.\.; list"):
        MapLabel({0: 0})(torch.arange(20))


def test_maps_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="values: wanted raw value -> class index, got none"):
        MapLabel({})
    with pytest.raises(ValueError, match="values: wanted class indices of 0 to 255"):
        MapLabel({0: -1})


def test_missing_keys() -> None:
    assert Normalised("image", "range", 0, 1, allow_missing_keys=True)({}) == {}
    with pytest.raises(KeyError, match="image"):
        Normalised("image", "range", 0, 1)({})
