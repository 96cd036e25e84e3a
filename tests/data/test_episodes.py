"""Episodes: a query never shares a subject with its support; draws follow the hierarchy, the seed and the stage."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from genseg_monai.data.episodes import (
    SUPPORT_IMAGES,
    SUPPORT_LABELS,
    EpisodeLoader,
    EpisodeStage,
    choose_task,
    draw_entries,
)
from genseg_monai.data.synthetic_tasks import SyntheticSettings
from genseg_monai.data.task import Task
from genseg_monai.errors import UserError
from genseg_monai.transforms import IntensityRanges
from genseg_monai.transforms.episode_augment import EntryAugment, TaskAugment

SIZE = 16


def make_task(
    name: str = "a", dataset: str = "one", groups: tuple[str, ...] = ("p", "p", "q", "r"), **path: str
) -> Task:
    """Draw a task whose entry i is everywhere i / 100, so that a draw tells which entries it took."""
    images = (torch.arange(len(groups)) / 100).reshape(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE).contiguous()
    levels = {"subset": "", "modality": "picture", "axis": "", "label": name} | path
    return Task(name=name, dataset=dataset, images=images, labels=(images > 0).float(), groups=groups, **levels)


def _numbers(images: torch.Tensor) -> list[int]:
    return (images[..., 0, 0] * 100).round().long().flatten().tolist()


@pytest.mark.parametrize("count", [2, 4, 9])
def test_no_support_is_of_the_querys_subject(count):
    task, generator = make_task(groups=("p", "p", "q", "r", "q", "p")), torch.Generator().manual_seed(0)
    queries = set()
    for _ in range(60):
        query, *support = _numbers(draw_entries(task, count, generator)[0])
        assert task.groups[query] not in {task.groups[entry] for entry in support}
        assert len(support) == count - 1
        others = sum(group != task.groups[query] for group in task.groups)
        assert len(set(support)) == min(count - 1, others), "repeated before there was need"
        queries.add(query)
    assert queries == set(range(6))


def test_each_name_of_a_level_is_equally_likely():
    """A data set of nine labels counts no more than one of a single label."""
    many = [make_task(f"label {i}", "many") for i in range(9)]
    tasks = [*many, make_task("only", "single")]
    generator = torch.Generator().manual_seed(0)
    counts = Counter(choose_task(tasks, generator).name for _ in range(600))
    assert 240 < counts["only"] < 360
    assert len(counts) == 10


@pytest.mark.parametrize("level", ["subset", "modality", "axis"])
def test_every_level_of_the_hierarchy_counts(level):
    tasks = [make_task("a", **{level: "x"}), *(make_task(f"b{i}", **{level: "y"}) for i in range(5))]
    generator = torch.Generator().manual_seed(1)
    counts = Counter(choose_task(tasks, generator).name for _ in range(400))
    assert 140 < counts["a"] < 260


def test_a_batch_has_the_shapes_of_its_stage():
    loader = EpisodeLoader(stage=EpisodeStage(size=24, support=(5, 5), entries=16, tasks=8))
    batch = next(iter(loader))
    assert batch["image"].shape == batch["label"].shape == (3, 1, 24, 24)
    assert batch[SUPPORT_IMAGES].shape == batch[SUPPORT_LABELS].shape == (3, 5, 1, 24, 24)
    assert set(batch["label"].unique().tolist()) <= {0.0, 1.0}


def test_tasks_come_at_the_size_of_the_stage():
    loader = EpisodeLoader(tasks=[make_task()], share=0.0, stage=EpisodeStage(size=8, support=(2, 2), entries=2))
    batch = loader.draw()
    assert batch["image"].shape == (1, 1, 8, 8)
    assert set(batch[SUPPORT_LABELS].unique().tolist()) <= {0.0, 1.0}


def test_support_sizes_cover_their_range_small_ones_more_often():
    stage, generator = EpisodeStage(support=(1, 64)), torch.Generator().manual_seed(0)
    sizes = Counter(stage.draw_support(generator) for _ in range(3000))
    assert min(sizes) == 1
    assert max(sizes) == 64
    small, large = (sum(sizes[i] for i in part) for part in (range(1, 8), range(8, 65)))
    assert 0.8 < small / large < 1.25, "half of them below the geometric middle"


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.5, 25, 55), (1.0, 80, 80)])
def test_the_share_of_synthetic_tasks(share, low, high):
    loader = EpisodeLoader(
        tasks=[make_task()], synthetic=SyntheticSettings(), share=share, seed=4,
        stage=EpisodeStage(size=SIZE, support=(1, 1), entries=1),
    )  # fmt: skip
    # entries of the task are of one brightness
    drawn = sum(float(loader.draw()["image"].std()) > 1e-3 for _ in range(80))
    assert low <= drawn <= high


def test_without_tasks_all_are_synthetic():
    assert EpisodeLoader(share=0.0).share == 1.0


def test_a_pool_holds_so_many_tasks_and_no_end_of_subjects():
    settings = SyntheticSettings(looseness=0.0, wobble=0.0, shaped=0.0)
    loader = EpisodeLoader(synthetic=settings, pool=3, seed=7, stage=EpisodeStage(size=SIZE, support=(1, 1), entries=1))
    drawn = [loader.draw() for _ in range(40)]
    assert len({batch["label"].numpy().tobytes() for batch in drawn}) == 3, "one mask a task: nothing moves here"
    assert len({batch["image"].numpy().tobytes() for batch in drawn}) == 40


@pytest.mark.parametrize("augmented", [False, True])
def test_the_state_continues_to_the_bit(augmented):
    def loader() -> EpisodeLoader:
        return EpisodeLoader(
            tasks=[make_task(), make_task("b", "two")], synthetic=SyntheticSettings(), share=0.5, seed=2,
            entry_augment=EntryAugment() if augmented else None, task_augment=TaskAugment() if augmented else None,
            stage=EpisodeStage(size=SIZE, support=(1, 4), entries=4),
        )  # fmt: skip

    one = loader()
    for _ in range(3):
        one.draw()
    state = one.state_dict()
    later = [one.draw() for _ in range(4)]
    two = loader()
    two.load_state_dict(state)
    for expected in later:
        found = two.draw()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("augment", "low", "high"), [(0.0, 0, 0), (0.5, 15, 45), (1.0, 60, 60)])
def test_the_share_of_augmented_tasks(augment, low, high):
    """Inverted pictures of a task whose pictures are all dark."""
    always = TaskAugment(invert=1.0, intensity=IntensityRanges(probability=0.0))
    stage = EpisodeStage(size=SIZE, support=(1, 1), entries=1, augment=augment)
    loader = EpisodeLoader(tasks=[make_task()], share=0.0, task_augment=always, stage=stage)
    assert low <= sum(float(loader.draw()["image"].mean()) > 0.5 for _ in range(60)) <= high


def test_another_seed_draws_something_else():
    stage = EpisodeStage(size=SIZE, support=(1, 1), entries=1)
    one, two = (EpisodeLoader(seed=seed, stage=stage).draw() for seed in (0, 1))
    assert not torch.equal(one["image"], two["image"])


def test_the_digest_tells_tasks_apart():
    one, same, other = (
        EpisodeLoader(tasks=[task]) for task in (make_task(), make_task(), make_task(groups=("p", "q")))
    )
    assert one.digest() == same.digest() != other.digest()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"support": (0, 3)}, r"support: wanted \(smallest, largest\), at least 1, got \(0, 3\)"),
        ({"size": 4}, "size: wanted at least 8, got 4"),
        ({"share": 0.0}, "share: wanted a share above 0"),
        ({"tasks": 0}, "tasks: wanted at least 1, got 0"),
        ({"augment": 1.5}, r"augment: wanted a share in \[0, 1\], got 1.5"),
    ],
)
def test_a_stage_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EpisodeStage(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": [make_task(groups=("p", "p"))]}, "task a: wanted 2 subjects, got 1; leave it out"),
        ({"share": 2.0}, r"synthetic_share: wanted a number in \[0, 1\], got 2.0"),
        ({"pool": 0}, "synthetic_tasks: wanted at least 1 task"),
    ],
)
def test_a_loader_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EpisodeLoader(**settings)
