"""To the working grid and back: shape and affine exact, values where they belong, through MONAI's own `Invertd`."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, PILReader, decollate_batch
from monai.transforms import Activationsd, AsDiscreted, Compose, EnsureTyped, Invertd, LoadImaged, Orientationd
from PIL import Image
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

from genseg_monai.errors import UserError
from genseg_monai.transforms import Normalised, ToWorkingGrid, ToWorkingGridd


def oblique(spacing: tuple[float, float, float], seed: int = 0, flipped: bool = False) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -13, 31], degrees=True).as_matrix() @ np.diag(spacing)
    if flipped:
        affine[:3, :3] = affine[:3, :3][:, [2, 0, 1]] * [-1, 1, -1]
    affine[:3, 3] = np.random.default_rng(seed).uniform(-200, 200, 3)
    return affine


def world_ramp(size: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return an image whose value is a linear function of the place in space: any error of the affine shows."""
    index = np.stack([*np.indices(size), *[np.zeros(size)] * (3 - len(size)), np.ones(size)])
    place = np.tensordot(affine, index, axes=1)
    return 0.3 * place[0] - 0.5 * place[1] + 0.7 * place[2]


def voxel(affine: np.ndarray) -> float:
    """Return how much that image changes from one voxel to the next, along the axis where it changes most."""
    return float(np.abs(np.array([0.3, -0.5, 0.7]) @ affine[:3, :3]).max())


CASES = [
    ((37, 91), (64, 64), None),
    ((301, 127), (64, 96), None),
    ((11, 9), (64, 64), None),
    ((33, 47, 21), (32, 32, 32), None),
    ((33, 47, 9), (48, 48, 48), (1.0, 1.0, 1.0)),
    ((61, 47, 9), (16, 32, 48), (0.8, 0.8, 1.5)),
    ((1, 1, 1), (16, 16, 16), (1.0, 1.0, 1.0)),
]


@pytest.mark.parametrize(("native", "size", "spacing"), CASES)
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
class TestRoundTrip:
    def test_shape_and_affine_come_back_exactly(
        self, native: tuple[int, ...], size: tuple[int, ...], spacing: tuple[float, ...] | None, mode: str
    ) -> None:
        affine = torch.from_numpy(oblique((0.7, 0.9, 3.3)))
        image = MetaTensor(torch.rand(2, *native), affine=affine)
        grid = ToWorkingGrid(size, spacing, mode)
        working = grid(image)
        assert working.shape == (2, *size)
        assert len(working.applied_operations) == 1
        assert image.applied_operations == []
        back = grid.inverse(working)
        assert back.shape == image.shape
        assert torch.equal(back.affine, affine)
        assert back.applied_operations == []

    def test_a_constant_comes_back_as_it_was(
        self, native: tuple[int, ...], size: tuple[int, ...], spacing: tuple[float, ...] | None, mode: str
    ) -> None:
        grid = ToWorkingGrid(size, spacing, mode)
        image = MetaTensor(torch.full((1, *native), 0.7), affine=torch.from_numpy(oblique((0.7, 0.9, 3.3))))
        torch.testing.assert_close(grid.inverse(grid(image)).as_tensor(), image.as_tensor())


