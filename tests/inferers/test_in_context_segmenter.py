from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from genseg_monai.data.cases import find_cases
from genseg_monai.data.read import CaseReader, LabelReader
from genseg_monai.errors import UserError
from genseg_monai.inferers.in_context import InContextSettings
from genseg_monai.inferers.in_context_inferer import InContextInferer
from genseg_monai.inferers.in_context_segmenter import InContextSegmenter
from genseg_monai.inferers.support_cases import read_supports, support_plan
from tests.data.sets import picture, pictures, volume

PLAIN = InContextSettings(ensemble=1, augment=False)


class Bright(torch.nn.Module):
    """Finds what is bright in the query, and never what no support has."""

    def forward(self, query: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return torch.where(labels.mean(1) > 1.1, 0, 40 * (query - 0.5))


def _box(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume that holds a bright box of 12 x 8 x 20 mm at a place in the world, and its label."""
    shape = (24, 20, 12)
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    inside = (np.abs(world - [3, -2, 5]) < [6.1, 4.1, 10.1]).all(-1)
    return np.where(inside, 200, 40).astype(np.int16), inside.astype(np.uint8)


STRAIGHT = np.array([[1.5, 0, 0, -14], [0, 1.5, 0, -16], [0, 0, 4, -20], [0, 0, 0, 1.0]])
# axes stored as head-foot, left-right, back-front
TURNED = np.array([[0, -1.5, 0, 16], [0, 0, 4.0, -24], [-1.5, 0, 0, 22], [0, 0, 0, 1.0]])


def _volumes(root: Path, affine: np.ndarray, count: int = 3) -> Path:
    for i in range(count):
        image, label = _box(affine)
        volume(root / "imagesTr" / f"v{i}.nii.gz", image + i, affine)
        volume(root / "labelsTr" / f"v{i}.nii.gz", label, affine)
    return root


def test_pictures_at_their_size(tmp_path: Path) -> None:
    cases = find_cases(pictures(tmp_path / "d"))
    segmenter = InContextSegmenter(Bright(), cases, PLAIN, size=32)
    pixels = np.full((37, 50), 30, np.uint8)
    pixels[10:20, 15:40] = 220
    found = segmenter.segment(picture(tmp_path / "q.png", pixels))
    assert found.mask.shape == (1, 37, 50)
    assert found.mask.dtype == torch.uint8
    truth = torch.from_numpy(pixels > 100)
    assert 2 * ((found.mask[0] == 1) & truth).sum() / ((found.mask[0] == 1).sum() + truth.sum()) > 0.9
    torch.testing.assert_close(found.probabilities.sum(0).as_tensor(), torch.ones(37, 50))
    assert 0 <= found.uncertainty < 0.5
    assert found.mask.meta["filename_or_obj"] == str(tmp_path / "q.png")


@pytest.mark.parametrize("stored", ["straight", "turned"])
def test_volumes_in_their_own_axes(tmp_path: Path, stored: str) -> None:
    """Supports and query may be stored in different orders of axes; the mask is where the object is in the world."""
    segmenter = InContextSegmenter(Bright(), _volumes(tmp_path / "d", STRAIGHT), PLAIN, size=64)
    assert segmenter.inferer.supports.axis == 2, "slices are 4 mm apart from head to foot"
    affine = STRAIGHT if stored == "straight" else TURNED
    image, label = _box(affine)
    found = segmenter.segment(volume(tmp_path / "q.nii.gz", image, affine))
    assert found.mask.shape == (1, *image.shape)
    np.testing.assert_allclose(np.asarray(found.mask.affine), affine, atol=1e-5)
    mask = np.asarray(found.mask[0]) == 1
    assert 2 * (mask & (label == 1)).sum() / (mask.sum() + label.sum()) > 0.85


def test_the_best_axis_is_told_by_the_supports(tmp_path: Path) -> None:
    supports = read_supports(cases := find_cases(_volumes(tmp_path, TURNED)), support_plan(cases), size=32)
    assert supports.axis == 1, "4 mm from back to front"
    assert supports.planes.images.shape[2:] == (32, 32)
    assert set(supports.planes.labels.unique().tolist()) == {0, 1}
    assert supports.planes.positions.min() > 0
    assert supports.planes.positions.max() < 1


def test_arrays_and_files_give_the_same(tmp_path: Path) -> None:
    cases = find_cases(_volumes(tmp_path / "d", TURNED))
    arrays = []
    for case in cases:
        image, meta = CaseReader().get_data(CaseReader().read(case["image"]))
        label, _ = LabelReader().get_data(LabelReader().read(case["label"]))
        arrays.append({key: MetaTensor(torch.as_tensor(value.astype(np.float32)), affine=meta["affine"])
                       for key, value in (("image", image), ("label", label))})  # fmt: skip
    files = InContextSegmenter(Bright(), cases, PLAIN, size=32)
    memory = InContextSegmenter(Bright(), arrays, PLAIN, size=32, plan=files.plan)
    one, other = files.segment(cases[0]), memory.segment(arrays[0])
    torch.testing.assert_close(one.probabilities.as_tensor(), other.probabilities.as_tensor())
    assert support_plan(arrays).classes == files.plan.classes


def test_plain_arrays() -> None:
    random = np.random.default_rng(0)
    label = np.zeros((1, 16, 16), np.uint8)
    label[:, 4:9, 4:9] = 255
    cases = [{"image": random.integers(0, 256, (3, 16, 16), dtype=np.uint8), "label": label} for _ in range(3)]
    segmenter = InContextSegmenter(Bright(), cases, PLAIN, size=16)
    assert segmenter.plan.label_values == {0: 0, 255: 1}
    assert segmenter.plan.in_channels == 3
    assert support_plan(cases, colour=False).in_channels == 1
    assert segmenter.segment(cases[0]["image"]).mask.shape == (1, 16, 16)


def test_colour_and_grey_go_together(tmp_path: Path) -> None:
    cases = find_cases(pictures(tmp_path / "d"))
    colour = np.zeros((20, 24, 3), np.uint8)
    colour[5:9] = 255
    found = InContextSegmenter(Bright(), cases, PLAIN, size=32).segment(picture(tmp_path / "q.png", colour))
    assert (found.mask[0, 6:8] == 1).all()


def test_a_red_object_as_bright_as_the_rest() -> None:
    """The network sees grey alone; what differs in hue is made bright for it."""
    random = np.random.default_rng(0)
    label = np.zeros((1, 24, 24), np.uint8)
    label[:, 6:15, 6:15] = 1

    def photo() -> np.ndarray:
        red = label * np.array([60, -30, 0])[:, None, None]
        return (120 + red + random.normal(0, 3, (3, 24, 24))).astype(np.uint8)

    cases = [{"image": photo(), "label": label} for _ in range(3)]
    for colour, least, most in ((True, 0.95, 1.0), (False, 0.0, 0.7)):
        plan = support_plan(cases, colour=colour)
        mask = InContextSegmenter(Bright(), cases, PLAIN, plan=plan, size=24).segment(photo()).mask[0] == 1
        truth = torch.from_numpy(label[0] > 0)
        assert least <= 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) <= most


def test_volumes_give_few_empty_planes() -> None:
    label = np.zeros((1, 8, 8, 200), np.uint8)
    label[..., 20:150] = 1
    case = {"image": np.random.default_rng(0).normal(size=(1, 8, 8, 200)).astype(np.float32), "label": label}
    supports = read_supports([case], support_plan([case]), size=16, axis=2)
    shown = (supports.planes.labels > 0).flatten(1).any(1)
    assert len(supports.planes) == 64
    assert int((~shown).sum()) == 16
    assert supports.planes.positions.diff().min() > 0


def test_wrong_supports(tmp_path: Path) -> None:
    root = pictures(tmp_path / "d")
    picture(root / "masks" / "c1.png", np.full((9, 9), 255, np.uint8))
    with pytest.raises(UserError, match=r"c1: wanted a label of the size of its image, \(20, 24\), got \(9, 9\)"):
        InContextSegmenter(Bright(), find_cases(root), PLAIN)
    image = np.zeros((1, 8, 8), np.float32)
    with pytest.raises(UserError, match="wanted background and a foreground"):
        support_plan([{"image": image, "label": image.astype(np.uint8)}])


def test_a_volume_among_pictures(tmp_path: Path) -> None:
    segmenter = InContextSegmenter(Bright(), find_cases(pictures(tmp_path / "d")), PLAIN, size=16)
    path = volume(tmp_path / "q.nii.gz", np.zeros((5, 6, 7), np.int16))
    with pytest.raises(UserError, match="wanted pictures, as the supports are, got a volume of 5 x 6 x 7"):
        segmenter.segment(path)
    with pytest.raises(ValueError, match="wanted B 1 H W, got"):
        segmenter.inferer(torch.zeros(1, 1, 4, 4, 4), Bright())


def test_a_batch_is_its_items(tmp_path: Path) -> None:
    cases = find_cases(pictures(tmp_path / "d"))
    inferer = InContextInferer(read_supports(cases, support_plan(cases), size=16), InContextSettings(3, 3))
    batch = torch.rand(2, 1, 20, 24)
    both = inferer(batch, Bright())
    torch.testing.assert_close(both, torch.cat([inferer(one[None], Bright()) for one in batch]))


def test_nothing_is_written_to_the_files(tmp_path: Path) -> None:
    cases = find_cases(_volumes(tmp_path / "d", STRAIGHT))
    before = nibabel.load(cases[0]["image"]).get_fdata()
    InContextSegmenter(Bright(), cases, PLAIN, size=16).segment(cases[0])
    np.testing.assert_array_equal(nibabel.load(cases[0]["image"]).get_fdata(), before)
