"""How an image lies in the working grid, and scaling against Pillow and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from genseg_monai.transforms import GridFit, fit_grid, resize, resize_label


def by_pillow(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Scale two or three axes by Pillow's antialiased triangle filter, in planes and then in lines."""
    if image.ndim == 2:
        return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    planes = np.stack([by_pillow(plane, size[1:]) for plane in image])
    lines = [by_pillow(planes[:, y], (size[0], size[2])) for y in range(size[1])]
    return np.stack(lines, axis=1)


@pytest.mark.parametrize(
    ("native", "size"),
    [((13, 29), (7, 8)), ((5, 6), (11, 9)), ((9, 30), (20, 11)), ((9, 14, 11), (5, 7, 16)), ((4, 5, 6), (9, 9, 9))],
)
def test_images_against_pillow(native: tuple[int, ...], size: tuple[int, ...]) -> None:
    image = torch.rand(2, *native)
    scaled = resize(image, size, "bilinear")
    reference = np.stack([by_pillow(channel.numpy(), size) for channel in image])
    torch.testing.assert_close(scaled, torch.from_numpy(reference), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("native", "size"), [((13, 29), (7, 8)), ((9, 14, 11), (5, 28, 16))])
def test_nearest_voxel_by_numpy(native: tuple[int, ...], size: tuple[int, ...]) -> None:
    label = torch.randint(0, 200, (1, *native), dtype=torch.uint8)
    places = [np.floor((np.arange(s) + 0.5) * n / s).astype(int) for n, s in zip(native, size, strict=True)]
    reference = label.numpy()[0][np.ix_(*places)]
    scaled = resize(label, size, "nearest")
    assert scaled.dtype == torch.uint8
    np.testing.assert_array_equal(scaled[0].numpy(), reference)


@pytest.mark.parametrize(("native", "size"), [((5, 9), (7, 20)), ((5, 9, 3), (5, 10, 8))])
def test_labels_that_grow_take_the_nearest_voxel(native: tuple[int, ...], size: tuple[int, ...]) -> None:
    label = torch.randint(0, 5, (1, *native), dtype=torch.uint8)
    assert torch.equal(resize_label(label, size), resize(label, size, "nearest"))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize(("native", "size"), [((24, 40), (12, 13)), ((24, 40, 12), (12, 40, 7))])
def test_labels_that_shrink_keep_what_fills_a_voxel(
    native: tuple[int, ...], size: tuple[int, ...], dtype: torch.dtype
) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=native), 2)
    label = np.digitize(noise, np.quantile(noise, [0.5, 0.75])) * 100
    shares = np.stack([by_pillow((label == value).astype(np.float32), size) for value in (0, 100, 200)])
    expected = np.where(shares[0] > 0.6, 0, 100 * (1 + shares[1:].argmax(0)))
    ours = resize_label(torch.from_numpy(label)[None].to(dtype), size)
    assert ours.dtype == dtype
    sure = np.abs(shares[0] - 0.6) > 1e-4
    sure &= np.abs(shares[1] - shares[2]) > 1e-4
    np.testing.assert_array_equal(ours[0].numpy()[sure], expected[sure])


def test_what_has_too_many_values_takes_the_nearest_voxel() -> None:
    image = torch.rand(1, 40, 40)
    assert torch.equal(resize_label(image, (13, 20)), resize(image, (13, 20), "nearest"))


def test_labels_shrunk_to_one_half_stay_where_they_are() -> None:
    label = torch.zeros(1, 40, 40, dtype=torch.uint8)
    label[:, 11:29, 10:30] = 1
    for size in ((20, 20), (10, 10)):
        small = resize_label(label, size)[0].numpy()
        place = (np.array(ndimage.center_of_mass(small)) + 0.5) * 40 / size[0] - 0.5
        np.testing.assert_allclose(place, [19.5, 19.5])


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(5, 7), (5, 7, 3)])
def test_same_size_same_values(mode: str, size: tuple[int, ...]) -> None:
    image = torch.rand(2, *size)
    assert torch.equal(resize(image, size, mode), image)


@pytest.mark.parametrize("size", [(3, 9), (11, 4, 6)])
def test_a_constant_stays_constant(size: tuple[int, ...]) -> None:
    image = torch.full((1, *[7] * len(size)), 0.3)
    torch.testing.assert_close(resize(image, size, "bilinear"), torch.full((1, *size), 0.3))


@pytest.mark.parametrize("native", [(1, 1), (63, 65), (64, 64), (640, 479), (1, 500), (17, 301)])
def test_all_of_the_image_fits_with_its_aspect(native: tuple[int, int]) -> None:
    fit = fit_grid(native, (64, 96))
    assert fit.size == (64, 96)
    assert all(1 <= i <= s for i, s in zip(fit.inner, fit.size, strict=True))
    assert all(abs(a - b) <= 1 for a, b in zip(fit.after, fit.before, strict=True))
    factor = min(2.0, 64 / native[0], 96 / native[1])
    for n, inner in zip(native, fit.inner, strict=True):
        assert abs(inner - max(1, n * factor)) <= 0.5
    assert factor == 2 or any(i == s for i, s in zip(fit.inner, fit.size, strict=True))


def test_small_pictures_are_enlarged_twofold_at_most() -> None:
    assert fit_grid((10, 10), (64, 64)).inner == (20, 20)
    assert fit_grid((10, 10), (64, 64), max_upscale=1).inner == (10, 10)


def test_spacing_is_met_or_shrunk_with_the_aspect() -> None:
    assert fit_grid((100, 100, 20), (128, 128, 128), (1.0, 1.0, 5.0)).inner == (100, 100, 100)
    assert fit_grid((100, 100, 20), (64, 64, 64), (1.0, 1.0, 5.0)).inner == (64, 64, 64)
    assert fit_grid((200, 100, 20), (64, 64, 64), (1.0, 1.0, 5.0)).inner == (64, 32, 32)


def test_map_of_centres_by_hand() -> None:
    fit = GridFit(native=(10, 4), inner=(5, 4), before=(1, 2), after=(0, 0))
    # working row 1 is the first of the image: it covers native rows 0 and 1, its centre lies between them
    np.testing.assert_allclose(fit.index_map() @ [1, 2, 0, 1], [0.5, 0, 0, 1])
    np.testing.assert_allclose(fit.index_map() @ [5, 5, 0, 1], [8.5, 3, 0, 1])
