"""Random changes of a batch that come out the same however many processes share it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genseg_monai.data.resident import ResidentLoader

__all__ = ["by_shard"]


def by_shard(
    change: Callable[..., tuple[Tensor, ...]],
    batches: tuple[Tensor, ...],
    random: torch.Generator,
    loader: ResidentLoader,
) -> tuple[Tensor, ...]:
    """Change a batch, each shard of it by draws of its own.

    Args:
        change: ``(*batches, random)`` -> tensors of as many items.
        batches: tensors of the same number of items, those of the loader's shard, or of all shards in their order.
        random: in step in all processes, and so afterwards.
        loader: whose shards these are.

    Example:
        >>> from genseg_monai.data.resident import ResidentCases, ResidentLoader
        >>> cases = ResidentCases(torch.rand(4, 1, 8, 8), torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "abcd")
        >>> noise = lambda images, random: (images + torch.rand(images.shape, generator=random),)
        >>> whole = ResidentLoader(cases, batch_size=1, shards=2)
        >>> half = ResidentLoader(cases, batch_size=1, shards=2, shard=1)
        >>> both, second = (loader.draw()["image"] for loader in (whole, half))
        >>> start = lambda: torch.Generator().manual_seed(0)
        >>> torch.equal(by_shard(noise, (both,), start(), whole)[0][1:], by_shard(noise, (second,), start(), half)[0])
        True
    """
    if loader.shards == 1:
        return change(*batches, random)
    seeds = torch.randint(2**62, (loader.shards,), generator=random, device=random.device).tolist()
    if loader.shard is not None:
        seeds = [seeds[loader.shard]]
    shares = zip(*(batch.tensor_split(len(seeds)) for batch in batches), strict=True)
    changed = [
        change(*share, torch.Generator(random.device).manual_seed(seed))
        for share, seed in zip(shares, seeds, strict=True)
        if len(share[0])
    ]
    return tuple(torch.cat(parts) for parts in zip(*changed, strict=True))
