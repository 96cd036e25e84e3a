"""Fixtures of the tests: the way to the real data, and what is skipped where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

_ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, visibly, what needs a GPU; mark what reads the real data."""
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)


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
