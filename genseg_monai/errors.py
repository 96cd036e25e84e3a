"""The one error a user is meant to read; it lies below every other module."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(ValueError):
    """Wrong input or wrong use, told in one line.

    Args:
        where: what the problem lies in: a file, a folder, a flag or a config id.
        problem: what was wanted, what came, and what to do.

    Example:
        >>> from genseg_monai.errors import UserError
        >>> str(UserError("scan.png", "wanted a mask of 64 x 64 pixels, got 32 x 32; draw it on the image itself"))
        'scan.png: wanted a mask of 64 x 64 pixels, got 32 x 32; draw it on the image itself'
    """

    def __init__(self, where: object, problem: str) -> None:
        # both go to Exception.args: the error then survives pickling, as it must to leave a worker process
        super().__init__(str(where), problem)
        self.where = str(where)
        self.problem = problem

    def __str__(self) -> str:
        """Return ``where: problem`` as a single line."""
        return " ".join(f"{self.where}: {self.problem}".split())
