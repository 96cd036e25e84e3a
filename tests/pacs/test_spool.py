"""The private folder of raw copies: what a killed run leaves there goes, and what stays is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from genseg_monai._outcome import RunFailed
from genseg_monai.pacs.spool import Spool, drop_abandoned, passing_spool

_KILLED = """
import os
from genseg_monai.pacs.spool import passing_spool
with passing_spool() as spool, spool.scratch() as folder:
    (folder / "raw.dcm").write_bytes(b"Jane")
    os.kill(os.getpid(), 9)
"""


def test_raw_copies_of_a_killed_look_are_gone_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    subprocess.run([sys.executable, "-c", _KILLED], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    [left] = tmp_path.rglob("raw.dcm")
    drop_abandoned()
    assert left.exists()  # as young as one that has no lock yet
    os.utime(left.parents[2], (0, 0))
    with passing_spool() as spool:
        assert list(tmp_path.iterdir()) == [spool.root.parent]
    assert not list(tmp_path.iterdir())


def test_a_spool_in_use_and_the_files_of_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "another").mkdir()
    (tmp_path / "genseg-look-link").symlink_to(tmp_path / "another")
    with passing_spool() as spool:
        os.utime(spool.root.parent, (0, 0))
        drop_abandoned()
        assert spool.root.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"another", "genseg-look-link"}


def test_raw_copies_that_stay_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Spool(tmp_path / "spool") as spool:
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "rmtree", lambda *_, **__: None)
            with pytest.raises(RunFailed, match="still there"):
                spool.remove()
        spool.remove()
    assert not spool.root.exists()
