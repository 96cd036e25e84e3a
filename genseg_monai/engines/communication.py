"""What the processes of one training tell each other; a process of its own has nobody to tell.

Each process holds the same networks and works on its share of every batch. The loop averages what the shares found
(gradients, and the vectors of the hypergradient) and takes every decision once for all: so the networks stay the same
to the bit everywhere, and one process can write for all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from genseg_monai._outcome import RunFailed
from genseg_monai.errors import UserError
from genseg_monai.multilevel import Average, Tree, alone
from genseg_monai.multilevel.tree import owned

__all__ = ["Communication", "begin", "device_of_this_process", "end"]

_BUCKET = 2**22  # numbers averaged at once; what is larger goes alone
_PATIENCE = timedelta(hours=12)  # a process may wait so long while the first one scores and writes


def begin() -> None:
    """Join the other processes where ``torchrun`` has started this one; else do nothing.

    NCCL between GPUs, gloo between CPUs. All processes but the first log no more than warnings from then on.
    """
    if dist.is_initialized() or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(device_of_this_process())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    if dist.get_rank() > 0:
        logging.disable(logging.INFO)


def end() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def device_of_this_process() -> torch.device:
    """Return the GPU of this process by its number on this machine, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


class Communication:
    """A process among those that train together.

    Args:
        rank: number of this process, from 0.
        world: how many there are.

    Attributes:
        average: named tensors -> their means over all processes, the same to the bit in each; a tensor may be
            overwritten. In a process of its own `genseg_monai.multilevel.alone`.

    Example:
        >>> alone = Communication()
        >>> alone.writes, alone.any(False), alone.gather("me"), alone.average({"a": torch.ones(1)})
        (True, False, ['me'], {'a': tensor([1.])})
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"wanted a rank below the number of processes, got {rank} of {world}")
        self.rank, self.world = rank, world
        self.average: Average = alone if world == 1 else self._average

    @classmethod
    def of_this_process(cls) -> Communication:
        """Return what `begin` has joined."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def writes(self) -> bool:
        """Whether this process writes files and logs for all."""
        return self.rank == 0

    def check(self, loader: Any, settings: Any) -> None:
        """Check that a loader draws the share of this process, and that the estimator can be shared.

        Raises:
            UserError: the estimator is ``unrolled``.
            ValueError: the loader has other shards.
        """
        if self.world == 1:
            return
        if (loader.shards, loader.shard) != (self.world, self.rank):
            came = f"{loader.shard} of {loader.shards}"
            raise ValueError(f"wanted a loader of shard {self.rank} of {self.world}, got {came}")
        if settings.estimator == "unrolled":
            raise UserError("estimator", "wanted one that several processes can share, got unrolled; take mixed")

    def any(self, flag: bool) -> bool:
        """Tell whether ``flag`` is set in some process."""
        if self.world == 1:
            return flag
        raised = torch.tensor(int(flag))
        with self._told():
            dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        values: list[Any] = [value] * self.world
        if self.world > 1:
            with self._told():
                dist.all_gather_object(values, value)
        return values

    def agree(self, where: str, what: str, value: Any) -> None:
        """Check that a value is the same everywhere.

        Raises:
            UserError: in every process, if it is not.
        """
        values = self.gather(value)
        other = next((rank for rank, found in enumerate(values) if found != values[0]), None)
        if other is not None:
            raise UserError(
                where,
                f"wanted {what} the same in all {self.world} processes, process {other} has another than process 0; "
                "give all machines the same files, in a folder that they share",
            )

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.world > 1:
            with self._told():
                for tensor in tensors:
                    given = tensor.detach().contiguous()
                    dist.broadcast(given, 0)
                    tensor.detach().copy_(given)

    def _average(self, tree: Tree) -> Tree:
        tree = {name: value.detach() for name, value in owned(tree).items()}
        with self._told():
            for bucket in _buckets(list(tree.values())):
                if len(bucket) == 1 and bucket[0].is_contiguous():
                    dist.all_reduce(bucket[0])
                    bucket[0].div_(self.world)
                    continue
                flat = torch.cat([value.reshape(-1) for value in bucket])
                dist.all_reduce(flat)
                for value, part in zip(bucket, flat.div_(self.world).split([v.numel() for v in bucket]), strict=True):
                    value.copy_(part.view(value.shape))
        return tree

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Make one line of what happens when another process is not there any more."""
        try:
            yield
        except RuntimeError as problem:
            raise RunFailed(
                f"process {self.rank} of {self.world}",
                "lost another process, which says above why it ended; mend that and resume with as many processes",
            ) from problem


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors of one type and device together, as many as are sent at once."""
    kind: Callable[[Tensor], Any] = lambda tensor: (str(tensor.dtype), str(tensor.device))  # noqa: E731
    bucket: list[Tensor] = []
    for tensor in sorted(tensors, key=kind):
        full = bucket and (sum(t.numel() for t in bucket) + tensor.numel() > _BUCKET or kind(tensor) != kind(bucket[0]))
        if full:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
