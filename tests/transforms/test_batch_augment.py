"""Image and mask are moved alike, and every draw comes from the generator."""

from __future__ import annotations

import pytest
import torch

from genseg_monai.transforms import BatchAugment, WarpRanges, apply_warp, draw_warp, identity_warp, warp_images

SIZES = {2: (16, 12), 3: (8, 10, 12)}


def pair(spatial: int, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    inside = torch.rand(batch, 1, *SIZES[spatial]).round()
    return inside.clone(), torch.cat([1 - inside, inside], dim=1)


@pytest.mark.parametrize("spatial", [2, 3])
class TestBoth:
    def test_nothing_asked_nothing_changed(self, spatial: int) -> None:
        images, masks = pair(spatial)
        generator = torch.Generator().manual_seed(0)
        assert BatchAugment(warp=None, intensity=None)(images, masks, generator) == (images, masks)
        same_images, same_masks = BatchAugment(probability=0, intensity=None)(images, masks, generator)
        assert torch.equal(same_images, images)
        assert torch.equal(same_masks, masks)

    def test_image_and_mask_move_alike(self, spatial: int) -> None:
        images, masks = pair(spatial)
        augment = BatchAugment(warp=WarpRanges(elastic=0.02), intensity=None, padding="zeros")
        moved, moved_masks = augment(images, masks, torch.Generator().manual_seed(0))
        assert not torch.allclose(moved, images)
        torch.testing.assert_close(moved, moved_masks[:, 1:])

    def test_replay(self, spatial: int) -> None:
        images, masks = pair(spatial)
        one = BatchAugment()(images, masks, torch.Generator().manual_seed(4))
        two = BatchAugment()(images, masks, torch.Generator().manual_seed(4))
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])

    def test_draws_come_from_the_generator_alone(self, spatial: int) -> None:
        images, masks = pair(spatial)
        before = torch.get_rng_state()
        BatchAugment()(images, masks, torch.Generator().manual_seed(4))
        assert torch.equal(torch.get_rng_state(), before)

    def test_input_is_left_as_it_was(self, spatial: int) -> None:
        images, masks = pair(spatial)
        kept, kept_masks = images.clone(), masks.clone()
        BatchAugment()(images, masks, torch.Generator().manual_seed(4))
        assert torch.equal(images, kept)
        assert torch.equal(masks, kept_masks)


def test_share_of_items_moved() -> None:
    images, masks = torch.rand(400, 1, 4, 4), torch.ones(400, 2, 4, 4) / 2
    moved, _ = BatchAugment(probability=0.25, intensity=None)(images, masks, torch.Generator().manual_seed(0))
    assert float((moved != images).flatten(1).any(1).float().mean()) == pytest.approx(0.25, abs=0.06)


def test_what_lies_outside() -> None:
    images = torch.full((1, 1, 8, 8), 0.5)
    away = draw_warp(WarpRanges(translate=(2, 2)), 1, 2, torch.Generator().manual_seed(0))
    assert bool((warp_images(images, away, "zeros") == 0).all())
    torch.testing.assert_close(warp_images(images, away, "border"), images)


def test_identity_of_images() -> None:
    images = torch.rand(2, 3, 9, 5)
    torch.testing.assert_close(warp_images(images, identity_warp(2, 2)), images, atol=1e-6, rtol=0)


def test_misfits_are_told() -> None:
    images, masks = pair(2)
    generator = torch.Generator()
    with pytest.raises(ValueError, match="wanted images and masks of one number and size"):
        BatchAugment()(images[:1], masks, generator)
    with pytest.raises(ValueError, match="padding: wanted border or zeros, got 'reflect'"):
        BatchAugment(padding="reflect")
    with pytest.raises(ValueError, match="padding: wanted border or zeros, got 'edge'"):
        warp_images(images, identity_warp(3, 2), "edge")
    with pytest.raises(ValueError, match="probability: wanted"):
        BatchAugment(probability=-1)


@pytest.mark.gpu
def test_on_the_gpu_with_draws_from_the_cpu() -> None:
    images, masks = pair(2)
    augment = BatchAugment(intensity=None)
    moved, moved_masks = augment(images.cuda(), masks.cuda(), torch.Generator().manual_seed(0))
    reference, reference_masks = augment(images, masks, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved.cpu(), reference, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved_masks.cpu(), reference_masks, atol=1e-5, rtol=0)


def test_mask_equals_the_warp_itself() -> None:
    images, masks = pair(2)
    _, moved = BatchAugment(intensity=None)(images, masks, torch.Generator().manual_seed(9))
    warp = draw_warp(WarpRanges(), 3, 2, torch.Generator().manual_seed(9))
    assert torch.equal(moved, apply_warp(masks, warp))


@pytest.mark.parametrize("spatial", [2, 3])
def test_objects_of_other_items_are_pasted_with_their_masks(spatial: int) -> None:
    images, masks = pair(spatial, batch=6)
    augment = BatchAugment(warp=None, intensity=None, paste=1)
    pasted, both = augment(images, masks, torch.Generator().manual_seed(0))
    torch.testing.assert_close(both.sum(1), torch.ones_like(both[:, 0]))
    torch.testing.assert_close(pasted, both[:, 1:], msg="an object is 1 in these images, wherever it comes from")
    assert (both[:, 1:] >= masks[:, 1:]).all(), "the own ones stay"
    assert (both != masks).any()


def test_share_of_items_pasted_onto() -> None:
    images, masks = torch.rand(400, 1, 4, 4), torch.rand(400, 2, 4, 4).softmax(1)
    pasted, _ = BatchAugment(warp=None, intensity=None, paste=0.25)(images, masks, torch.Generator().manual_seed(0))
    assert float((pasted != images).flatten(1).any(1).float().mean()) == pytest.approx(0.25, abs=0.06)
