"""`genseg label` before a server runs: folders, bundles, and what is said where MONAI Label is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from genseg_monai.__main__ import main
from genseg_monai.apps.label.launch import Server, prepare
from genseg_monai.apps.workflow import shipped_bundle
from genseg_monai.errors import UserError


def test_without_monai_label_the_command_says_what_to_do(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("GENSEG_LABEL_PYTHON", str(tmp_path / "python"))
    assert main(["label", "--studies", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert said == (
        f"genseg: label: wanted MONAI Label's environment, {tmp_path / 'python'} is not there; run `make label` first"
    )


def test_the_command_is_handed_on_as_it_was_typed(tmp_path: Path, monkeypatch) -> None:
    python = tmp_path / "python"
    python.touch()
    monkeypatch.setenv("GENSEG_LABEL_PYTHON", str(python))
    monkeypatch.setattr("sys.argv", ["genseg", "label", "--studies", "a b", "--port", "81"])
    started: list[tuple] = []
    monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
    main()
    [(program, words, environment)] = started
    assert (program, words[1:]) == (python, ["-m", "genseg_monai", "label", "--studies", "a b", "--port", "81"])
    assert Path(environment["PYTHONPATH"].split(os.pathsep)[0], "genseg_monai").is_dir()


def test_an_untrained_bundle_is_copied_once(tmp_path: Path) -> None:
    app, bundle = prepare(Server(str(tmp_path)))
    assert (app, bundle) == (tmp_path / "genseg" / "app", tmp_path / "genseg" / "bundle")
    assert "GenSegApp" in (app / "main.py").read_text()
    (bundle / "models" / "model.pt").write_bytes((bundle / "models" / "model.pt").read_bytes())
    (bundle / "note").touch()
    assert prepare(Server(str(tmp_path)))[1] == bundle
    assert (bundle / "note").exists()


def test_a_copy_that_was_cut_short_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree

    def cut_short(source: Path, folder: Path, **more: bool) -> None:
        copy(source / "configs", folder / "configs")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copytree", cut_short)
    with pytest.raises(KeyboardInterrupt):
        prepare(Server(str(tmp_path)))
    assert not list((tmp_path / "genseg").iterdir())
    monkeypatch.setattr(shutil, "copytree", copy)
    _, bundle = prepare(Server(str(tmp_path)))
    assert (bundle / "models" / "model.pt").is_file()
    assert bundle.stat().st_mode == shipped_bundle().stat().st_mode


def test_a_program_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("print('mine')")
    with pytest.raises(UserError, match=r"main.py: wanted a place for the app, another program is there"):
        prepare(Server(str(tmp_path), home=str(tmp_path)))
    assert (tmp_path / "app" / "main.py").read_text() == "print('mine')"


@pytest.mark.parametrize(
    ("studies", "bundle", "said"),
    [("missing", None, "wanted a folder of images or a DICOMweb address"), (".", "missing", "wanted the weights")],
)
def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch, studies: str, bundle: str | None, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        prepare(Server(studies, bundle))
