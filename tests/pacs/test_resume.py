"""A pull that is stopped, or that lacks a series, goes on where it was and ends alike; nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
import yaml

from genseg_monai.dicom.audit import verify_audit
from genseg_monai.errors import UserError
from genseg_monai.pacs.dimse import DimseArchive
from genseg_monai.pacs.faults import ArchiveError, NetFault
from genseg_monai.pacs.spool import Spool
from tests.dicom.study import Study, write_study
from tests.pacs.orthanc import USER, WORD, Orthanc
from tests.pacs.pulling import KEY, lines, run, tree


def test_nothing_is_done_twice(archive: Orthanc, studies: list[Study], tmp_path: Path, monkeypatch) -> None:
    archive.send(studies[0].folder)
    out = tmp_path / "out"
    run(archive, out)
    before, converted = tree(out), len(lines(out, "converted"))
    monkeypatch.setattr(DimseArchive, "retrieve", lambda *_: pytest.fail("retrieved twice"))
    again = run(archive, out, labels=None)
    assert tree(out) == before
    assert again.labelled == 3
    assert len(lines(out, "converted")) == converted


def test_a_series_that_does_not_arrive(archive: Orthanc, studies: list[Study], tmp_path: Path, monkeypatch) -> None:
    """The others go on, and the next run brings it in: the end is the same."""
    archive.send(studies[0].folder)
    run(archive, tmp_path / "whole")
    real = DimseArchive.retrieve
    broken: list[str] = []

    def retrieve(self: DimseArchive, series, inbox) -> None:
        if series.modality == "CT" and (not broken or series.series_uid in broken):
            broken.append(series.series_uid)
            raise ArchiveError("c-get", NetFault.BROKEN, "the line broke")
        real(self, series, inbox)

    monkeypatch.setattr(DimseArchive, "retrieve", retrieve)
    out = tmp_path / "out"
    first = run(archive, out)
    assert (first.labelled, first.failed) == (2, {"broken": 1})
    assert len(broken) == archive.settings().attempts
    monkeypatch.undo()
    assert run(archive, out).labelled == 3
    ours, theirs = tree(out), tree(tmp_path / "whole")
    # only the order of arrival differs, and it stands nowhere but in the records of resumption
    assert {k: v for k, v in ours.items() if "done.jsonl" not in k} == {
        k: v for k, v in theirs.items() if "done.jsonl" not in k
    }


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from genseg_monai.pacs.settings import load_settings
from genseg_monai.pacs.dicomweb import WebArchive
from genseg_monai.pacs.dimse import DimseArchive
from genseg_monai.pacs.pull import pull
from genseg_monai.pacs.records import Query
from genseg_monai.pacs.rules import Rules
from genseg_monai.dicom.uids import Key
settings, route, out, at = load_settings(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
calls = 0
def tell(stage, done, total):
    global calls
    calls += stage != "query"
    if calls == at:
        print(stage, done, total, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
peer = WebArchive(settings) if route == "dicomweb" else DimseArchive(settings, route)
pull(peer, Query(date="20240101-20241231"), out, key=Key(bytes(range(32))), labels={"liver": 1, "tumour": 2},
     rules=Rules(keep="best"), tell=tell)
print("end", calls)
"""


def pacs_yaml(archive: Orthanc, folder: Path) -> Path:
    settings = archive.settings()
    held = {name: getattr(settings, name) for name in ("host", "port", "called_aet", "aet", "move_port", "dicomweb")}
    path = folder / "pacs.yaml"
    path.write_text(yaml.safe_dump({**held, "limits": {"reserve_bytes": 0}}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "points"), [("c-get", (4, 20, 12, 2)), ("c-move", (4, 20)), ("dicomweb", (4, 20))], ids=lambda v: str(v)
)
def test_killed_and_resumed(
    archive: Orthanc, studies: list[Study], tmp_path: Path, route: str, points: tuple[int, ...]
) -> None:
    """Slow: several processes, each killed at another point, then one that ends."""
    archive.send(studies[0].folder)
    run(archive, tmp_path / "whole", route)
    whole = tree(tmp_path / "whole")
    environment = {**os.environ, "GENSEG_PACS_USER": USER, "GENSEG_PACS_PASSWORD": WORD}
    out = tmp_path / "out"
    arrived = []
    for at in (*points, 10**9):
        line = [sys.executable, "-c", _KILLED, str(pacs_yaml(archive, tmp_path)), route, str(out), str(at)]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        stage, number, total = done.stdout.split()
        if stage == "retrieve":
            arrived.append(int(number))
        spool = tmp_path / ".out.spool"
        assert spool.stat().st_mode & 0o777 == 0o700
    assert done.returncode == 0
    assert len(arrived) >= 2
    assert tree(out) == whole
    assert not spool.exists()
    # every case converted once, every series retrieved once: what came before a kill is not asked for again
    converted = [line["case"] for line in lines(out, "converted")]
    assert len(converted) == len(set(converted)) == 3
    retrieved = [line["series"] for line in lines(out, "retrieved")]
    assert len(retrieved) == len(set(retrieved))
    assert verify_audit(out / "audit.jsonl", KEY) == (True, "")


def test_what_was_refused_before_a_kill_stays_listed(archive: Orthanc, tmp_path: Path, monkeypatch) -> None:
    """A file of the first batch is cut off; the run is stopped after the second one."""
    drawn = [
        write_study(tmp_path / "in", slices=4, patient=number, phi=False, seg=False, rtstruct=False)
        for number in (1, 2, 3)
    ]
    first = min((pydicom.dcmread(study.images[-1]) for study in drawn), key=lambda image: image.StudyInstanceUID)
    first.PixelData = first.PixelData[:-900]
    first.save_as(first.filename)
    archive.send(tmp_path / "in")
    monkeypatch.setattr("genseg_monai.pacs.pull._BATCH", 1)
    whole = run(archive, tmp_path / "whole")
    assert whole.refused == {"truncated": 1}
    converted = 0

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal converted
        converted += stage == "convert"
        if stage == "retrieve" and converted == 1:  # the batch of the broken series has none to convert
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(archive, tmp_path / "out", tell=tell)
    assert "truncated" in (tmp_path / "out" / "quarantine.csv").read_text()
    assert run(archive, tmp_path / "out").refused == whole.refused
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_two_runs_at_once(archive: Orthanc, studies: list[Study], tmp_path: Path) -> None:
    with Spool(tmp_path / ".out.spool"), pytest.raises(UserError, match="another run"):
        run(archive, tmp_path / "out")
