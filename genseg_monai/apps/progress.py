"""Progress on stderr: what is done of how much, and the time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tqdm import tqdm

__all__ = ["bars"]


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function of a stage, the number done and the number of all, that draws a bar a stage.

    Example:
        >>> with bars() as tell:
        ...     tell("retrieve", 1, 2)
    """
    drawn: dict[str, tqdm] = {}
    with ExitStack() as stack:

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in drawn:
                quiet = not sys.stderr.isatty()
                drawn[stage] = stack.enter_context(
                    tqdm(total=total, desc=stage, file=sys.stderr, mininterval=10.0 if quiet else 0.2)
                )
            bar = drawn[stage]
            bar.total = total
            bar.update(done - bar.n)

        yield tell
