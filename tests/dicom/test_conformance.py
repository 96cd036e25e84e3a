"""What is written is checked by dciodvfy, which knows every rule of the standard; `apt install dicom3tools`."""

from __future__ import annotations

import pytest

from genseg_monai.dicom.folder import deidentify_folder
from genseg_monai.dicom.profile import Option, Profile
from genseg_monai.dicom.uids import Key
from tests.dicom.study import write_study
from tests.tools import dicom_errors


@pytest.mark.parametrize("options", [(), tuple(sorted(set(Option) - {Option.RETAIN_FULL_DATES}))])
@pytest.mark.parametrize("phi", [False, True])
def test_a_clean_study_stays_without_error(tmp_path, options, phi):
    write_study(tmp_path / "in", slices=2, phi=phi)
    profile = Profile(options=frozenset(options), labels=("liver",))
    summary = deidentify_folder(tmp_path / "in", tmp_path / "out", profile=profile, key=Key(bytes(32)))
    assert summary.written == 4
    for path in (tmp_path / "out").rglob("*.dcm"):
        # the planted tracking ids stand without the UIDs they need: that error was there before
        assert {line for line in dicom_errors(path) if "Tracking" not in line} == set()
