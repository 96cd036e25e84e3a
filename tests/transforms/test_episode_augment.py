"""Augmentation of tasks: a change does nothing at chance 0, something at chance 1, the same to all where it must."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genseg_monai.transforms import IntensityRanges, WarpRanges
from genseg_monai.transforms.episode_augment import EntryAugment, TaskAugment, mask_edges, sharpen

NO_TONE = IntensityRanges(probability=0.0)
STILL = WarpRanges(flip=0, pad=(0, 0), scale=(1, 1), translate=(0, 0), rotate=(0, 0), shear=(0, 0))
NOTHING: dict[str, Any] = {"affine": 0.0, "elastic": 0.0, "intensity": NO_TONE}
NO_TASK: dict[str, Any] = {**NOTHING, "horizontal": 0.0, "vertical": 0.0, "edges": 0.0, "invert": 0.0}

ENTRY_NEXT, TASK_NEXT = (
    838947,
    186315,
)  # of the generator after one call of the augmentation with which the weights were trained


def _pair(count: int = 4, size: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same picture and mask so many times, so that a difference between entries is the augmentation's."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(1, 1, size, size)
    labels[..., 3:12, 8:20] = 1
    images = (0.2 + 0.5 * labels + 0.2 * torch.rand(labels.shape, generator=generator)).expand(count, -1, -1, -1)
    return images.contiguous(), labels.expand(count, -1, -1, -1).contiguous()


def _run(augment: Any, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = augment(*_pair(), torch.Generator().manual_seed(seed))
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert set(labels.unique().tolist()) <= {0.0, 1.0}
    return images, labels


@pytest.mark.parametrize("augment", [EntryAugment(**NOTHING), TaskAugment(**NO_TASK)])
def test_nothing_is_changed_where_nothing_is_wanted(augment):
    images, labels = _pair()
    found = _run(augment)
    assert torch.equal(found[0], images)
    assert torch.equal(found[1], labels)


@pytest.mark.parametrize("change", ["affine", "elastic"])
def test_each_entry_moves_by_itself_and_image_and_mask_together(change):
    strong = WarpRanges(flip=0, pad=(0, 0), rotate=(-25, 25), elastic=0.1)
    images, labels = _run(EntryAugment(**{**NOTHING, change: 1.0, "warp": strong}))
    assert not torch.equal(labels[0], labels[1])
    assert not torch.equal(images[0], images[1])
    for image, label in zip(images, labels, strict=True):
        # the structure is the brighter part, wherever it went
        assert float(image[label > 0].mean()) > float(image[label == 0].mean()) + 0.3


@pytest.mark.parametrize("change", ["affine", "elastic"])
def test_a_task_moves_as_one(change):
    images, labels = _run(TaskAugment(**{**NO_TASK, change: 1.0}))
    torch.testing.assert_close(images, images[:1].expand_as(images))
    assert torch.equal(labels, labels[:1].expand_as(labels))
    assert not torch.equal(labels, _pair()[1])


def test_entries_of_a_batch_are_hit_by_chance():
    images, labels = _pair(40, 8)
    moved = EntryAugment(**{**NOTHING, "affine": 0.5})(images, labels, torch.Generator().manual_seed(0))[0]
    assert 10 < sum(not torch.equal(a, b) for a, b in zip(moved, images, strict=True)) < 30


@pytest.mark.parametrize(("change", "axis"), [("horizontal", -1), ("vertical", -2)])
def test_mirror_images(change, axis):
    images, labels = _run(TaskAugment(**{**NO_TASK, change: 1.0}))
    assert torch.equal(images, _pair()[0].flip(axis))
    assert torch.equal(labels, _pair()[1].flip(axis))


def test_masks_inside_out():
    images, labels = _run(TaskAugment(**{**NO_TASK, "flip_labels": 1.0}))
    assert torch.equal(images, _pair()[0])
    assert torch.equal(labels, 1 - _pair()[1])


@pytest.mark.parametrize("kind", [EntryAugment, TaskAugment])
def test_sharper_images_have_stronger_edges_and_the_same_masks(kind):
    images, labels = _run(kind(**{**(NOTHING if kind is EntryAugment else NO_TASK), "sharpness": 1.0}))
    before = _pair()[0]
    assert float(images.diff(dim=-1).abs().mean()) > 1.5 * float(before.diff(dim=-1).abs().mean())
    torch.testing.assert_close(images, sharpen(before))
    assert torch.equal(labels, _pair()[1])


def test_entries_are_sharpened_by_chance():
    images, labels = _pair(40, 16)
    sharper = EntryAugment(**{**NOTHING, "sharpness": 0.5})(images, labels, torch.Generator().manual_seed(0))[0]
    assert 10 < sum(not torch.equal(a, b) for a, b in zip(sharper, images, strict=True)) < 30


@pytest.mark.parametrize("kind", [EntryAugment, TaskAugment])
def test_what_is_off_draws_nothing(kind):
    """The shipped weights can be made again: the list has grown since, with what is off."""
    states = []
    for more in ({}, {"sharpness": 0.5}):
        generator = torch.Generator().manual_seed(0)
        kind(**more)(*_pair(), generator)
        states.append(generator.get_state())
    assert not torch.equal(*states)
    expected = {EntryAugment: ENTRY_NEXT, TaskAugment: TASK_NEXT}[kind]
    generator = torch.Generator().manual_seed(0)
    kind()(*_pair(), generator)
    assert int(torch.randint(10**6, (1,), generator=generator)) == expected


def test_inverted_brightness():
    images, labels = _run(TaskAugment(**{**NO_TASK, "invert": 1.0}))
    assert torch.equal(images, 1 - _pair()[0])
    assert torch.equal(labels, _pair()[1])


def test_outlines_for_masks():
    images, labels = _run(TaskAugment(**{**NO_TASK, "edges": 1.0}))
    assert torch.equal(images, _pair()[0])
    assert torch.equal(labels, mask_edges(_pair()[1]))
    # 9 x 12 in a frame of one, less its inside: 11 x 14 - 7 x 10 pixels
    assert int(labels[0].sum()) == 11 * 14 - 7 * 10
    assert not bool(mask_edges(torch.ones(1, 1, 8, 8)).any()), "a mask that fills the picture has no outline"


@pytest.mark.parametrize("kind", [EntryAugment, TaskAugment])
@pytest.mark.parametrize(
    "ranges", [{"noise": (0.1, 0.1)}, {"blur": (2.0, 2.0)}, {"brightness": (0.1, 0.1)}, {"contrast": (2.0, 2.0)}]
)
def test_each_change_of_tone(kind, ranges):
    quiet = {"brightness": (0, 0), "contrast": (1, 1), "gamma": (1, 1), "blur": (0, 0), "noise": (0, 0)}
    tone = IntensityRanges(**{**quiet, **ranges}, probability=1.0)
    base = NOTHING if kind is EntryAugment else NO_TASK
    images, labels = _run(kind(**{**base, "intensity": tone}))
    before = _pair()[0]
    assert torch.equal(labels, _pair()[1])
    change = images - before
    if "noise" in ranges:
        assert not torch.equal(images[0], images[1]), "every entry has its own grain"
    elif "blur" in ranges:
        assert float(images.var()) < float(before.var())
    elif "brightness" in ranges:
        torch.testing.assert_close(change, torch.full_like(change, 0.1))
    else:
        assert float(images.std()) > 1.5 * float(before.std())


def test_a_task_changes_tone_as_one_and_entries_do_not():
    tone = IntensityRanges(noise=(0, 0), probability=1.0)
    together, _ = _run(TaskAugment(**{**NO_TASK, "intensity": tone}))
    torch.testing.assert_close(together, together[:1].expand_as(together))
    apart, _ = _run(EntryAugment(**{**NOTHING, "intensity": tone}))
    assert not torch.allclose(apart[0], apart[1], atol=1e-3)


@pytest.mark.parametrize("kind", [EntryAugment, TaskAugment])
def test_a_seed_repeats_it_and_the_draws_do_not_depend_on_the_chances(kind):
    one, two = _run(kind(), seed=3), _run(kind(), seed=3)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    left = [torch.Generator().manual_seed(0) for _ in range(2)]
    kind()(*_pair(), left[0])
    kind(affine=0.0, elastic=1.0)(*_pair(), left[1])
    assert torch.equal(left[0].get_state(), left[1].get_state())


@pytest.mark.parametrize("kind", [EntryAugment, TaskAugment])
def test_a_warp_without_an_elastic_part(kind):
    base = NOTHING if kind is EntryAugment else NO_TASK
    images, _ = _run(kind(**{**base, "warp": STILL, "affine": 1.0, "elastic": 1.0}))
    torch.testing.assert_close(images, _pair()[0])


@pytest.mark.parametrize(
    ("kind", "name"),
    [(EntryAugment, "affine"), (EntryAugment, "elastic"), (TaskAugment, "invert"), (TaskAugment, "edges")],
)
def test_refuses_what_is_no_chance(kind, name):
    with pytest.raises(ValueError, match=rf"{name}: wanted a probability in \[0, 1\], got 1.5"):
        kind(**{name: 1.5})


@pytest.mark.parametrize("kind", [EntryAugment, TaskAugment])
def test_refuses_pairs_that_do_not_belong_together(kind):
    with pytest.raises(ValueError, match=r"wanted images and labels N 1 H W, got \(2, 1, 8, 8\) and \(2, 1, 8, 9\)"):
        kind()(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 9), torch.Generator())
