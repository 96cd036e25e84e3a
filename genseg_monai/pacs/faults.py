"""What goes wrong between here and an archive, and how often it is tried again.

No message holds anything an archive sent: no name, no identifier, no UID, no URL with a query in it. A fault that may
pass (a broken line, a busy archive) says so, and only that kind is tried again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from genseg_monai._outcome import RunFailed

__all__ = ["ArchiveError", "Bound", "NetFault", "retrying"]

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class NetFault(StrEnum):
    """Why something did not arrive, or was not taken."""

    UNREACHABLE = "unreachable"
    """No connection: wrong host or port, a firewall, no archive."""
    REJECTED = "rejected"
    """The archive does not accept these AE titles, or the user."""
    CERTIFICATE = "certificate"
    """A certificate was refused, ours or theirs, or the other side speaks no TLS."""
    BROKEN = "broken"
    """The connection ended in the middle of a transfer."""
    FAILED = "failed"
    """The archive answered, with an error."""
    DECLINED = "declined"
    """The archive will not do this one thing: it lacks what was asked for, or does not take what was sent."""
    COUNT = "count"
    """Fewer instances arrived than the archive says it has."""
    UNEXPECTED = "unexpected"
    """An instance that was not asked for: another study, another series, an impossible UID."""
    BOUNDS = "bounds"
    """More bytes, instances, answers or seconds than allowed."""
    SPACE = "space"
    """The disk is full, or nearly."""


_PASSING = frozenset({NetFault.UNREACHABLE, NetFault.BROKEN, NetFault.FAILED, NetFault.COUNT})


class ArchiveError(RunFailed):
    """A failure in talking to an archive.

    Args:
        where: the route or file, never a value an archive sent.
        reason: a `NetFault` or its value.
        problem: what was wanted, what came, what to do.

    Example:
        >>> error = ArchiveError("c-get", "broken", "wanted 20 instances, the line broke after 7; run it again")
        >>> str(error), error.passing
        ('c-get: wanted 20 instances, the line broke after 7; run it again', True)
    """

    def __init__(self, where: object, reason: NetFault | str, problem: str) -> None:
        super().__init__(where, problem)
        self.reason = NetFault(reason)
        self.args = (self.where, self.reason, problem)  # what pickling hands to __init__

    @property
    def passing(self) -> bool:
        """Say whether trying again may help."""
        return self.reason in _PASSING


class Bound:
    """Counts what an archive answers to one query, and stops what is too much or takes too long.

    Args:
        route: to name in the error.
        most: bytes.
        seconds: from now on.
        clock: seconds.

    Example:
        >>> bound = Bound("c-find", most=100, seconds=60)
        >>> bound(100)
        >>> bound(1)
        Traceback (most recent call last):
            ...
        genseg_monai.pacs.faults.ArchiveError: c-find: wanted answers of at most 100 bytes, got more; narrow the query
    """

    def __init__(self, route: str, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.fault: ArchiveError | None = None
        self._route, self._most, self._seconds = route, most, seconds
        self._left, self._clock, self._deadline = most, clock, clock() + seconds

    def __call__(self, size: int) -> None:
        """Note bytes that came.

        Raises:
            ArchiveError: they were too many, or too late.
        """
        self._left -= size
        problem = ""
        if self._left < 0:
            problem = f"wanted answers of at most {self._most} bytes, got more; narrow the query"
        elif self._clock() > self._deadline:
            problem = f"wanted answers within {self._seconds:g} s, they take longer; narrow the query"
        if problem:
            self.fault = ArchiveError(self._route, NetFault.BOUNDS, problem)
            raise self.fault


def retrying(
    work: Callable[[], _Result], attempts: int, delay: float, sleep: Callable[[float], object] = time.sleep
) -> _Result:
    """Do `work`, again after a fault that may pass, waiting twice as long each time.

    Args:
        work: what to do.
        attempts: how often at most, 1 or more.
        delay: seconds before the second attempt; at most a minute between two.
        sleep: how to wait.

    Raises:
        ArchiveError: the last fault.

    Example:
        >>> answers = iter([ArchiveError("c-get", "broken", "the line broke"), 5])
        >>> def work():
        ...     answer = next(answers)
        ...     if isinstance(answer, Exception):
        ...         raise answer
        ...     return answer
        >>> retrying(work, attempts=3, delay=0.0)
        5
    """
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except ArchiveError as error:
            if not error.passing or attempt == attempts:
                raise
            wait = min(delay * 2 ** (attempt - 1), 60.0)
            _LOG.warning("%s; attempt %d of %d in %.1f s", error, attempt + 1, attempts, wait)
            sleep(wait)
    raise ValueError(f"attempts: wanted 1 or more, got {attempts}")
