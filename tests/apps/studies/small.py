"""A study of seconds: the phantom, small networks, four updates a cell."""

from __future__ import annotations

from pathlib import Path

from genseg_monai.__main__ import main

__all__ = ["DATA", "TINY", "study"]

DATA = "phantom://2d?cases=12&size=32"
TINY = {
    "updates": "4",
    "rates": "1",
    "device": "cpu",
    "batch_size": "2",
    "generator_width": "2",
    "discriminator_width": "4",
    "outer_after": "1",
    "outer_every": "1",
}


def study(out: Path, **changes: str | None) -> int:
    """Type ``genseg study`` with changes and return its exit code."""
    given = {"data": DATA, "out": str(out), "seeds": "0", "arms": "plain", **TINY, **changes}
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
    return main(["study", *words])
