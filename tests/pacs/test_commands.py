"""`pull`, `push` and `pacs-check` as typed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml

from genseg_monai.__main__ import main
from genseg_monai.dicom.uids import Key
from tests.dicom.study import LABELS, Study
from tests.pacs.orthanc import USER, WORD, Orthanc, needed


@pytest.fixture
def files(archive: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with pacs.yaml, labels.yaml, rules.yaml and a key; secrets are in the environment."""
    monkeypatch.setenv("GENSEG_PACS_USER", USER)
    monkeypatch.setenv("GENSEG_PACS_PASSWORD", WORD)
    settings = archive.settings()
    names = ("host", "port", "called_aet", "aet", "move_port", "dicomweb")
    (tmp_path / "pacs.yaml").write_text(yaml.safe_dump({name: getattr(settings, name) for name in names}))
    (tmp_path / "labels.yaml").write_text(yaml.safe_dump(LABELS))
    (tmp_path / "rules.yaml").write_text("all: [{modality: CT, orientation: axial, thickness: [0, 3]}]\n")
    Key.create(tmp_path / "key")
    return tmp_path


def test_pacs_check(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["pacs-check", "--pacs", str(files / "pacs.yaml")]) == 0
    told = capsys.readouterr()
    assert "C-ECHO: answered in" in told.out
    assert "QIDO-RS: answered in" in told.out
    monkeypatch.setenv("GENSEG_PACS_PASSWORD", "hidden")
    assert main(["pacs-check", "--pacs", str(files / "pacs.yaml")]) == 1
    told = capsys.readouterr()
    assert "C-ECHO: answered" in told.err
    assert "QIDO-RS: failed" in told.err
    assert "hidden" not in told.err


def test_pull_and_push(files: Path, archive: Orthanc, study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(study.folder), "--pacs", str(files / "pacs.yaml"), "--route", "c-store"]) == 0
    assert f"{len(study.images) + 2} objects sent" in capsys.readouterr().out
    line = [
        "pull",
        "--pacs",
        str(files / "pacs.yaml"),
        "--out",
        str(files / "out"),
        "--rules",
        str(files / "rules.yaml"),
    ]
    line += ["--labels", str(files / "labels.yaml"), "--patient-id", study.patient_id, "--date", "20240101-20241231"]
    line += ["--modality", "CT", "--description", "/portal/i", "--route", "dicomweb"]
    before = sorted(files.iterdir())
    assert main([*line, "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "1 studies match, with 1 CT, 1 RTSTRUCT, 1 SEG series" in told.out
    assert sorted(files.iterdir()) == before
    assert main(line) == 2  # no key
    assert "--key-file" in capsys.readouterr().err
    assert main([*line, "--key-file", str(files / "key")]) == 0
    told = capsys.readouterr()
    assert "1 labelled and 0 unlabelled cases" in told.out
    for secret in study.secrets:
        assert secret not in told.out + told.err
    assert len(list((files / "out" / "labelsTr").iterdir())) == 1


def test_what_was_not_taken_is_named(
    files: Path, study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sent").mkdir()
    shutil.copy(study.images[0], tmp_path / "sent" / "good.dcm")
    broken = study.images[1].read_bytes().replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.826.0.1.3680043.9.99\0\0")
    (tmp_path / "sent" / "doe.dcm").write_bytes(broken)
    assert main(["push", str(tmp_path / "sent"), "--pacs", str(files / "pacs.yaml")]) == 1
    told = capsys.readouterr()
    assert told.out == f"not taken: {hashlib.sha256(broken).hexdigest()} not_negotiated\n"
    assert "1 objects sent, 1 not taken (1 not_negotiated)" in told.err
    assert "doe" not in told.out + told.err


def test_an_empty_data_set_is_a_failure(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["pull", "--pacs", str(files / "pacs.yaml"), "--out", str(files / "out"), "--date", "19000101"]
    assert main([*line, "--dry-run"]) == 0  # asked only to report
    assert main([*line, "--key-file", str(files / "key")]) == 1
    told = capsys.readouterr()
    assert "0 studies match" in told.out
    assert "the data set is empty" in told.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--route", "ftp", "--date", "20240101"], "c-get, c-move or dicomweb"),
        ([], "at least one of"),
        (["--patient-id", "@missing.txt"], "behind the @"),
        (["--patient-id", ","], "at least one value"),
        (["--study-uid", "../../x"], "digits and points"),
        (["--date", "20240101", "--tilt", "bend"], "refuse or shear or resample"),
        (["--date", "20240101", "--gaps", "leave"], "refuse or fill"),
        (["--date", "20240101", "--rules", "missing.yaml"], "readable YAML"),
    ],
)
def test_wrong_use_is_one_line(files: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    line = ["pull", "--pacs", str(files / "pacs.yaml"), "--out", str(files / "out"), "--dry-run", *words]
    assert main(line) == 2
    err = capsys.readouterr().err.strip()
    assert told in err
    assert err.startswith("genseg: ")
    assert len(err.splitlines()) == 1


def test_identifiers_from_a_file_stay_as_typed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from genseg_monai.apps.pull import _several

    (files / "ids.txt").write_text("1E5\n1_000\n12#3\n\nNone\nA, B\n")
    wanted = ("1E5", "1_000", "12#3", "None", "A, B")
    assert _several("--patient-id", f"@{files / 'ids.txt'}") == wanted
    assert _several("--patient-id", "1E5,1_000, 12#3,None") == wanted[:4]


def test_a_missing_server_is_a_skip_here_and_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not installed"):
        needed("/usr/bin/no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="not installed"):
        needed("/usr/bin/no-such-program")
