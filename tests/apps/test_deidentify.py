from __future__ import annotations

import pytest
from pydicom import dcmread

from genseg_monai._outcome import RunFailed
from genseg_monai.apps.convert import convert
from genseg_monai.apps.deidentify import deidentify
from genseg_monai.data import find_cases
from genseg_monai.dicom.uids import KEY_VARIABLE, Key
from genseg_monai.errors import UserError
from tests.dicom.leaks import find_leaks
from tests.dicom.study import write_study


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A study in `in`, a key, labels and a profile that keeps the names of its regions."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    Key.create(tmp_path / "key")
    (tmp_path / "labels.yaml").write_text("{liver: 1, tumour: 2}")
    (tmp_path / "profile.yaml").write_text("{options: [retain_modified_dates], labels: [liver, tumour]}")
    return tmp_path, write_study(tmp_path / "in", slices=5)


def test_deidentify_then_convert_gives_a_data_set(place, capfd):
    home, study = place
    told = deidentify(
        str(home / "in"), str(home / "clean"), profile=str(home / "profile.yaml"), key_file=str(home / "key")
    )
    assert told == "7 objects written, 0 refused"
    told = convert(
        str(home / "clean"), str(home / "data"), labels=str(home / "labels.yaml"), key_file=str(home / "key")
    )
    assert told == "1 cases with labels, 0 without, 0 refused"
    assert len([case for case in find_cases(home / "data") if case["label"]]) == 1
    assert not find_leaks(home / "clean", study.secrets)
    assert not find_leaks(home / "data", study.secrets)
    printed = capfd.readouterr()
    assert not [secret for secret in study.secrets if secret in "".join(printed)]
    assert "7/7" in printed.err  # in a log file too, not on a terminal alone
    assert "1/1" in printed.err


def test_the_key_may_come_from_the_environment(place, monkeypatch):
    home, _ = place
    monkeypatch.setenv(KEY_VARIABLE, str(home / "key"))
    deidentify(str(home / "in"), str(home / "clean"))
    assert {dcmread(path).PatientIdentityRemoved for path in (home / "clean").rglob("*.dcm")} == {"YES"}


def test_nothing_is_done_without_a_key(place):
    home, _ = place
    for command in (deidentify, convert):
        with pytest.raises(UserError, match="--key-file"):
            command(str(home / "in"), str(home / "clean"))
    assert not (home / "clean").exists()


@pytest.mark.parametrize("command", [deidentify, convert])
def test_an_unexpected_error_tells_its_kind_alone(place, monkeypatch, command):
    home, _ = place

    def fail(*_, **__):
        raise PermissionError(13, "denied", "/in/Jane Doe/1.dcm")

    monkeypatch.setattr(f"{command.__module__}.{command.__name__}_folder", fail)
    with pytest.raises(RunFailed) as caught:
        command(str(home / "in"), str(home / "out"), key_file=str(home / "key"))
    assert str(caught.value) == (
        f"{command.__name__}: stopped by an unexpected PermissionError; run it again, what is done is kept"
    )


def test_nothing_of_use_is_a_failure(place):
    home, _ = place
    (home / "letters").mkdir()
    (home / "letters" / "letter.txt").write_text("Dear")
    for command, out in ((deidentify, "clean"), (convert, "data")):
        with pytest.raises(RunFailed, match="wanted at least one .*, got none"):
            command(str(home / "letters"), str(home / out), key_file=str(home / "key"))


def test_refused_files_and_unknown_names_are_told(place):
    home, _ = place
    (home / "in" / "letter.txt").write_text("Dear")
    (home / "labels.yaml").write_text("{liver: 1}")
    told = deidentify(str(home / "in"), str(home / "clean"), key_file=str(home / "key"))
    assert told == "7 objects written, 1 refused (not_dicom 1), listed in quarantine.csv"
    told = convert(str(home / "in"), str(home / "data"), labels=str(home / "labels.yaml"), key_file=str(home / "key"))
    assert told == "1 cases with labels, 0 without, 0 refused; names without a class: tumour"
