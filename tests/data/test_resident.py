"""Cases held as tensors: what is read, in which order it is drawn, and that the order continues."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor

from genseg_monai.data.resident import ResidentCases, ResidentLoader, load_resident


def numbered(count: int = 5) -> ResidentCases:
    """Case i is full of i."""
    images = torch.arange(count, dtype=torch.float32).reshape(count, 1, 1, 1).expand(count, 1, 4, 4).clone()
    return ResidentCases(images, images.to(torch.uint8), [f"patient {i}" for i in range(count)])


def drawn(loader: ResidentLoader, batches: int) -> list[list[int]]:
    return [batch["image"][:, 0, 0, 0].int().tolist() for batch in islice(loader, batches)]


def test_every_case_is_read_once_as_a_plain_tensor():
    read: list[int] = []

    def transform(item: dict[str, Any]) -> dict[str, Any]:
        read.append(item["number"])
        image = MetaTensor(torch.full((2, 6, 4), float(item["number"]), dtype=torch.float64), meta={"name": "secret"})
        return {"image": image, "label": np.full((1, 6, 4), item["number"], np.int64)}

    names = [{"group": "a", "case": "x"}, {"case": "y"}, {}, {"group": 7}]
    cases = load_resident(Dataset([{"number": i, **name} for i, name in enumerate(names)], transform), "cpu")
    assert read == [0, 1, 2, 3]
    assert cases.images.shape == (4, 2, 6, 4)
    assert cases.labels.shape == (4, 1, 6, 4)
    assert (cases.images.dtype, cases.labels.dtype) == (torch.float32, torch.uint8)
    assert type(cases.images) is type(cases.labels) is torch.Tensor
    assert cases.groups == ("a", "y", "2", "7")
    assert cases.labels[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_parts_of_different_length_are_refused():
    with pytest.raises(ValueError, match="got 2 images, 2 labels and 1 groups"):
        ResidentCases(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), ["a"])


@pytest.mark.parametrize(("count", "batch"), [(5, 1), (5, 2), (6, 3), (5, 5)])
def test_every_pass_visits_each_case_once_in_another_order(count, batch):
    loader = ResidentLoader(numbered(count), batch_size=batch, seed=1)
    sequence = [number for numbers in drawn(loader, 4 * count) for number in numbers]
    passes = [tuple(sequence[i : i + count]) for i in range(0, 4 * count, count)]
    assert all(sorted(one) == list(range(count)) for one in passes)
    assert len(set(passes)) > 1


def test_image_and_label_belong_together():
    for batch in islice(ResidentLoader(numbered(), batch_size=3, seed=0), 10):
        assert torch.equal(batch["image"].to(torch.uint8), batch["label"])


def test_a_batch_larger_than_the_pool_goes_round():
    loader = ResidentLoader(numbered(3), batch_size=8, seed=0)
    counts = Counter(drawn(loader, 1)[0])
    assert sum(counts.values()) == 8
    assert set(counts.values()) <= {2, 3}


def test_a_pool_limits_what_is_drawn():
    loader = ResidentLoader(numbered(), batch_size=2, seed=0)
    drawn(loader, 1)
    loader.use([1, 4], 3)
    assert {number for numbers in drawn(loader, 10) for number in numbers} == {1, 4}
    assert {len(numbers) for numbers in drawn(loader, 10)} == {3}
    other = loader.over([0, 2], batch_size=1, seed=5)
    assert other.cases is loader.cases
    assert {number for numbers in drawn(other, 10) for number in numbers} == {0, 2}
    with pytest.raises(ValueError, match="empty"):
        loader.use([], 1)


def test_the_seed_decides_the_order():
    one, same, another = (ResidentLoader(numbered(9), batch_size=2, seed=seed) for seed in (3, 3, 4))
    first = drawn(one, 9)
    assert drawn(same, 9) == first
    assert drawn(another, 9) != first


def test_the_order_does_not_hang_on_the_global_random_state():
    orders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        orders.append(drawn(ResidentLoader(numbered(9), batch_size=2, seed=3), 9))
    assert orders[0] == orders[1]


@pytest.mark.parametrize("batches", [0, 1, 2, 7])
def test_another_loader_continues_where_the_state_was_taken(batches):
    loader = ResidentLoader(numbered(), batch_size=2, seed=1)
    loader.use([0, 1, 3], 2)
    drawn(loader, batches)
    state = loader.state_dict()
    rest = drawn(loader, 9)
    other = ResidentLoader(numbered(), batch_size=4, seed=9)
    drawn(other, 3)
    other.load_state_dict(state)
    assert drawn(other, 9) == rest


def test_patients_to_avoid_are_passed_over_and_come_next():
    cases = ResidentCases(torch.rand(6, 1, 2, 2), torch.zeros(6, 1, 2, 2, dtype=torch.uint8), "aabbcc")
    loader = ResidentLoader(cases, batch_size=2, seed=3)
    loader.draw(avoid=[0, 2])
    assert sorted(loader.drawn) == [4, 5]
    drawn = []
    for _ in range(2):
        loader.draw()
        drawn += loader.drawn
    assert sorted(drawn) == [0, 1, 2, 3]


def test_a_pool_of_avoided_patients_alone_is_drawn_from_all_the_same():
    cases = ResidentCases(torch.rand(3, 1, 2, 2), torch.zeros(3, 1, 2, 2, dtype=torch.uint8), "aab")
    loader = ResidentLoader(cases, batch_size=2, seed=0)
    loader.use([0, 1], 2)
    loader.draw(avoid=[0])
    assert sorted(loader.drawn) == [0, 1]


def test_who_is_avoided_waits_once():
    groups = "a" * 9 + "bc"
    cases = ResidentCases(torch.rand(11, 1, 2, 2), torch.zeros(11, 1, 2, 2, dtype=torch.uint8), groups)
    loader = ResidentLoader(cases, batch_size=4, seed=0)
    for _ in range(20):
        loader.draw(avoid=[0])
        assert set(loader.drawn) == {9, 10}
        assert len(loader.state_dict()["queues"][0]) <= 11
    loader.draw()
    assert len(set(loader.drawn) & set(range(9))) == 4


@pytest.mark.parametrize(("shards", "fewest"), [(1, 4), (2, 2), (4, 1), (5, 4)])
def test_patients_of_a_batch(shards, fewest):
    cases = ResidentCases(torch.rand(6, 1, 2, 2), torch.zeros(6, 1, 2, 2, dtype=torch.uint8), "aabbcd")
    assert ResidentLoader(cases, batch_size=2, seed=0, shards=shards).fewest_patients == fewest
