"""All labelled cases as two tensors on the device: read once, sampled there, never waited for.

A training set of 5 to 100 cases at its working size fits in any memory, so no loader worker stands between the data and
the step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import torch
from monai.utils import convert_to_tensor
from monai.utils.enums import CommonKeys
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from genseg_monai.data.shards import deal_groups
from genseg_monai.transforms._transfer import send

__all__ = ["Cases", "ResidentCases", "ResidentLoader", "case_group", "load_resident", "plain"]


class Cases(Protocol):
    """Labelled cases that batches are made of: `ResidentCases`, or patches of larger ones."""

    drawn: bool
    """Whether `take` makes a draw for each item and so needs seeds."""
    groups: tuple[str, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the images."""

    def __len__(self) -> int:
        """Return how many there are."""

    def digest(self) -> str:
        """Return a hash of all voxels."""

    def take(self, chosen: Sequence[int], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return images ``B C H W [D]`` and labels ``B 1 H W [D]`` of some case numbers."""

    def examples(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return one image and label of each to look at, always the same."""


class ResidentCases:
    """Every case of a data set, stacked.

    Attributes:
        images: ``N C H W [D]`` float32 in [0, 1].
        labels: ``N 1 H W [D]`` uint8 class indices.
        groups: one name a case (the patient); the case's own name where there is none.
        drawn: that `take` draws nothing.
    """

    drawn = False

    def __init__(self, images: Tensor, labels: Tensor, groups: Sequence[str]) -> None:
        if not len(images) == len(labels) == len(groups):
            raise ValueError(f"got {len(images)} images, {len(labels)} labels and {len(groups)} groups")
        self.images, self.labels, self.groups = images, labels, tuple(groups)
        self._digest: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the images."""
        return self.images.dtype

    def take(self, chosen: Sequence[int], seeds: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """Return images ``B C H W [D]`` and labels ``B 1 H W [D]`` of some case numbers; no draw, so no seeds."""
        index = send(torch.tensor(list(chosen)), self.images.device)
        return self.images[index], self.labels[index]

    def examples(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the images and labels of some case numbers."""
        return self.take(chosen)

    def digest(self) -> str:
        """Return a hash of the pixels: two runs with the same one saw the same cases in the same order."""
        if self._digest is None:
            parts = [self.images.cpu().numpy().tobytes(), self.labels.cpu().numpy().tobytes()]
            self._digest = hashlib.sha256(b"".join(parts)).hexdigest()
        return self._digest


def load_resident(dataset: Dataset[Any], device: torch.device | str) -> ResidentCases:
    """Read every case of ``dataset`` (dictionaries with ``image`` ``C H W [D]`` and ``label`` ``1 H W [D]``)."""
    count = len(dataset)  # type: ignore[arg-type]
    items = [dataset[i] for i in tqdm(range(count), desc="reading cases", disable=None, leave=False)]
    images = torch.stack([plain(item[CommonKeys.IMAGE]).float() for item in items]).to(device)
    labels = torch.stack([plain(item[CommonKeys.LABEL]).to(torch.uint8) for item in items]).to(device)
    return ResidentCases(images, labels, [case_group(dataset, items[i], i) for i in range(count)])


def case_group(dataset: Any, item: Any, number: int) -> str:
    """Return the patient of a case: as the list of a MONAI data set says, else the case itself."""
    told = dataset.data[number] if hasattr(dataset, "data") else item
    return str(told.get("group", told.get("case", number)))


def plain(value: Any) -> Tensor:
    """Return a tensor without MONAI's record of its history, which every operation of the training would carry on."""
    tensor: Tensor = convert_to_tensor(value, track_meta=False)
    return tensor


class ResidentLoader:
    """An endless iterator of batches over a pool of resident cases.

    Every pass over the pool visits each case once in a new random order; a batch larger than the pool goes round.
    Order and position are part of ``state_dict``.

    Where several processes train together, each has its shard of the patients (all patients where there are fewer of
    them than shards) and draws ``batch_size`` of its cases. The draws of all shards come from one random state, which
    is the same everywhere: one process with all shards draws what the others draw together.

    Args:
        dataset: a map-style data set, or cases already read: `ResidentCases`, or `PatchCases` of large images.
        batch_size: cases a batch, of each shard.
        device: where the cases lie.
        seed: of the order.
        shards: how many the patients are dealt to.
        shard: the one to draw from; all of them, one after the other, if None.

    Attributes:
        drawn: case numbers of the latest batch, of all shards.

    Example:
        >>> cases = ResidentCases(torch.rand(4, 1, 8, 8), torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "abcd")
        >>> loader = ResidentLoader(cases, batch_size=3, seed=0)
        >>> next(iter(loader))["image"].shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        dataset: Dataset[Any] | Cases,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        shards: int = 1,
        shard: int | None = None,
    ) -> None:
        if shards < 1 or not 0 <= (shard or 0) < shards:
            raise ValueError(f"wanted a shard below the number of shards, got {shard} of {shards}")
        self.shards, self.shard = shards, shard
        self.cases: Cases = load_resident(dataset, device) if isinstance(dataset, Dataset) else dataset
        self._random = torch.Generator().manual_seed(seed)
        self.drawn: list[int] = []
        self.use(range(len(self.cases)), batch_size)

    def use(self, pool: Sequence[int], batch_size: int) -> None:
        """Draw from these case numbers from now on."""
        if not pool:
            raise ValueError("the pool of cases is empty")
        self.pool, self.batch_size = list(pool), batch_size
        dealt = deal_groups([self.cases.groups[i] for i in self.pool], self.shards)
        self._pools = [[self.pool[i] for i in numbers] for numbers in dealt]
        self._queues: list[list[int]] = [[] for _ in self._pools]

    @property
    def fewest_patients(self) -> int:
        """Patients that a batch is drawn from, of the shard that has the fewest."""
        return min(len({self.cases.groups[i] for i in pool}) for pool in self._pools)

    def over(self, pool: Sequence[int], *, batch_size: int, seed: int) -> ResidentLoader:
        """Return a second loader over some of the same cases, without copying them."""
        other = ResidentLoader(self.cases, batch_size=batch_size, seed=seed, shards=self.shards, shard=self.shard)
        other.use(pool, batch_size)
        return other

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            yield self.draw()

    def draw(self, avoid: Collection[int] = ()) -> dict[str, Tensor]:
        """Return the next batch: ``image`` ``B C H W [D]``, ``label`` ``B 1 H W [D]``.

        Args:
            avoid: case numbers whose patients are passed over this time, unless the pool has no others.
        """
        count, seeds = self.batch_size * self.shards, list[int]()
        if self.cases.drawn:
            seeds = torch.randint(2**32, (count,), generator=self._random).tolist()
        avoided = {self.cases.groups[i] for i in avoid}
        self.drawn, chosen = [], list[int]()
        for number, (pool, queue) in enumerate(zip(self._pools, self._queues, strict=True)):
            taken = self._take(pool, queue, avoided)
            self.drawn += taken
            if self.shard in (None, number):
                chosen += taken
        if self.shard is not None:
            seeds = seeds[self.shard * self.batch_size :][: self.batch_size]
        images, labels = self.cases.take(chosen, seeds)
        return {CommonKeys.IMAGE: images, CommonKeys.LABEL: labels}

    def _take(self, pool: Sequence[int], queue: list[int], avoided: set[str]) -> list[int]:
        """Take a batch off a queue, and prolong that where it is too short.

        Who is passed over keeps the place, and has no second one: else the queue would grow without end where one
        patient has most of the cases.
        """
        if avoided.issuperset(self.cases.groups[i] for i in pool):
            avoided = set()
        places: list[int] = []
        seen = 0
        while len(places) < self.batch_size:
            if seen == len(queue):
                order = torch.randperm(len(pool), generator=self._random)
                waiting = {case for case in queue if self.cases.groups[case] in avoided}
                queue += [case for case in (pool[i] for i in order.tolist()) if case not in waiting]
            if self.cases.groups[queue[seen]] not in avoided:
                places.append(seen)
            seen += 1
        taken = [queue[place] for place in places]
        for place in reversed(places):
            del queue[place]
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Return pool, order, position and random state."""
        return {
            "pool": list(self.pool),
            "batch_size": self.batch_size,
            "queues": [list(queue) for queue in self._queues],
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken."""
        self.use(state["pool"], state["batch_size"])
        if len(state["queues"]) != self.shards:
            raise ValueError(f"it has {len(state['queues'])} shards, this loader {self.shards}")
        self._queues = [list(queue) for queue in state["queues"]]
        self._random.set_state(state["random"])
