"""What a blurred look tells, and what not."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from genseg_monai.transforms.look import blurred, styled_scene


@pytest.mark.parametrize("shape", [(16, 24), (8, 16, 8)])
def test_of_a_whole_image_it_is_the_mean_of_each_cell(shape: tuple[int, ...]) -> None:
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    pool = F.adaptive_avg_pool2d if len(shape) == 2 else F.adaptive_avg_pool3d
    look = blurred(images, torch.ones(2, 1, *shape), cells=4)
    assert look.shape == images.shape
    # the mean over the image has a twentieth of a say
    wanted = (pool(images, 4) + 0.05 * pool(images, 1)) / 1.05
    torch.testing.assert_close(pool(look, 4).mean((2, 3)), wanted.mean((2, 3)), atol=0.02, rtol=0)


def test_what_is_not_shown_is_not_told() -> None:
    shown = torch.zeros(1, 1, 16, 16)
    shown[..., :9] = 1
    images = torch.rand(1, 1, 16, 16)
    other = torch.where(shown.bool(), images, 1 - images)
    assert torch.equal(blurred(images, shown), blurred(other, shown))


def test_the_looks_of_background_and_objects_come_from_their_own_images() -> None:
    masks = torch.eye(3)[torch.tensor([0, 0, 1, 1, 2, 2, 0, 0]).expand(1, 8, 8)].movedim(-1, 1)
    dark, bright = torch.full((1, 1, 8, 8), 0.2), torch.full((1, 1, 8, 8), 0.7)
    given = styled_scene(masks, (dark, masks), (bright, masks))
    assert torch.equal(given[:, :3], masks)
    torch.testing.assert_close(given[0, 3, 0], torch.tensor([0.2, 0.2, 0.7, 0.7, 0.7, 0.7, 0.2, 0.2]))


def test_a_class_that_is_not_there_gives_no_nan() -> None:
    masks = torch.eye(2)[torch.zeros(1, 8, 8, dtype=torch.long)].movedim(-1, 1)
    assert styled_scene(masks, (torch.rand(1, 1, 8, 8), masks), (torch.rand(1, 1, 8, 8), masks)).isfinite().all()
