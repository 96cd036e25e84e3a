"""Divide cases among the processes of one training, all of a patient to the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genseg_monai.data.splits import group_of

__all__ = ["deal_groups", "share_of"]


def deal_groups(groups: Sequence[str], shards: int) -> list[list[int]]:
    """Deal items to shards of about equal size, whole groups each.

    Args:
        groups: the group of each item.
        shards: how many, 1 or more.

    Returns:
        The numbers of the items of each shard, in their order. Of fewer groups than shards each gets all of them.

    Example:
        >>> deal_groups(["a", "a", "b", "c"], 2)
        [[0, 1], [2, 3]]
        >>> deal_groups(["a", "a"], 2)
        [[0, 1], [0, 1]]
    """
    if shards < 1:
        raise ValueError(f"shards: wanted 1 or more, got {shards}")
    items: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        items.setdefault(group, []).append(i)
    if len(items) < shards:
        return [list(range(len(groups))) for _ in range(shards)]
    dealt: list[list[int]] = [[] for _ in range(shards)]
    for members in sorted(items.values(), key=len, reverse=True):
        min(dealt, key=len).extend(members)
    return [sorted(shard) for shard in dealt]


def share_of(cases: Sequence[Mapping[str, Any]], shard: int, shards: int) -> list[Mapping[str, Any]]:
    """Return the cases of one shard; all of them where there are fewer patients than shards.

    Example:
        >>> [case["case"] for case in share_of([{"case": "a"}, {"case": "b"}, {"case": "c"}], 0, 2)]
        ['a', 'c']
    """
    dealt = deal_groups([group_of(case, i) for i, case in enumerate(cases)], shards)
    return [cases[i] for i in dealt[shard]]
