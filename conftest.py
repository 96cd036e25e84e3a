"""What holds for every test and every example in a docstring: few threads, the same random numbers, no screen."""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path

# before torch and numpy are imported: xdist runs one test process a core, so more threads only get in each other's way
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch

# MONAI Label has an environment of its own; elsewhere the modules that stand on its classes cannot be imported
_ROOT = Path(__file__).parent
_LABEL = (_ROOT / "genseg_monai" / "apps" / "label").glob("*.py")
collect_ignore = (
    []
    if importlib.util.find_spec("monailabel")
    else [
        *(str(p) for p in _LABEL if "monailabel" in p.read_text()),
        str(_ROOT / "tests" / "apps" / "label" / "parts.py"),
    ]
)


def pytest_configure() -> None:
    """Keep torch to as many threads as the environment says."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - MONAI and other libraries draw from the global state
    torch.manual_seed(0)
