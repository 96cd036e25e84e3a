"""Patches hold the voxels of their case, every class comes in its turn, and the same seed draws the same one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genseg_monai.data.patches import PatchCases
from genseg_monai.data.resident import ResidentLoader


def volumes(sizes: list[tuple[int, ...]]) -> list[dict[str, object]]:
    """Images whose voxels are all different, with one voxel of class 1 and a block of class 2."""
    items: list[dict[str, object]] = []
    for number, size in enumerate(sizes):
        image = torch.arange(int(np.prod(size)), dtype=torch.float32).reshape(1, *size) + 0.001 * number
        label = torch.zeros(1, *size, dtype=torch.uint8)
        label[(0, *([1] * len(size)))] = 1
        label[(slice(None), *([slice(-3, None)] * len(size)))] = 2
        items.append({"image": image, "label": label, "group": f"p{number}"})
    return items


@pytest.mark.parametrize("size", [(40, 31), (20, 33, 18)])
def test_a_patch_is_a_piece_of_its_case(size):
    items = volumes([size, tuple(n + 5 for n in size)])
    cases = PatchCases(items, [16] * len(size), classes=3)
    for case in (0, 1):
        image, label = cases.take([case], [7])
        first = torch.nonzero(items[case]["image"] == image.flatten()[0])[0, 1:]
        window = tuple(slice(int(i), int(i) + 16) for i in first)
        assert torch.equal(image[0], items[case]["image"][(slice(None), *window)])
        assert torch.equal(label[0], items[case]["label"][(slice(None), *window)])


def test_classes_come_evenly_however_rare():
    """Class 1 is one voxel of 64,000."""
    cases = PatchCases(volumes([(40, 40, 40)]), (8, 8, 8), classes=4)
    _, labels = cases.take([0] * 300, range(300))
    share = [float((labels == c).flatten(1).any(1).float().mean()) for c in (1, 2)]
    assert min(share) > 0.25
    assert float((labels == 0).flatten(1).any(1).float().mean()) == 1.0


def test_the_same_seed_draws_the_same_patch():
    cases = PatchCases(volumes([(40, 40)]), (8, 8), classes=3)
    once, again, other = (cases.take([0], [seed])[0] for seed in (5, 5, 6))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert torch.equal(cases.examples([0])[0], cases.examples([0])[0])


def test_small_cases_are_padded():
    images, labels = PatchCases(volumes([(10, 40)]), (16, 16), classes=3).take([0], [0])
    assert images.shape == (1, 1, 16, 16)
    assert not labels[:, :, :3].any()


def test_a_loader_draws_shards_of_patches_as_one_process_does():
    cases = PatchCases(volumes([(20, 20)] * 4), (8, 8), classes=3)
    assert cases.groups == ("p0", "p1", "p2", "p3")
    given = {"batch_size": 2, "seed": 1, "shards": 2}
    both = ResidentLoader(cases, **given)
    parts = [ResidentLoader(cases, shard=shard, **given) for shard in (0, 1)]
    for _ in range(3):
        assert torch.equal(both.draw()["image"], torch.cat([part.draw()["image"] for part in parts]))
    state = both.state_dict()
    wanted = both.draw()
    both.load_state_dict(state)
    assert torch.equal(both.draw()["label"], wanted["label"])


def test_what_was_stored_goes_with_the_cases():
    cases = PatchCases(volumes([(20, 20)]), (8, 8), classes=3)
    folder = cases._folder
    assert len(list(folder.iterdir())) == 2
    del cases
    assert not folder.exists()


def test_other_voxels_have_another_digest():
    first, second = volumes([(20, 20)]), volumes([(20, 20)])
    second[0]["label"][0, 5, 5] = 1
    assert PatchCases(first, (8, 8), classes=3).digest() != PatchCases(second, (8, 8), classes=3).digest()
