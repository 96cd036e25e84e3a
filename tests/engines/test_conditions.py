"""What the generator is given: masks alone, or scenes with a hole."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from genseg_monai.engines.conditions import Conditions, PairKind, kind_of
from genseg_monai.errors import UserError
from genseg_monai.transforms import BatchAugment, IntensityRanges, WarpRanges, apply_warp, draw_warp
from genseg_monai.transforms.batch_augment import warp_images
from genseg_monai.transforms.scene import hole_of, scene_masks

STILL = WarpRanges(flip=0, pad=(0, 0), scale=(1, 1), translate=(0, 0), rotate=(0, 0), shear=(0, 0))


@pytest.fixture(params=[2, 3])
def pairs(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """Images B 1 ... of noise, and masks B 3 ...: a block of class 1 and of class 2, elsewhere in each case."""
    shape = (24,) * request.param
    labels = torch.zeros(4, *shape, dtype=torch.long)
    for i, label in enumerate(labels):
        label[(slice(4 + 3 * i, 8 + 3 * i),) * request.param] = 1 + i % 2
    images = torch.rand(4, 1, *shape, generator=torch.Generator().manual_seed(0))
    return images, torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_masks_are_given_as_they_are_or_warped(pairs: tuple[Tensor, Tensor]) -> None:
    images, masks = pairs
    conditions = Conditions(warp_ranges=WarpRanges(), augment=BatchAugment())
    assert all(
        given is held for given, held in zip(conditions.of_real(*pairs, seeded()), (images, masks, masks), strict=True)
    )
    given, wanted = conditions.of_synthetic(images, masks, seeded())
    assert given is wanted
    warp = draw_warp(WarpRanges(), 4, masks.ndim - 2, seeded())
    assert torch.equal(wanted, apply_warp(masks, warp))


def test_stage_one_may_be_shown_pairs_moved_as_the_masks_of_synthetic_ones(pairs: tuple[Tensor, Tensor]) -> None:
    images, masks = pairs
    moved, wanted, given = Conditions(warp_ranges=WarpRanges(), warp_real=True).of_real(images, masks, seeded())
    warp = draw_warp(WarpRanges(), 4, masks.ndim - 2, seeded())
    assert given is wanted
    assert torch.equal(wanted, apply_warp(masks, warp))
    assert torch.equal(moved, warp_images(images, warp))
    still, same, _ = Conditions(warp_ranges=STILL, warp_real=True).of_real(images, masks, seeded())
    torch.testing.assert_close(still, images, atol=1e-5, rtol=0)
    torch.testing.assert_close(same, masks, atol=1e-5, rtol=0)


def test_a_real_scene_is_the_image_less_its_objects_and_as_much_again(pairs: tuple[Tensor, Tensor]) -> None:
    images, masks = pairs
    kept, same, scenes = Conditions("scenes", STILL, blank=1).of_real(images, masks, seeded())
    assert kept is images
    assert same is masks
    assert torch.equal(scene_masks(scenes, 1), masks)
    hole = scenes[:, -1:]
    assert (hole >= hole_of(masks)).all()
    assert hole.sum() > hole_of(masks).sum(), "decoys"
    assert torch.equal(scenes[:, -2:-1], images * (1 - hole))


def test_the_object_of_a_real_scene_is_shown_in_another_tone_or_not_at_all(pairs: tuple[Tensor, Tensor]) -> None:
    images, masks = pairs
    darker = IntensityRanges((-0.2, -0.2), (1, 1), (1, 1), (0, 0), (0, 0), probability=1)
    _, _, scenes = Conditions("scenes", STILL, tone=darker, blank=0).of_real(images, masks, seeded())
    objects = (1 - masks[:, :1]).bool()
    assert torch.allclose(scenes[:, -2:-1][objects], (images - 0.2).clamp(0, 1)[objects])
    _, _, scenes = Conditions("scenes", STILL, tone=darker, blank=0.5).of_real(images, masks, seeded(1))
    shown = [bool(scene[-2][object_[0]].any()) for scene, object_ in zip(scenes, objects, strict=True)]
    assert sorted(set(shown)) == [False, True]


def test_a_synthetic_scene_shows_the_object_of_another_case_where_its_own_was(pairs: tuple[Tensor, Tensor]) -> None:
    images, masks = pairs
    scenes, wanted = Conditions("scenes", STILL).of_synthetic(images, masks, seeded(3))
    assert torch.equal(scene_masks(scenes, 1), wanted)
    own, drawn = masks[:, 1:].sum(1), wanted[:, 1:].sum(1)
    assert torch.allclose(drawn, own, atol=1e-4), "blocks of one size, at the place of the case's own"
    classes = masks.flatten(2).sum(2)[:, 1:].argmax(1), wanted.flatten(2).sum(2)[:, 1:].argmax(1)
    assert not torch.equal(*classes), "of other cases"
    hole = scenes[:, -1:]
    assert (hole >= torch.maximum(hole_of(masks), hole_of(wanted))).all(), "what was there is gone"
    assert torch.equal(scenes[:, -2:-1] * (1 - hole), images * (1 - hole))
    assert (scenes[:, -2:-1] * hole * wanted[:, :1]).abs().max() < 1e-3, "around the object nothing is given"
    assert (scenes[:, -2:-1][drawn.unsqueeze(1) > 0.5] > 0).all(), "the object as it looked"


def test_an_object_may_stay_where_it_comes_from(pairs: tuple[Tensor, Tensor]) -> None:
    images, masks = pairs
    scenes, wanted = Conditions("scenes", STILL, place="anywhere").of_synthetic(images, masks, seeded(3))
    sources = [next(i for i in range(4) if torch.allclose(mask, masks[i], atol=1e-4)) for mask in wanted]
    assert sources != list(range(4)), "of other cases, unmoved"
    for i, source in enumerate(sources):
        shown = masks[source, 1:].sum(0).bool()
        assert torch.allclose(scenes[i, -2][shown], images[source, 0][shown], atol=1e-4)


def test_an_object_may_be_laid_beside_the_images_own(pairs: tuple[Tensor, Tensor]) -> None:
    images, masks = pairs
    scenes, wanted = Conditions("scenes", STILL, place="beside").of_synthetic(images, masks, seeded(3))
    assert torch.equal(scene_masks(scenes, 1), wanted)
    torch.testing.assert_close(wanted.sum(1), torch.ones_like(wanted[:, 0]))
    sizes = wanted[:, 1:].flatten(1).sum(1) / masks[:, 1:].flatten(1).sum(1)
    assert (sizes > 1.3).any(), "two objects"
    own = masks[:, 1:].amax(1, keepdim=True).bool()
    assert (wanted[:, 1:].sum(1, keepdim=True)[own] > 0.99).all(), "the own one stays an object"
    upper = [next(j for j in range(4) if j != i and (wanted[i, 1:] - masks[j, 1:]).amin() > -0.01) for i in (0, 1)]
    for i, source in enumerate(upper):
        shown = masks[source, 1:].sum(0).bool()
        assert torch.allclose(scenes[i, -2][shown], images[source, 0][shown], atol=1e-3)
        left = own[i, 0] & ~shown
        assert torch.allclose(scenes[i, -2][left], images[i, 0][left], atol=1e-3), "shown, in the hole of a decoy too"


def test_what_is_around_is_augmented(pairs: tuple[Tensor, Tensor]) -> None:
    images, masks = pairs
    darker = Conditions("scenes", STILL, augment=lambda images, masks, random: (images / 2, masks))
    assert torch.equal(darker.of_real(images, masks, seeded())[0], images / 2)
    scenes, _ = darker.of_synthetic(images, masks, seeded())
    hole = scenes[:, -1:]
    assert torch.equal(scenes[:, -2:-1] * (1 - hole), images / 2 * (1 - hole))


def test_a_style_is_the_look_of_one_background_and_of_another_cases_objects(pairs: tuple[Tensor, Tensor]) -> None:
    images, masks = pairs
    bright = images / 4 + masks[:, 1:].amax(1, keepdim=True) * torch.tensor([0.3, 0.4, 0.5, 0.6]).reshape(
        -1, *[1] * (images.ndim - 1)
    )
    same, shown, given = Conditions("styles", STILL).of_real(bright, masks, seeded())
    assert same is bright
    assert shown is masks
    assert torch.equal(scene_masks(given, 1), masks)
    assert (given[:, -1] == 1).all(), "all of it is to be drawn"
    given, wanted = Conditions("styles", STILL).of_synthetic(bright, masks, seeded(3))
    sources = [next(i for i in range(4) if torch.allclose(mask, masks[i], atol=1e-4)) for mask in wanted]
    assert sources != list(range(4))
    for i, source in enumerate(sources):
        inside = masks[source, 1:].sum(0).bool()
        tone = float(bright[source, 0][inside].mean())
        assert float(given[i, -2][inside].mean()) == pytest.approx(tone, abs=0.02), "as bright as where it comes from"
        around = float(bright[i, 0][masks[i, 0].bool()].mean())
        assert float(given[i, -2][~inside].mean()) == pytest.approx(around, abs=0.02), "the rest without its own object"


@pytest.mark.parametrize("synthesis", list(PairKind))
def test_a_seed_decides(pairs: tuple[Tensor, Tensor], synthesis: PairKind) -> None:
    conditions = Conditions(synthesis, WarpRanges(), BatchAugment())
    first, again, other = (conditions.of_synthetic(*pairs, seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_wrong_settings() -> None:
    with pytest.raises(UserError, match="synthesis: wanted one of masks, scenes, styles, got 'images'"):
        Conditions("images")
    with pytest.raises(UserError, match=r"blank: wanted a probability in \[0, 1\], got 2"):
        Conditions("scenes", blank=2)
    with pytest.raises(UserError, match="synthesis: wanted one of masks, scenes, styles, got 'images'"):
        kind_of(SimpleNamespace(scene=True), "images")
    with pytest.raises(UserError, match="place: wanted one of own, anywhere, beside, got 'here'"):
        Conditions("scenes", place="here")
    with pytest.raises(UserError, match="margin: wanted 0 voxels or more, got -1"):
        Conditions("scenes", margin=-1)
