"""One archive a test process, emptied before each test that uses it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dicom.study import Study, write_study
from tests.pacs.orthanc import Orthanc, start_orthanc


@pytest.fixture(scope="session")
def _archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    made = start_orthanc(tmp_path_factory.mktemp("orthanc"))
    yield made
    made.stop()


@pytest.fixture
def archive(_archive: Orthanc) -> Orthanc:
    _archive.empty()
    return _archive


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return a CT series with SEG and RTSTRUCT, identifiers planted."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    """Return three patients, one of them with a shorter second series in the same study."""
    home = tmp_path_factory.mktemp("studies")
    made = [
        write_study(home / "sent", slices=8, patient=1),
        write_study(home / "sent", slices=9, patient=2, oblique=True),
    ]
    made.append(write_study(home / "sent", slices=7, patient=3, seg=False))
    made.append(write_study(home / "sent", slices=5, patient=1, series=2))
    return made
