from __future__ import annotations

import os
import pickle

import pytest
from pydicom.uid import UID_dictionary

from genseg_monai.dicom.uids import KEY_VARIABLE, Key
from genseg_monai.errors import UserError


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    Key.create(path)
    return path


def test_a_new_key_is_readable_by_its_owner_only(key_file):
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert Key.load(key_file).fingerprint == Key.load(key_file).fingerprint
    with pytest.raises(UserError, match="new file"):
        Key.create(key_file)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(key_file, mode):
    key_file.chmod(mode)
    with pytest.raises(UserError, match="mode 0600"):
        Key.load(key_file)


def test_raw_bytes_and_hexadecimal_digits_are_read(tmp_path):
    for name, content in (("raw", bytes(range(32))), ("hex", bytes(range(32)).hex().encode() + b"\n")):
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(0o600)
        assert Key.load(path).fingerprint == Key(bytes(range(32))).fingerprint


def test_a_short_or_missing_key_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_bytes(b"too short")
    path.chmod(0o600)
    with pytest.raises(UserError, match="at least 32 bytes"):
        Key.load(path)
    with pytest.raises(UserError, match="readable"):
        Key.load(tmp_path / "none")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(UserError, match=KEY_VARIABLE):
        Key.load()
    with pytest.raises(UserError, match="32 bytes"):
        Key(b"short")


def test_the_key_file_may_be_named_by_the_environment(key_file, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, os.fspath(key_file))
    assert Key.load().fingerprint == Key.load(key_file).fingerprint


def test_the_secret_does_not_get_out(key_file):
    key, secret = Key.load(key_file), key_file.read_text().strip()
    assert secret not in repr(key) + str(key) + key.fingerprint
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)


def test_uids_are_valid_and_those_of_the_standard_stay():
    key = Key(bytes(32))
    new = [key.uid(f"1.2.{number}") for number in range(200)]
    assert len(set(new)) == 200
    assert all(uid.is_valid and uid.startswith("2.25.") and len(uid) <= 44 for uid in new)
    assert all(key.uid(uid) == uid for uid in UID_dictionary)
    assert key.uid("1.2.840.10008.4711").startswith("2.25.")  # the prefix of the standard alone is no licence


def test_kinds_of_pseudonym_cannot_be_compared():
    key = Key(bytes(32))
    assert len({key.patient("1"), key.name("case", "1"), key.name("path", "1")}) == 3
    assert key.patient(" 4711 ") == key.patient("4711\0")
    days = [key.days(str(number)) for number in range(500)]
    assert min(days) >= 1
    assert max(days) <= 365
    assert all(key.days(str(number), whole_weeks=True) % 7 == 0 for number in range(50))
