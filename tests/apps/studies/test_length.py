"""What a study keeps when it is run again."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from genseg_monai.apps.studies import settings as study_settings
from genseg_monai.apps.studies.cells import Arm
from genseg_monai.apps.studies.length import settle
from genseg_monai.apps.studies.settings import StudySettings, read_config


def test_a_study_that_began_with_other_defaults_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = StudySettings("data", (Arm.PLAIN,), (0,), (8,), ("unet",), overrides={"outer_every": "3"})
    settle(tmp_path, asked, updates=100)
    with caplog.at_level(logging.WARNING):
        settle(tmp_path, asked)
        assert not caplog.text
        other = read_config(None) | {"search_fraction": 0.75, "outer_every": 9, "new_id": 1}
        monkeypatch.setattr(study_settings, "read_config", lambda preset: other)
        settle(tmp_path, asked)
    assert "defaults have changed since this study began (search_fraction 0.0 then, 0.75 now)" in caplog.text
