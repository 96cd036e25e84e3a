"""How work ends: what failed in part, and the line and exit code a user gets for an exception."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from genseg_monai.errors import UserError

__all__ = ["RunFailed", "exit_code", "one_line", "report_in_one_line", "report_only_kind", "user_error"]


class RunFailed(RuntimeError):
    """A command did its work as far as it could, and not all of it succeeded (exit code 1).

    Args:
        where: what failed: a command, a file or a folder.
        problem: what happened and what to do.

    Example:
        >>> str(RunFailed("predict", "2 of 5 inputs failed (listed above)"))
        'predict: 2 of 5 inputs failed (listed above)'
    """

    def __init__(self, where: object, problem: str) -> None:
        super().__init__(str(where), problem)
        self.where, self.problem = str(where), problem

    def __str__(self) -> str:
        """Return ``where: problem`` as a single line."""
        return " ".join(f"{self.where}: {self.problem}".split())


def user_error(error: BaseException) -> UserError | RunFailed | None:
    """Find the error meant for the user below the layers MONAI wraps around it.

    Args:
        error: what was caught; its causes (``raise ... from``) are followed, the deepest one meant for the user wins.

    Returns:
        The :class:`~genseg_monai.errors.UserError` or :class:`RunFailed`, or None if there is none.
    """
    found: UserError | RunFailed | None = None
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, UserError | RunFailed):
            found = current
        current = current.__cause__ or current.__context__
    return found


def _root(error: BaseException) -> BaseException:
    """Return the first error of a chain of causes: the one that says what happened."""
    seen: set[int] = set()
    while error.__cause__ is not None and id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """Tell an exception in one line, without the word "genseg" in front.

    Args:
        error: what was caught.

    Returns:
        ``WHERE: problem``; for an error not meant for the user, its kind and its first line.
    """
    told = user_error(error)
    if told is not None:
        return str(told)
    root = _root(error)
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return f"{type(root).__name__}: {lines[0] if lines else 'no message'} (--debug shows where)"


def exit_code(error: BaseException) -> int:
    """Return 2 for wrong use or input, 1 for a failure in the run.

    Args:
        error: what was caught.

    Example:
        >>> exit_code(UserError("a.png", "wanted a mask, got none")), exit_code(OSError("disk full"))
        (2, 1)
    """
    return 2 if isinstance(user_error(error), UserError) else 1


def report_in_one_line() -> None:
    """Make an error that ends this process one line on stderr, as the command line does; ``GENSEG_DEBUG=1`` undoes it.

    For runs that MONAI starts, whose tracebacks bury the one line that matters.
    """
    if os.environ.get("GENSEG_DEBUG", "") in ("", "0"):
        sys.excepthook = _print_one_line


def _print_one_line(kind: type[BaseException], error: BaseException, trace: object) -> None:
    sys.stderr.write(f"genseg: {one_line(error)}\n")


@contextmanager
def report_only_kind(command: str) -> Iterator[None]:
    """Let errors meant for the user pass; of any other only the kind is told, for its text may hold a value."""
    try:
        yield
    except (UserError, RunFailed):
        raise
    except Exception as error:
        kind = type(error).__name__
        raise RunFailed(command, f"stopped by an unexpected {kind}; run it again, what is done is kept") from None
