"""A scene: a real image with a hole, the object to draw into it, and the two together."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from genseg_monai.transforms.scene import composed, hole_of, make_scene, moved_onto, scene_masks


def one_hot(labels: Tensor, classes: int = 3) -> Tensor:
    return torch.nn.functional.one_hot(labels.long(), classes).movedim(-1, 1).float()


def block(shape: tuple[int, ...], start: int, stop: int, value: int = 1) -> Tensor:
    labels = torch.zeros(1, *shape)
    labels[(0, *[slice(start, stop)] * len(shape))] = value
    return labels


@pytest.mark.parametrize("shape", [(12, 16), (8, 8, 10)])
def test_the_hole_is_the_foreground_widened(shape: tuple[int, ...]) -> None:
    masks = one_hot(block(shape, 3, 5) + block(shape, 5, 6, 2))
    foreground = masks.argmax(1)[0].numpy() > 0
    wide = ndimage.binary_dilation(foreground, ndimage.generate_binary_structure(len(shape), len(shape)), iterations=2)
    hole = hole_of(masks, margin=2)
    assert hole.shape == (1, 1, *shape)
    assert (hole[0, 0].numpy() == wide).all()
    assert hole_of(one_hot(torch.zeros(1, *shape))).sum() == 0


@pytest.mark.parametrize("shape", [(12, 16), (8, 8, 10)])
def test_what_is_outside_the_hole_is_the_real_image(shape: tuple[int, ...]) -> None:
    masks, images = one_hot(block(shape, 2, 5)), torch.rand(1, 2, *shape)
    hole = hole_of(masks)
    scene = make_scene(masks, images, hole)
    assert scene.shape == (1, 3 + 2 + 1, *shape)
    assert torch.equal(scene_masks(scene, 2), masks)
    drawn = torch.rand(1, 2, *shape).requires_grad_()
    both = composed(drawn, scene)
    assert torch.equal(both, torch.where(hole.bool(), drawn, images))
    both.sum().backward()
    assert drawn.grad is not None
    assert torch.equal(drawn.grad, hole.expand_as(drawn))


def test_the_generator_does_not_see_what_was_in_the_hole() -> None:
    masks = one_hot(block((8, 8), 2, 5))
    first, second = torch.rand(2, 1, 1, 8, 8)
    hole = torch.ones(1, 1, 8, 8)
    assert torch.equal(make_scene(masks, first, hole), make_scene(masks, second, hole))


@pytest.mark.parametrize("shape", [(12, 16), (9, 8, 10)])
def test_masks_move_onto_others(shape: tuple[int, ...]) -> None:
    masks, others = one_hot(block(shape, 1, 4)), one_hot(block(shape, 4, 7, 2))
    image, moved = moved_onto(masks[:, 1:2], masks, others)
    assert torch.allclose(moved[:, 1], one_hot(block(shape, 4, 7))[:, 1], atol=1e-5)
    assert torch.allclose(moved.sum(1), torch.ones(1, *shape), atol=1e-5)
    assert torch.allclose(image, moved[:, 1:2], atol=1e-5), "the image moves with its mask"
    assert torch.allclose(moved_onto(masks[:, 1:2], masks, masks)[1], masks, atol=1e-5)


def test_nothing_is_put_where_nothing_was() -> None:
    empty, shown = one_hot(torch.zeros(1, 8, 8)), one_hot(block((8, 8), 1, 4))
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(moved_onto(image, shown, empty)[1], empty)
    assert torch.equal(moved_onto(image, empty, shown)[1], empty)


def test_the_object_is_shown_where_it_is_to_be_and_nowhere_else() -> None:
    masks, (image, other) = one_hot(block((8, 8), 2, 4)), torch.rand(2, 1, 1, 8, 8)
    hole = hole_of(masks, margin=1)
    seen = make_scene(masks, image, hole, other)[:, 3:4]
    assert torch.equal(seen[0, 0, 2:4, 2:4], other[0, 0, 2:4, 2:4])
    assert torch.equal(seen * (1 - hole), image * (1 - hole))
    assert (seen * hole * masks[:, :1]).sum() == 0, "the rim of the hole is blank"
