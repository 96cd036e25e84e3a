"""Work on a study that is there, ``python -m genseg_monai.apps.studies OUT DEVICE``: `study` starts it on each GPU."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from genseg_monai.apps.studies.settings import read_study
from genseg_monai.apps.studies.worker import work
from genseg_monai.errors import UserError

__all__ = ["main"]


def main(out: str, device: str) -> int:
    """Run cells until none is left; returns 1 if some failed.

    Raises:
        UserError: there is no study.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    held = read_study(Path(out))
    if held is None:
        raise UserError(out, "wanted the folder of a study, it has no study.json")
    return 1 if work(Path(out), held[0], device) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
