"""What several tests of DICOM start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from genseg_monai.dicom.series import Series, read_series
from tests.dicom.study import Study, write_study


@pytest.fixture(params=[False, True], ids=["straight", "oblique"])
def drawn(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Study, Series]:
    study = write_study(tmp_path, oblique=request.param, phi=False)
    return study, read_series(study.images)
