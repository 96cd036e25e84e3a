"""Synthetic tasks: drawn from a seed, pictures and masks as promised, alike within a task, unlike between tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genseg_monai.data._synthetic_shapes import Draw, depths, draw_shapes, subject_grid
from genseg_monai.data.synthetic_tasks import SyntheticSettings, draw_subjects, draw_task
from genseg_monai.errors import UserError

SIZE = 24


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shaped", [0.0, 1.0])
def test_pictures_and_masks_are_what_they_should_be(shaped):
    generator = _seeded()
    for _ in range(8):
        images, labels = draw_subjects(draw_task(SyntheticSettings(shaped=shaped), SIZE, generator), 3, generator)
        assert images.shape == labels.shape == (3, 1, SIZE, SIZE)
        assert images.dtype == labels.dtype == torch.float32
        assert 0 <= float(images.min()) < float(images.max()) <= 1
        assert set(labels.unique().tolist()) <= {0.0, 1.0}


def test_a_seed_makes_a_task_and_its_subjects():
    one, two = (draw_subjects(draw_task(SyntheticSettings(), SIZE, _seeded(3)), 4, _seeded(5)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    others = draw_subjects(draw_task(SyntheticSettings(), SIZE, _seeded(4)), 4, _seeded(5))
    assert not torch.equal(one[0], others[0])


def test_a_map_alone_has_as_many_labels_as_asked_for():
    task = draw_task(SyntheticSettings(shaped=0.0, regions=(7, 7)), SIZE, _seeded())
    assert task.shapes is None
    assert set(task.regions.unique().tolist()) <= set(range(7))
    assert task.looks.mean.shape == (7,)
    assert task.size == SIZE


def test_subjects_differ_and_less_so_where_little_is_allowed():
    def spread(**settings: Any) -> float:
        generator, found = _seeded(1), []
        for _ in range(12):
            task = draw_task(SyntheticSettings(shaped=0.0, **settings), SIZE, generator)
            labels = draw_subjects(task, 4, generator)[1]
            found.append(float(labels.var(0).mean() / labels.mean()))
        return sum(found) / len(found)

    still, loose = spread(looseness=0.0, wobble=0.0), spread(looseness=1.0, wobble=1.0)
    assert still == 0
    assert loose > 0.2


def test_the_target_is_neither_too_small_nor_too_large():
    generator = _seeded(2)
    for _ in range(10):
        task = draw_task(SyntheticSettings(area=(0.05, 0.3), union=0.0, looseness=0.2), SIZE, generator)
        area = float(draw_subjects(task, 24, generator)[1].mean())
        assert 0.01 < area < 0.5, "loose bounds: those of the settings are met by other subjects"


def test_the_target_tells_itself_by_its_looks_or_its_place():
    """A threshold or the mean mask of other subjects finds most targets better than chance does."""
    generator = _seeded(6)
    known = 0
    for _ in range(20):
        images, labels = draw_subjects(draw_task(SyntheticSettings(), SIZE, generator), 16, generator)
        inside, outside = images[labels > 0], images[labels == 0]
        apart = float((inside.mean() - outside.mean()).abs() / (inside.std() + outside.std()))
        placed = float(labels.mean(0).max())
        known += apart > 0.3 or placed > 0.6
    assert known >= 14


def test_shapes_have_an_inside_and_keep_their_parents():
    draw = Draw(_seeded(8))
    for _ in range(10):
        shapes = draw_shapes(draw, 5)
        depth = depths(shapes, subject_grid(draw, 3, SIZE, 0.0, 0.0), draw)
        assert depth.shape == (3, 5, SIZE, SIZE)
        assert bool(depth.isfinite().all())
        for k, parent in enumerate(shapes.parent.tolist()):
            assert parent in (-1, k - 1)
            missing = (depth[:, parent] == -1).all((1, 2)) if parent >= 0 else torch.zeros(3, dtype=torch.bool)
            assert bool((depth[:, k] == -1).all((1, 2))[missing].all()), "a nucleus without its cell"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regions": (0, 4)}, r"regions: wanted .* got \(0, 4\)"),
        ({"shapes": (4, 3)}, r"shapes: wanted .* got \(4, 3\)"),
        ({"shaped": 1.5}, r"shaped: wanted a number in \[0, 1\], got 1.5"),
        ({"area": (0.5, 0.5)}, "area: wanted"),
    ],
)
def test_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SyntheticSettings(**settings)
