"""Warps of one-hot masks against scipy and against what a hand can work out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from genseg_monai.transforms import Warp, WarpRanges, apply_warp, draw_warp, identity_warp, sampling_grid

SIZES = {2: (9, 14), 3: (7, 10, 8)}
NOTHING = WarpRanges(flip=0, pad=(0, 0), scale=(1, 1), translate=(0, 0), rotate=(0, 0), shear=(0, 0))


def one_hot(size: tuple[int, ...], classes: int = 3, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    labels = torch.randint(classes, (batch, *size))
    return torch.movedim(torch.nn.functional.one_hot(labels, classes), -1, 1).to(dtype)


def drawn(spatial: int, seed: int = 0, ranges: WarpRanges | None = None, batch: int = 2) -> Warp:
    warp = draw_warp(ranges or WarpRanges(flip=0.5), batch, spatial, torch.Generator().manual_seed(seed))
    return warp.to(torch.float64)


def by_scipy(mask: np.ndarray, warp: Warp, item: int) -> np.ndarray:
    """Warp one channel by matrices put together here, in numpy, from the drawn numbers."""
    size = np.asarray(mask.shape, dtype=float)
    n = len(size)
    pad, scale, flip = (value[item].numpy() for value in (warp.pad, warp.scale, warp.flip))
    whole = np.diag(flip * scale / (1 + pad.sum(1)))
    shear = np.eye(n)
    planes = [(0, 1)] if n == 2 else [(0, 1), (0, 2), (1, 2)]
    for (i, j), angle in zip(planes, warp.shear[item].tolist(), strict=True):
        shear[j, i] += math.tan(angle)
    whole = shear @ whole
    for (i, j), angle in zip(planes, warp.rotate[item].tolist(), strict=True):
        turn = np.eye(n)
        turn[[i, i, j, j], [i, j, i, j]] = [math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)]
        whole = turn @ whole
    inverse = np.linalg.inv(whole)
    centre = (size - 1) / 2
    # input = inverse (output - centre - shift) + centre + middle of the padded image
    middle = (pad[:, 1] - pad[:, 0]) / 2 * size
    offset = centre + middle - inverse @ (centre + warp.translate[item].numpy() * size)
    return ndimage.affine_transform(mask, inverse, offset, order=1, mode="grid-constant", cval=0.0)


@pytest.mark.parametrize("spatial", [2, 3])
class TestBoth:
    def test_identity_changes_nothing(self, spatial: int) -> None:
        masks = one_hot(SIZES[spatial])
        torch.testing.assert_close(apply_warp(masks, identity_warp(2, spatial)), masks)

    def test_ranges_of_nothing_are_the_identity(self, spatial: int) -> None:
        masks = one_hot(SIZES[spatial])
        torch.testing.assert_close(apply_warp(masks, drawn(spatial, ranges=NOTHING)), masks)

    def test_masks_stay_masks(self, spatial: int) -> None:
        masks = one_hot(SIZES[spatial], dtype=torch.float32)
        warped = apply_warp(masks, drawn(spatial, ranges=WarpRanges(elastic=0.03)))
        assert not torch.allclose(warped, masks)
        torch.testing.assert_close(warped.sum(1), torch.ones_like(warped[:, 0]))
        assert -1e-6 <= float(warped.min()) <= float(warped.max()) <= 1 + 1e-6

    @pytest.mark.parametrize("seed", range(3))
    def test_against_scipy(self, spatial: int, seed: int) -> None:
        masks, warp = one_hot(SIZES[spatial]), drawn(spatial, seed)
        warped = apply_warp(masks, warp)
        for item in range(2):
            for index in (1, 2):
                reference = torch.from_numpy(by_scipy(masks[item, index].numpy(), warp, item))
                torch.testing.assert_close(warped[item, index], reference, atol=1e-9, rtol=0)

    def test_flip_is_left_to_right(self, spatial: int) -> None:
        masks = one_hot(SIZES[spatial])
        warp = drawn(spatial, ranges=replace(NOTHING, flip=1))
        torch.testing.assert_close(apply_warp(masks, warp), masks.flip(-1 if spatial == 2 else 2))

    def test_shift_by_whole_voxels(self, spatial: int) -> None:
        size = (8,) * spatial
        masks = one_hot(size)
        warp = drawn(spatial, ranges=replace(NOTHING, translate=(0.25, 0.25)))
        expected = torch.zeros_like(masks)
        expected[:, 0] = 1
        inside, origin = (slice(2, None),) * spatial, (slice(None, -2),) * spatial
        expected[(slice(None), slice(None), *inside)] = masks[(slice(None), slice(None), *origin)]
        torch.testing.assert_close(apply_warp(masks, warp), expected)

    def test_quarter_turn(self, spatial: int) -> None:
        size = (6,) * spatial
        masks = one_hot(size)
        warp = identity_warp(2, spatial).to(torch.float64)
        angle = torch.zeros_like(warp.rotate)
        angle[:, 0] = math.pi / 2
        # the first axis goes to the second: rot90 over them, once
        torch.testing.assert_close(apply_warp(masks, replace(warp, rotate=angle)), masks.rot90(1, (2, 3)))

    def test_padding_a_whole_image_halves_it(self, spatial: int) -> None:
        masks = torch.zeros(1, 2, *(8,) * spatial, dtype=torch.float64)
        masks[:, 1] = 1
        warp = drawn(spatial, ranges=replace(NOTHING, pad=(0.5, 0.5)), batch=1)
        assert float(apply_warp(masks, warp)[:, 1].sum()) == pytest.approx(8**spatial / 2**spatial)

    def test_outside_is_background(self, spatial: int) -> None:
        masks = one_hot(SIZES[spatial])
        warp = drawn(spatial, ranges=replace(NOTHING, translate=(2, 2)))
        warped = apply_warp(masks, warp)
        assert bool((warped[:, 0] == 1).all())
        assert bool((warped[:, 1:] == 0).all())

    def test_same_seed_same_warp(self, spatial: int) -> None:
        ranges = WarpRanges(elastic=0.02)
        masks = one_hot(SIZES[spatial])
        first, second = drawn(spatial, 5, ranges), drawn(spatial, 5, ranges)
        assert torch.equal(apply_warp(masks, first), apply_warp(masks, second))
        assert torch.equal(apply_warp(masks, first), apply_warp(masks, first))
        assert not torch.equal(apply_warp(masks, first), apply_warp(masks, drawn(spatial, 6, ranges)))

    def test_items_do_not_know_each_other(self, spatial: int) -> None:
        masks, warp = one_hot(SIZES[spatial]), drawn(spatial)
        alone = Warp(*(getattr(warp, name)[1:] for name in ("flip", "pad", "scale", "translate", "rotate", "shear")))
        torch.testing.assert_close(apply_warp(masks, warp)[1:], apply_warp(masks[1:], alone))

    @pytest.mark.parametrize("name", ["pad", "scale", "translate", "rotate", "shear", "elastic"])
    def test_gradient_to_each_parameter(self, spatial: int, name: str) -> None:
        masks = torch.rand(1, 2, *(5, 4, 6)[:spatial], dtype=torch.float64)
        masks = masks / masks.sum(1, keepdim=True)
        warp = drawn(spatial, ranges=WarpRanges(elastic=0.01, elastic_points=4), batch=1)
        value = getattr(warp, name).clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda v: apply_warp(masks, replace(warp, **{name: v})), (value,))

    def test_gradient_to_the_masks(self, spatial: int) -> None:
        masks = torch.rand(1, 2, *(5, 4, 6)[:spatial], dtype=torch.float64, requires_grad=True)
        warp = drawn(spatial, batch=1)
        assert torch.autograd.gradcheck(lambda m: apply_warp(m, warp), (masks,))

    def test_gradient_reaches_the_ranges(self, spatial: int) -> None:
        bounds = torch.tensor([-15.0, 15.0], requires_grad=True)
        width = torch.tensor(0.02, requires_grad=True)
        ranges = WarpRanges(rotate=(bounds[0], bounds[1]), elastic=width)
        warp = draw_warp(ranges, 2, spatial, torch.Generator().manual_seed(0))
        masks = one_hot(SIZES[spatial], dtype=torch.float32)
        (apply_warp(masks, warp) * torch.rand(masks.shape)).sum().backward()
        assert bool((bounds.grad != 0).all())
        assert float(width.grad) != 0


def test_nearest_gives_hard_masks() -> None:
    warped = apply_warp(one_hot((9, 14)), drawn(2), mode="nearest")
    assert set(warped.unique().tolist()) == {0.0, 1.0}


def test_draws_lie_in_their_ranges() -> None:
    ranges = WarpRanges()
    warp = draw_warp(ranges, 500, 3, torch.Generator().manual_seed(0))
    for name in ("pad", "scale", "translate"):
        lower, upper = getattr(ranges, name)
        value = getattr(warp, name)
        assert lower <= float(value.min()) < float(value.max()) <= upper
        assert float(value.mean()) == pytest.approx((lower + upper) / 2, abs=0.01)
    assert math.degrees(float(warp.rotate.abs().max())) <= 15
    assert math.degrees(float(warp.shear.abs().max())) <= 8
    assert float((warp.flip[:, 0] < 0).float().mean()) == pytest.approx(0.5, abs=0.07)
    assert bool((warp.flip[:, 1:] == 1).all())


def test_elastic_of_equal_control_points_is_a_shift() -> None:
    masks, warp = one_hot((8, 8)), identity_warp(2, 2).to(torch.float64)
    control = torch.zeros(2, 2, 5, 5, dtype=torch.float64)
    control[:, 0] = 0.125  # every voxel looks one row further down
    expected = torch.zeros_like(masks)
    expected[:, 0] = 1
    expected[:, :, :-1] = masks[:, :, 1:]
    torch.testing.assert_close(apply_warp(masks, replace(warp, elastic=control)), expected)


def test_grid_of_the_identity_is_torchs() -> None:
    theta = torch.eye(2, 3).expand(1, -1, -1)
    reference = torch.nn.functional.affine_grid(theta, [1, 1, 5, 7], align_corners=False)
    torch.testing.assert_close(sampling_grid(identity_warp(1, 2), (5, 7)), reference)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": 1.5}, r"flip: wanted a probability in \[0, 1\], got 1.5"),
        ({"scale": (0.0, 1.0)}, "scale: wanted lower <= upper"),
        ({"rotate": (10, -10)}, "rotate: wanted lower <= upper"),
        ({"pad": (-0.5, 0.0)}, "pad: wanted"),
        ({"shear": (-8, 90)}, "shear: wanted"),
        ({"translate": (0.1,)}, r"translate: wanted \(lower, upper\), got \(0.1,\)"),
        ({"elastic": -0.1}, "elastic: wanted"),
        ({"elastic_points": 3}, "elastic_points: wanted 4 or more, got 3"),
    ],
)
def test_ranges_that_mean_nothing(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WarpRanges(**settings)


def test_misfits_are_told() -> None:
    with pytest.raises(ValueError, match="wanted 2 items, one for each drawn warp, got 3"):
        apply_warp(one_hot((4, 4), batch=3), identity_warp(2, 2))
    with pytest.raises(ValueError, match="wanted a batch with 3 spatial axes"):
        apply_warp(one_hot((4, 4)), identity_warp(2, 3))
    with pytest.raises(ValueError, match="spatial_dims: wanted 2 or 3, got 4"):
        identity_warp(1, 4)
    with pytest.raises(ValueError, match="flip_axis: wanted an axis of 2 spatial axes, got 2"):
        draw_warp(WarpRanges(flip_axis=2), 1, 2, torch.Generator())


@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu() -> None:
    masks, warp = one_hot((9, 14), dtype=torch.float32), drawn(2)
    torch.testing.assert_close(apply_warp(masks.cuda(), warp).cpu(), apply_warp(masks, warp), atol=1e-5, rtol=0)
