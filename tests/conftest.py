"""Fixtures of every test: the same random numbers, few threads, and the way to the real data."""

from __future__ import annotations

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

_ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Keep torch to as many threads as the environment says."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, visibly, what needs a GPU; mark what reads the real data."""
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - MONAI and other libraries draw from the global state
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the real data sets (`GENSEG_REAL_DATA`, or `shared/data` beside the checkout)."""
    folder = Path(os.environ.get("GENSEG_REAL_DATA") or _ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (set GENSEG_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the checkout."""
    return _ROOT
