from __future__ import annotations

import json
import logging
import shutil
import zlib

import pytest
from pydicom import dcmread

from genseg_monai.dicom import folder as folder_module
from genseg_monai.dicom.audit import AuditLog, verify_audit
from genseg_monai.dicom.folder import deidentify_folder
from genseg_monai.dicom.output import hash_file
from genseg_monai.dicom.profile import Option, Profile
from genseg_monai.dicom.uids import Key
from genseg_monai.errors import UserError
from tests.dicom.leaks import find_leaks, tree
from tests.dicom.phi import MARK
from tests.dicom.study import write_study

KEY = Key(bytes(range(32)))
EVERYTHING = Profile(options=frozenset(set(Option) - {Option.RETAIN_FULL_DATES, Option.RETAIN_UIDS}))


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two patients, and files that no command can use, all with identifiers in them and in their names."""
    home = tmp_path_factory.mktemp("in")
    made = [write_study(home / f"{MARK} clinic", slices=4, patient=number) for number in (1, 2)]
    bad = home / f"{MARK} clinic" / f"{MARK} broken"
    bad.mkdir()
    whole = made[0].images[0].read_bytes()
    (bad / f"{MARK}_cut.dcm").write_bytes(whole[: len(whole) // 2])
    (bad / f"{MARK}_letter.txt").write_text(f"Dear {MARK}")
    (bad / f"{MARK}_empty.dcm").write_bytes(b"")
    (bad / f"{MARK}_deep.dcm").write_bytes(_nested(whole, 3000))
    (bad / f"{MARK}_bomb.dcm").write_bytes(_bomb(whole))
    (bad / f"{MARK}_same.dcm").write_bytes(whole)
    twin = dcmread(made[0].images[1])
    twin.SeriesNumber = 77
    twin.save_as(bad / f"{MARK}_twin.dcm")
    return home, made


def _nested(whole: bytes, depth: int) -> bytes:
    """Return a file with sequences of undefined length inside each other."""
    opened = bytes.fromhex("08004011 53510000 ffffffff feff00e0 ffffffff".replace(" ", ""))
    closed = bytes.fromhex("feff0de0 00000000 feffdde0 00000000".replace(" ", ""))
    return whole[: 132 + 12 + int.from_bytes(whole[140:144], "little")] + opened * depth + closed * depth


def _bomb(whole: bytes) -> bytes:
    syntax = b"1.2.840.10008.1.2.1.99"
    meta = bytes.fromhex("02001000") + b"UI" + len(syntax).to_bytes(2, "little") + syntax
    head = bytes(128) + b"DICM" + bytes.fromhex("02000000") + b"UL\x04\x00" + len(meta).to_bytes(4, "little") + meta
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return head + packer.compress(bytes(200 << 20)) + packer.flush()


@pytest.fixture(scope="module")
def done(studies, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, deidentify_folder(studies[0], out, profile=EVERYTHING, key=KEY)


def test_no_byte_written_holds_an_original_value(studies, done, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    secrets = {secret for study in studies[1] for secret in study.secrets}
    for profile in (Profile(), EVERYTHING):
        out = tmp_path / profile.fingerprint
        deidentify_folder(studies[0], out, profile=profile, key=KEY)
        assert not find_leaks(out, secrets)
    printed = capfd.readouterr()
    for text in (caplog.text, printed.out, printed.err):
        assert not [secret for secret in secrets if secret.lower() in text.lower()]


def test_what_is_found_and_what_is_refused(studies, done):
    out, summary = done
    assert summary.written == 2 * (4 + 2)
    assert summary.refused == {
        "duplicate": 1,
        "not_dicom": 2,
        "too_deep": 1,
        "too_large": 1,
        "unreadable": 1,
    }
    listed = dict(line.split(",") for line in (out / "quarantine.csv").read_text().splitlines()[1:])
    bomb = next(path for path in studies[0].rglob("*_bomb.dcm"))
    assert listed[hash_file(bomb)] == "too_large"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["objects"] == {"CT": 8, "RTSTRUCT": 2, "SEG": 2}
    assert manifest["key"] == KEY.fingerprint
    assert manifest["profile"]["edition"].startswith("DICOM PS3.15")


def test_a_file_that_cannot_be_read_is_refused_once_by_every_run(tmp_path):
    study = write_study(tmp_path / "in", slices=3, seg=False, rtstruct=False)
    whole = study.images[2].read_bytes()
    study.images[2].unlink()
    study.images[2].symlink_to("/proc/self/mem")  # opens, and every read fails
    for _ in range(2):
        summary = deidentify_folder(tmp_path / "in", tmp_path / "out", profile=Profile(), key=KEY)
        assert (summary.written, summary.refused) == (2, {"unreadable": 1})
        assert not find_leaks(tmp_path / "out", study.secrets)
    study.images[2].unlink()
    study.images[2].write_bytes(whole)
    summary = deidentify_folder(tmp_path / "in", tmp_path / "out", profile=Profile(), key=KEY)
    assert (summary.written, summary.refused) == (3, {})


def test_one_patient_one_folder(done):
    out, _ = done
    patients = [path for path in out.iterdir() if path.is_dir() and path.name != ".genseg"]
    assert len(patients) == 2
    for patient in patients:
        files = list(patient.rglob("*.dcm"))
        assert len(files) == 6
        assert {dcmread(path).PatientID for path in files} == {patient.name}


def test_two_runs_write_the_same_bytes(studies, done, tmp_path):
    deidentify_folder(studies[0], tmp_path, profile=EVERYTHING, key=KEY)
    assert tree(tmp_path) == tree(done[0])


def test_a_run_that_was_stopped_goes_on(studies, done, tmp_path, monkeypatch):
    real, calls = folder_module.write_atomic, []

    def failing(path, content):
        calls.append(path)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(folder_module, "write_atomic", failing)
    with pytest.raises(KeyboardInterrupt):
        deidentify_folder(studies[0], tmp_path, profile=EVERYTHING, key=KEY)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    assert len(before) == 4
    with (tmp_path / ".genseg" / "done.jsonl").open("ab") as file:
        file.write(b'{"id": "cut')  # a crash in the middle of a line
    deidentify_folder(studies[0], tmp_path, profile=EVERYTHING, key=KEY)
    assert tree(tmp_path) == tree(done[0])
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert verify_audit(tmp_path / "audit.jsonl", KEY) == (True, "")


def test_a_lost_output_is_written_again(studies, done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    next(out.rglob("*.dcm")).unlink()
    deidentify_folder(studies[0], out, profile=EVERYTHING, key=KEY)
    assert {path for path in tree(out) if path.endswith(".dcm")} == {p for p in tree(done[0]) if p.endswith(".dcm")}


@pytest.mark.parametrize("change", ["key", "profile"])
def test_another_key_or_profile_is_refused(studies, done, change):
    key = Key(bytes(32)) if change == "key" else KEY
    profile = Profile() if change == "profile" else EVERYTHING
    with pytest.raises(UserError, match=f"the same {change}"):
        deidentify_folder(studies[0], done[0], profile=profile, key=key)


def test_folders_in_each_other_are_refused(studies, tmp_path):
    for source, out in ((tmp_path, tmp_path / "out"), (tmp_path, tmp_path), (tmp_path / "none", tmp_path)):
        with pytest.raises(UserError) as caught:
            deidentify_folder(source, out, profile=Profile(), key=KEY)
        assert str(tmp_path) not in str(caught.value)


def test_the_audit_log_tells_who_when_and_what_without_values(studies, done):
    out, _ = done
    path = out / "audit.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    records = [json.loads(line)["record"] for line in path.read_text().splitlines()]
    assert records[0]["event"] == "started"
    assert records[-1]["event"] == "finished"
    done_one = next(record for record in records if record["event"] == "deidentified")
    assert {"who", "time", "patient", "instance", "actions"} <= set(done_one)
    assert sum(record["event"] == "quarantined" for record in records) == 6
    assert verify_audit(path, KEY) == (True, "")
    assert not verify_audit(path, Key(bytes(32)))[0]


def test_two_runs_into_one_folder_do_not_break_the_audit_log(studies, done, tmp_path):
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    before = tree(tmp_path)
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, KEY) as log:
        log.write("first")
        with pytest.raises(UserError, match="another run"):
            deidentify_folder(studies[0], tmp_path, profile=EVERYTHING, key=KEY)
        log.write("still first")
    assert verify_audit(path, KEY) == (True, "")
    deidentify_folder(studies[0], tmp_path, profile=EVERYTHING, key=KEY)
    assert verify_audit(path, KEY) == (True, "")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("attack", ["change", "drop", "swap", "add"])
def test_a_changed_audit_log_is_found_out(done, tmp_path, attack):
    lines = (done[0] / "audit.jsonl").read_text().splitlines(keepends=True)
    if attack == "change":
        lines[2] = lines[2].replace("2026", "2027").replace('"n": 3', '"n": 3 ')
    elif attack == "drop":
        del lines[2]
    elif attack == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines.append(lines[-1])
    path = tmp_path / "audit.jsonl"
    path.write_text("".join(lines))
    ok, reason = verify_audit(path, KEY)
    assert not ok
    assert "line" in reason


def test_real_files_are_passed_or_refused_with_a_reason(real_data, tmp_path):
    summary = deidentify_folder(real_data / "dicom", tmp_path, profile=Profile(), key=KEY)
    files = sum(path.is_file() for path in (real_data / "dicom").rglob("*"))
    assert 0 < summary.written <= files - sum(summary.refused.values())
    for path in tmp_path.rglob("*.dcm"):
        assert dcmread(path).PatientIdentityRemoved == "YES"
