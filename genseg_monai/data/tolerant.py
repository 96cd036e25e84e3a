"""Go through cases one by one; a case that cannot be read is reported and left out, the rest goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from monai.data import MetaTensor
from monai.data.utils import list_data_collate
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from genseg_monai._outcome import RunFailed, one_line

__all__ = ["TolerantLoader"]

logger = logging.getLogger(__name__)


class TolerantLoader:
    """Iterate over a data set in batches of one case.

    For prediction, where a folder of a thousand images may hold a broken one: each failure is one line in the log and
    stays in `failures`; `raise_failures` ends the run with their number. Progress with time left goes to stderr if
    that is a terminal.

    The loader has no length, on purpose: an engine that expects as many batches as there are cases would start anew
    to replace those left out.

    Args:
        dataset: ``dataset[i]`` reads a case, a dictionary; entries that are None are left out of the batch.
        description: stands before the progress bar.

    Attributes:
        failures: one line for each case left out.

    Example:
        >>> import torch
        >>> loader = TolerantLoader([{"image": torch.zeros(1, 4, 4), "label": None}])
        >>> {key: tuple(value.shape) for batch in loader for key, value in batch.items()}
        {'image': (1, 1, 4, 4)}
    """

    def __init__(self, dataset: Dataset[Any], description: str = "cases") -> None:
        self.dataset, self.description = dataset, description
        self.failures: list[str] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.failures = []
        count = len(self.dataset)  # type: ignore[arg-type]
        with tqdm(total=count, desc=self.description, disable=None) as bar:
            for i in range(count):
                case = self._read(i, bar)
                if case is not None:
                    yield _batch_of_one(case)
                bar.update()

    def _read(self, i: int, bar: tqdm[Any]) -> dict[str, Any] | None:
        try:
            case: Mapping[str, Any] = self.dataset[i]
        except Exception as error:  # a foreign file can make a reader fail in any way
            line = one_line(error)
            bar.clear()  # the line must not end up behind the bar
            logger.error("genseg: %s", line)
            logger.debug("where:", exc_info=True)
            self.failures.append(line)
            return None
        return {key: value for key, value in case.items() if value is not None}

    def raise_failures(self) -> None:
        """End a run in which cases were left out.

        Raises:
            RunFailed: with the number of cases that could not be read.
        """
        if self.failures:
            count = len(self.dataset)  # type: ignore[arg-type]
            raise RunFailed(self.description, f"{len(self.failures)} of {count} inputs failed, each told above")


def _batch_of_one(case: Mapping[str, Any]) -> dict[str, Any]:
    """Return the batch that MONAI makes of one case, on the case's own memory: a stack holds a large volume twice."""
    large = {key: value for key, value in case.items() if isinstance(value, Tensor) and value.ndim}
    batch: dict[str, Any] = list_data_collate([{**case, **{key: value[..., :0] for key, value in large.items()}}])
    for key, value in large.items():
        batch[key].data = (value.as_tensor() if isinstance(value, MetaTensor) else value)[None]
    return batch
