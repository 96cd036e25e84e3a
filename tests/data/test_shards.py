"""Patients dealt to processes: whole, evenly, and drawn alike by one process and by several."""

from __future__ import annotations

import pytest
import torch

from genseg_monai.data import share_of
from genseg_monai.data.resident import ResidentCases, ResidentLoader
from genseg_monai.data.shards import deal_groups


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_groups_stay_whole_and_every_item_is_dealt_once(shards):
    groups = ["a", "b", "a", "c", "d", "d", "e", "f", "a", "g"]
    dealt = deal_groups(groups, shards)
    assert sorted(i for shard in dealt for i in shard) == list(range(len(groups)))
    for group in set(groups):
        assert sum(any(groups[i] == group for i in shard) for shard in dealt) == 1
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 2


def test_fewer_groups_than_shards_are_everyones():
    assert deal_groups(["a", "b", "a"], 3) == [[0, 1, 2]] * 3
    assert len(share_of([{"case": "only"}], 1, 4)) == 1


def test_no_shards_are_refused():
    with pytest.raises(ValueError, match="shards: wanted 1 or more, got 0"):
        deal_groups(["a"], 0)


def cases(count: int = 7) -> ResidentCases:
    numbers = torch.arange(count).reshape(-1, 1, 1, 1)
    return ResidentCases(numbers.float(), numbers.to(torch.uint8), [f"p{i // 2}" for i in range(count)])


def drawn(loader: ResidentLoader) -> list[int]:
    return [int(value) for value in loader.draw()["image"].flatten()]


def test_shards_draw_together_what_one_process_draws():
    given = {"batch_size": 2, "seed": 3, "shards": 3}
    together = ResidentLoader(cases(), **given)
    single = [ResidentLoader(cases(), shard=shard, **given) for shard in range(3)]
    for loader in (together, *single):
        loader.use([0, 1, 2, 3, 5, 6], 2)
    for _ in range(6):
        parts = [drawn(loader) for loader in single]
        assert drawn(together) == [case for part in parts for case in part]
        owners = [{case // 2 for case in part} for part in parts]
        assert not any(owners[i] & owners[j] for i in range(3) for j in range(i))
    assert together.state_dict()["queues"] == single[1].state_dict()["queues"]


def test_a_second_loader_has_the_same_shard():
    loader = ResidentLoader(cases(), batch_size=1, shards=2, shard=1).over([0, 4], batch_size=1, seed=0)
    assert {drawn(loader)[0] for _ in range(5)} == {4}


def test_a_state_of_other_shards_is_refused():
    state = ResidentLoader(cases(), batch_size=1, shards=2).state_dict()
    with pytest.raises(ValueError, match="it has 2 shards, this loader 1"):
        ResidentLoader(cases(), batch_size=1).load_state_dict(state)


@pytest.mark.parametrize(("shards", "shard"), [(0, None), (2, 2), (1, 1)])
def test_a_shard_that_is_not_there_is_refused(shards, shard):
    with pytest.raises(ValueError, match="wanted a shard below the number of shards"):
        ResidentLoader(cases(), batch_size=1, shards=shards, shard=shard)
