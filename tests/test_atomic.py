"""A file is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from genseg_monai._atomic import whole_file


def write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith(path.name)
        temporary.write_text(text)
        assert not path.exists() or path.read_text() != text


def test_a_new_file_in_a_new_folder(tmp_path: Path) -> None:
    write(tmp_path / "new" / "a.nii.gz", "one")
    assert (tmp_path / "new" / "a.nii.gz").read_text() == "one"
    write(tmp_path / "new" / "a.nii.gz", "two")
    assert [file.read_text() for file in (tmp_path / "new").iterdir()] == ["two"]


def test_a_failure_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(TypeError), whole_file(path) as temporary:
        temporary.write_text(temporary.write_text("half"))  # type: ignore[arg-type]
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_it_as_any_other_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write(tmp_path / "a.csv", "one")
    assert os.stat(tmp_path / "a.csv").st_mode == os.stat(tmp_path / "plain").st_mode
