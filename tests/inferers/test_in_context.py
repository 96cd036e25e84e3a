from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from genseg_monai.inferers.in_context import InContextSettings, draw_moves, draw_supports, in_context, undo
from genseg_monai.inferers.support_set import SupportSet
from genseg_monai.networks.universeg import UniverSeg
from genseg_monai.transforms.batch_augment import warp_images


def _supports(count: int = 6, classes: int = 2, size: int = 16) -> SupportSet:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, size, size, generator=random)
    labels = torch.randint(0, classes, images.shape, generator=random, dtype=torch.uint8)
    return SupportSet(images, labels, [f"c{i}" for i in range(classes)], torch.linspace(0, 1, count))


def _mean(query: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    assert query.shape[1:] == images.shape[2:] == labels.shape[2:]
    assert images.shape == labels.shape
    return 4 * labels.mean(1)


def _bright(query: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    return 40 * (query - 0.5)


PLAIN = InContextSettings(ensemble=1, augment=False)


def test_one_pass_is_the_network() -> None:
    supports = _supports()
    found = in_context(_mean, torch.rand(1, 16, 16), supports, PLAIN)
    torch.testing.assert_close(found[1], torch.sigmoid(4 * supports.labels.float().mean(0)[0]))
    torch.testing.assert_close(found.sum(0), torch.ones(16, 16))


def test_classes_are_joined_by_a_softmax() -> None:
    supports = _supports(classes=3)
    found = in_context(_mean, torch.rand(1, 16, 16), supports, PLAIN)
    logits = [torch.zeros(16, 16)] + [4 * (supports.labels[:, 0] == k).float().mean(0) for k in (1, 2)]
    torch.testing.assert_close(found, torch.stack(logits).softmax(0))


def test_a_class_that_no_support_shows_is_absent_without_a_pass() -> None:
    supports = _supports(classes=3)
    supports.labels[supports.labels == 2] = 0
    passes = []

    def counted(*inputs: Tensor) -> Tensor:
        passes.append(inputs)
        return _mean(*inputs)

    found = in_context(counted, torch.rand(1, 16, 16), supports, PLAIN)
    assert len(passes) == 1
    assert found[2].max() < 1e-6


def test_what_fits_goes_through_at_once() -> None:
    sizes = []

    def counted(query: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        sizes.append(len(query))
        return _mean(query, images, labels)

    query, supports = torch.rand(1, 16, 16), _supports()
    settings = InContextSettings(support_size=4, ensemble=5, pairs_at_once=8)
    few = in_context(counted, query, supports, settings)
    assert sizes == [2, 2, 1]
    many = in_context(_mean, query, supports, InContextSettings(support_size=4, ensemble=5, pairs_at_once=1000))
    torch.testing.assert_close(few, many)


@pytest.mark.parametrize("augment", [False, True])
def test_the_first_member_sees_the_nearest(augment: bool) -> None:
    supports, settings = _supports(12), InContextSettings(support_size=3, ensemble=6, augment=augment)
    draws = draw_supports(supports.images[7], supports, settings, None)
    assert draws.shape == (6, 3)
    assert draws[0, 0] == 7
    order = supports.distances(supports.images[7:8])[0].argsort()
    assert draws[0].tolist() == order[:3].tolist()
    assert set(draws.flatten().tolist()) <= set(order[:6].tolist())
    assert all(len(set(draw.tolist())) == 3 for draw in draws), "no support twice in a pass"


def test_random_draws_are_those_of_the_seed() -> None:
    supports = _supports(12)
    one, same, other = (
        draw_supports(supports.images[0], supports, InContextSettings(4, 9, "random", seed=seed), None)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len(set(one.flatten().tolist())) > 8, "from all"


def test_equal_members_are_not_repeated() -> None:
    supports = _supports(3)
    assert len(draw_supports(supports.images[0], supports, InContextSettings(augment=False), None)) == 1
    assert len(draw_supports(supports.images[0], supports, InContextSettings(), None)) == 8


def test_the_place_in_the_volume_counts() -> None:
    supports = _supports(6)
    alike = SupportSet(supports.images[:1].expand(6, -1, -1, -1), supports.labels, ("", "a"), torch.linspace(0, 1, 6))
    draws = draw_supports(alike.images[0], alike, InContextSettings(support_size=2, ensemble=1), 0.55)
    assert sorted(draws[0].tolist()) == [2, 3]


def test_moves_are_undone() -> None:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 48), indexing="ij")
    smooth = torch.exp(-8 * ((rows - 0.2) ** 2 + (columns + 0.1) ** 2 / 2))[None, None].expand(8, 1, -1, -1)
    moves = draw_moves(8, InContextSettings(rotate=25, scale=0.2))
    assert moves is not None
    assert {tuple(f) for f in moves.flip.tolist()} > {(1.0, 1.0)}
    moved = warp_images(smooth, moves)
    torch.testing.assert_close(moved[0], smooth[0])
    assert (moved[1:] - smooth[1:]).abs().flatten(1).amax(1).min() > 0.05
    back = warp_images(moved, undo(moves))
    torch.testing.assert_close(back[..., 8:-8, 8:-8], smooth[..., 8:-8, 8:-8], atol=0.02, rtol=0)


def test_a_network_that_looks_at_the_query_alone_finds_the_same_in_every_pose() -> None:
    query = torch.zeros(1, 64, 64)
    query[:, :30, 20:40] = 1  # reaches the border
    supports = _supports(4, size=64)
    still = in_context(_bright, query, supports, PLAIN).argmax(0)
    moved = in_context(_bright, query, supports, InContextSettings(ensemble=8)).argmax(0)
    dice = 2 * (still & moved).sum() / (still.sum() + moved.sum())
    assert dice > 0.97
    assert (moved[0, 22:38] == 1).all(), "members that do not see a pixel do not count there"


def test_universeg_itself() -> None:
    network = UniverSeg(features=(4, 4)).eval()
    settings = InContextSettings(support_size=3, ensemble=3)
    found = in_context(network, torch.rand(1, 16, 16), _supports(classes=3), settings)
    assert found.shape == (3, 16, 16)
    torch.testing.assert_close(found.sum(0), torch.ones(16, 16))
    assert found.min() >= 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"support_size": 0}, "support_size: wanted 1 or more, got 0"),
        ({"ensemble": 0}, "ensemble: wanted 1 or more, got 0"),
        ({"choice": "best"}, "choice: wanted similar or random, got 'best'"),
        ({"flip": 2.0}, "flip: wanted 0 to 1, got 2.0"),
    ],
)
def test_settings(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        InContextSettings(**wrong)


def test_support_sets() -> None:
    images = torch.rand(2, 1, 8, 8)
    with pytest.raises(
        ValueError, match=r"wanted images N 1 H W or N 3 H W and labels N 1 H W, got \(2, 1, 8, 8\) and \(2, 8, 8\)"
    ):
        SupportSet(images, images[:, 0], ("", "a"))
    with pytest.raises(ValueError, match="wanted one labelled plane or more"):
        SupportSet(images[:0], images[:0], ("", "a"))
    with pytest.raises(ValueError, match="a position for each of 2 planes, got 1"):
        SupportSet(images, images, ("", "a"), torch.zeros(1))
    distances = SupportSet(images, images, ("", "a")).distances(3 * images + 1)
    assert distances.shape == (2, 2)
    assert distances.diagonal().max() < 1e-4, "brightness and contrast do not count"
