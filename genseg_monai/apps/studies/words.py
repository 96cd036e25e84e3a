"""Lists on the command line: words with commas between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from genseg_monai.apps.studies.cells import Arm
from genseg_monai.errors import UserError

__all__ = ["arm", "factor", "listed", "segmenter", "whole"]

_Value = TypeVar("_Value")


class _Wrong(ValueError):
    """A word that cannot be read, and what was wanted."""


def listed(flag: str, text: str, read: Callable[[str], _Value]) -> tuple[_Value, ...]:
    """Return the words of ``text``, each once, read by ``read``.

    Raises:
        UserError: there are none, or one cannot be read.

    Example:
        >>> listed("--sizes", "10, 20,10", whole)
        (10, 20)
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError(flag, "wanted one or more words with commas between, got none")
    try:
        return tuple(dict.fromkeys(read(word) for word in words))
    except _Wrong as wrong:
        raise UserError(flag, f"{wrong}, got '{text}'") from None


def arm(word: str) -> Arm:
    """Return an arm by its name."""
    if word not in list(Arm):
        raise _Wrong(f"wanted any of {', '.join(Arm)}")
    return Arm(word)


def segmenter(word: str) -> str:
    """Return the name of a segmenter that can be trained here."""
    from genseg_monai.networks.segmenters import Segmenter

    if word not in list(Segmenter):
        raise _Wrong(f"wanted any of {', '.join(Segmenter)}")
    return word


def whole(word: str) -> int:
    """Return a whole number, 0 or more."""
    if not (word.isascii() and word.isdigit()):
        raise _Wrong("wanted whole numbers with commas between")
    return int(word)


def factor(word: str) -> float:
    """Return a number above 0."""
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise _Wrong("wanted factors above 0, such as 0.3,1,3")
    return value