@pytest.mark.parametrize(("native", "size", "spacing"), [case for case in CASES if min(case[0]) > 1])
def test_affine_says_where_each_voxel_is(
    native: tuple[int, ...], size: tuple[int, ...], spacing: tuple[float, ...] | None
) -> None:
    affine = oblique((0.7, 0.9, 3.3))
    image = torch.from_numpy(world_ramp(native, affine)[None])
    grid = ToWorkingGrid(size, spacing)
    working = grid(MetaTensor(image, affine=torch.from_numpy(affine)))
    operation = working.applied_operations[-1]["extra_info"]
    # away from the edge, where the filter is cut, a line stays a line (the discrete filter ripples a little about it)
    steps = [max(1, -(-i // n)) + 1 for i, n in zip(operation["inner"], native, strict=True)]
    inside = tuple(
        slice(b + s, b + i - s) for b, i, s in zip(operation["before"], operation["inner"], steps, strict=True)
    )
    error = (working[0].numpy() - world_ramp(size, working.affine.numpy()))[inside] / voxel(working.affine.numpy())
    assert error.size
    assert np.abs(error).max() < 0.05
    assert abs(error.mean()) < 0.002
    error = (grid.inverse(working)[0].numpy() - image[0].numpy()) / voxel(affine)
    margins = [2 * -(-n // i) for n, i in zip(native, operation["inner"], strict=True)]
    error = error[tuple(slice(m, -m) for m in margins)]
    assert error.size
    assert np.abs(error).max() < 0.2
    assert abs(error.mean()) < 0.01


def test_spacing_of_the_working_grid() -> None:
    image = MetaTensor(torch.rand(1, 40, 44, 10), affine=torch.from_numpy(oblique((0.75, 0.75, 3.0))))
    affine = ToWorkingGrid((64, 64, 64), (1.0, 1.0, 1.0))(image).affine.numpy()
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), [1.0, 1.0, 1.0], rtol=1e-12)


@pytest.mark.parametrize("native", [(37, 91), (21, 15, 33)])
def test_labels_that_are_not_shrunk_come_back_to_the_bit(native: tuple[int, ...]) -> None:
    label = MetaTensor(torch.randint(0, 5, (1, *native), dtype=torch.uint8))
    grid = ToWorkingGrid((96,) * len(native), mode="nearest")
    back = grid.inverse(grid(label))
    assert back.dtype == torch.uint8
    assert torch.equal(back.as_tensor(), label.as_tensor())


def test_an_image_of_the_working_size_is_left_alone() -> None:
    image = MetaTensor(torch.rand(3, 64, 48), affine=torch.eye(4, dtype=torch.float64))
    working = ToWorkingGrid((64, 48))(image)
    assert torch.equal(working.as_tensor(), image.as_tensor())
    assert torch.equal(working.affine, image.affine)


def test_padding_is_dark_in_images_and_background_in_labels() -> None:
    image = torch.stack([torch.full((8, 16), -1000.0), torch.full((8, 16), 5.0)])
    image[:, 0, 0] += 1
    case = {"image": image, "label": torch.ones(1, 8, 16, dtype=torch.uint8)}
    case = ToWorkingGridd(("image", "label"), (16, 16), mode=("bilinear", "nearest"), max_upscale=1)(case)
    assert bool((case["image"][0, :4] == -1000).all())
    assert bool((case["image"][1, :4] == 5).all())
    assert int(case["label"].sum()) == 8 * 16
    assert bool((case["label"][:, 4:12] == 1).all())


def test_probabilities_still_sum_to_one() -> None:
    grid = ToWorkingGrid((32, 32))
    working = grid(MetaTensor(torch.rand(1, 75, 41)))
    guess = MetaTensor(torch.softmax(torch.randn(3, 32, 32), 0), applied_operations=working.applied_operations)
    back = grid.inverse(guess)
    assert back.shape == (3, 75, 41)
    torch.testing.assert_close(back.as_tensor().sum(0), torch.ones(75, 41))


def pipeline(root: Path, reader: object, spatial: int) -> tuple[Compose, Compose]:
    pre = [LoadImaged("image", reader=reader, ensure_channel_first=True, image_only=True)]
    if spatial == 3:
        pre.append(Orientationd("image", axcodes="RAS", labels=None))
    size, spacing = ((64, 64), None) if spatial == 2 else ((96, 96, 96), (1.0, 1.0, 1.0))
    pre += [Normalised("image", "range", 0, 255), ToWorkingGridd("image", size, spacing), EnsureTyped("image")]
    before = Compose(pre)
    after = Compose(
        [
            Activationsd("pred", softmax=True),
            Invertd("pred", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True),
            AsDiscreted("pred", argmax=True),
        ]
    )
    return before, after


def threshold(image: torch.Tensor) -> torch.Tensor:
    """Stand in for a network: two logits, the object being what is brighter than one half."""
    return torch.cat([0.5 - image, image - 0.5], dim=1) * 100


def predict(file: Path, spatial: int, reader: object = None, batch: int = 1) -> list[dict]:
    before, after = pipeline(file.parent, reader, spatial)
    loader = DataLoader(Dataset([{"image": str(file)}] * batch, before), batch_size=batch)
    batches = [{"image": data["image"], "pred": threshold(data["image"])} for data in loader]
    return [after(item) for data in batches for item in decollate_batch(data)]


def ball(size: tuple[int, ...]) -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    return sum((axis - shift) ** 2 for axis, shift in zip(axes, (0.2, -0.1, 0.1), strict=False)) < 0.4


def check_place(mask: np.ndarray, truth: np.ndarray) -> None:
    """Check that what went to a coarser grid and back lost a little of its edge, and did not move."""
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.94
    np.testing.assert_allclose(center_of_mass(mask), center_of_mass(truth), atol=0.35)


@pytest.mark.parametrize("size", [(35, 61, 17), (36, 23, 9)])
@pytest.mark.parametrize("flipped", [False, True])
def test_nifti_through_monai(tmp_path: Path, size: tuple[int, int, int], flipped: bool) -> None:
    truth = ball(size)
    image = nib.Nifti1Image(truth.astype(np.float32) * 255, oblique((0.8, 0.7, 2.5), flipped=flipped))
    file = tmp_path / "a.nii.gz"
    nib.save(image, file)
    native = nib.load(file).affine
    for item in predict(file, 3, batch=2):
        assert item["pred"].shape == (1, *size)
        np.testing.assert_allclose(item["pred"].affine.numpy(), native, atol=1e-10, rtol=0)
        check_place(item["pred"][0].numpy() == 1, truth)


@pytest.mark.parametrize("size", [(35, 61), (301, 127), (25, 100)])
def test_pictures_through_monai(tmp_path: Path, size: tuple[int, int]) -> None:
    truth = ball(size)
    file = tmp_path / "a.png"
    Image.fromarray(truth.astype(np.uint8) * 255).save(file)
    [item] = predict(file, 2, PILReader(reverse_indexing=False))
    assert item["pred"].shape == (1, *size)
    check_place(item["pred"][0].numpy() == 1, truth)


def test_nearest_when_monai_asks_for_it() -> None:
    before = Compose([ToWorkingGridd("image", (32, 32))])
    case = before({"image": MetaTensor(torch.rand(1, 57, 41))})
    case["pred"] = MetaTensor(torch.randint(0, 7, (1, 32, 32)).float())
    back = Invertd("pred", transform=before, orig_keys="image", nearest_interp=True)(case)["pred"]
    assert set(back.unique().tolist()) <= set(range(7))
    smooth = Invertd("pred", transform=before, orig_keys="image", nearest_interp=False)(case)["pred"]
    assert len(smooth.unique()) > 7
    assert smooth.shape == back.shape == (1, 57, 41)


def test_dictionary_inverse_brings_all_keys_back() -> None:
    grid = ToWorkingGridd(("image", "label"), (32, 32), mode=("bilinear", "nearest"))
    case = {"image": torch.rand(3, 20, 30), "label": torch.randint(0, 3, (1, 20, 30))}
    back = grid.inverse(grid(case))
    assert back["image"].shape == (3, 20, 30)
    assert torch.equal(back["label"].as_tensor(), case["label"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (0, 4)}, "size: wanted 2 or 3 numbers above 0"),
        ({"size": (4,)}, "size: wanted 2 or 3 numbers above 0"),
        ({"size": (4, 4), "spacing": (1.0,)}, "spacing: wanted 2 numbers above 0, in mm"),
        ({"size": (4, 4), "spacing": (1.0, -1.0)}, "spacing: wanted 2 numbers above 0, in mm"),
        ({"size": (4, 4), "mode": "area"}, "mode: wanted one of bilinear, nearest, got 'area'"),
        ({"size": (4, 4), "max_upscale": 0}, "max_upscale: wanted a factor above 0, got 0"),
    ],
)
def test_settings_that_mean_nothing(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToWorkingGrid(**settings)


def test_wrong_input_names_the_file() -> None:
    volume = MetaTensor(torch.rand(1, 4, 5, 6), meta={"filename_or_obj": "scan.nii.gz"})
    with pytest.raises(
        UserError, match=r"scan.nii.gz: wanted channels and an image of 2 axes, got shape \(1, 4, 5, 6\)"
    ):
        ToWorkingGrid((8, 8))(volume)
    grid = ToWorkingGrid((8, 8, 8))
    working = grid(volume)
    other = MetaTensor(torch.rand(2, 4, 4, 4), meta=working.meta, applied_operations=working.applied_operations)
    with pytest.raises(
        UserError, match=r"scan.nii.gz: wanted a prediction of the working size \(8, 8, 8\), got \(4, 4, 4\)"
    ):
        grid.inverse(other)
