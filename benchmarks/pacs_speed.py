"""Speed of the way from and to an archive, beside the fastest plain way on the same machine.

A real Orthanc on loopback holds one drawn CT series; TCP_NODELAY is on at both ends of every comparison. Needs the
packages that .ci/apt.sh installs. Runs alternate, so that a busy machine disturbs both sides alike; `ratio` is that of
the medians, `best` that of the fastest runs, which a busy machine disturbs least, `CPU` that of the CPU seconds of the
clients (the archive takes the same for both). Promised: WADO-RS at least 0.9 of a bare streamed httpx download,
C-GET at least 0.2 of dcmtk's getscu, push at least 3 times pynetdicom's plain loop. `verdict` says of each promise
whether `ratio` keeps it, and the exit code is 1 where one is broken.

    python benchmarks/pacs_speed.py --slices 500 --runs 5 --folder /dev/shm --json pacs_speed.json

`--folder` is where archive and spool lie; /dev/shm takes the disk out of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pydicom
from pydicom.uid import generate_uid

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genseg_monai.pacs.dicomweb import WebArchive
from genseg_monai.pacs.dimse import DimseArchive
from genseg_monai.pacs.push import push
from genseg_monai.pacs.records import Query, SeriesRecord
from genseg_monai.pacs.retrieve import fetch
from genseg_monai.pacs.settings import Limits
from genseg_monai.pacs.spool import Spool
from tests.dicom.study import write_study
from tests.pacs.orthanc import PLUGIN, USER, WORD, Orthanc, start_orthanc

Spent = tuple[float, float]
NODELAY = {**os.environ, "TCP_NODELAY": "1"}


def draw_series(folder: Path, slices: int, size: int) -> Path:
    """Write `slices` CT images of `size` x `size`, 16 bit."""
    template = pydicom.dcmread(write_study(folder / "t", slices=1, phi=False, seg=False, rtstruct=False).images[0])
    home = folder / "series"
    home.mkdir()
    noise = np.random.default_rng(0).integers(0, 2000, (size, size), dtype=np.uint16)
    template.Rows = template.Columns = size
    for k in range(slices):
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(k)])
        template.InstanceNumber = k + 1
        template.ImagePositionPatient = [0, 0, float(k)]
        template.PixelData = np.roll(noise, k, 0).tobytes()
        template.save_as(home / f"{k:04d}.dcm", enforce_file_format=True)
    return home


def bare_httpx(archive: Orthanc, series: SeriesRecord, folder: Path) -> None:
    """Stream the same answer into one file, without looking at it."""
    url = f"http://127.0.0.1:{archive.http}/dicom-web/studies/{series.study_uid}/series/{series.series_uid}"
    headers = {
        "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',
        "Accept-Encoding": "identity",
    }
    with (
        httpx.stream("GET", url, headers=headers, auth=(USER, WORD), timeout=120) as reply,
        (folder / "x").open("wb") as f,
    ):
        for chunk in reply.iter_raw():
            f.write(chunk)


def getscu(archive: Orthanc, series: SeriesRecord, folder: Path) -> None:
    line = ["/usr/bin/getscu", "-S", "-aet", "GENSEG", "-aec", "TESTPACS", "-k", "QueryRetrieveLevel=SERIES"]
    line += ["-k", f"StudyInstanceUID={series.study_uid}", "-k", f"SeriesInstanceUID={series.series_uid}"]
    subprocess.run([*line, "-od", str(folder), "127.0.0.1", str(archive.port)], env=NODELAY, check=True)


def storescu(archive: Orthanc, files: Path) -> None:
    line = ["/usr/bin/storescu", "-R", "-aet", "GENSEG", "-aec", "TESTPACS", "127.0.0.1", str(archive.port), "+sd"]
    subprocess.run([*line, str(files)], env=NODELAY, check=True)


def plain_loop(archive: Orthanc, files: Path) -> None:
    """Send as pynetdicom's documentation does."""
    from pynetdicom import AE, _config

    _config.STORE_SEND_CHUNKED_DATASET = False
    entity = AE("GENSEG")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2")
    line = entity.associate("127.0.0.1", archive.port, ae_title="TESTPACS")
    assert line.is_established
    for path in sorted(files.iterdir()):
        status = line.send_c_store(pydicom.dcmread(path))
        if "Status" not in status:
            raise ConnectionError("the plain loop lost its association")
    line.release()


def timed(work: Callable[[Path], object], home: Path, before: Callable[[], object] = lambda: None) -> Spent:
    """Return seconds, and CPU seconds of this process and of those it waited for."""
    while True:
        before()
        # a new one each time, removed at the very end: a disk is still busy with a removal when the next run begins
        folder = Path(tempfile.mkdtemp(dir=home, prefix="got-"))
        start, used = time.perf_counter(), sum(os.times()[:4])
        try:
            work(folder)
        except ConnectionError as error:
            print(f"pacs_speed: {error}, once more", file=sys.stderr)
            continue
        return time.perf_counter() - start, sum(os.times()[:4]) - used


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where archive and spool lie; as for other temporary files")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    for needed in ("/usr/sbin/Orthanc", "/usr/bin/getscu", "/usr/bin/storescu", str(PLUGIN)):
        if not Path(needed).exists():
            sys.exit(f"pacs_speed: {needed}: wanted it installed; run .ci/apt.sh as root")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        home = Path(folder)
        files = draw_series(home, given.slices, given.size)
        archive = start_orthanc(home / "orthanc")
        try:
            rows = measure(archive, files, home, given.slices, given.runs)
        finally:
            archive.stop()
    print(f"{given.slices} slices of {given.size} x {given.size}, medians of {given.runs} alternating runs")
    print(
        f"{'route':24}{'seconds':>9}{'range':>15}{'img/s':>7}   {'plain way':28}{'seconds':>9}{'range':>15}"
        f"{'ratio':>7}{'best':>7}{'CPU':>7}{'wanted':>8}{'verdict':>9}"
    )
    for row in rows:
        print(
            f"{row['route']:24}{row['seconds']:9.2f}{row['range']:>15}{given.slices / row['seconds']:7.0f}   "
            f"{row['plain']:28}{row['plain_seconds']:9.2f}{row['plain_range']:>15}"
            f"{row['ratio']:7.2f}{row['best']:7.2f}{row['cpu_ratio']:7.2f}{row['wanted']:>8}{row['verdict']:>9}"
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")
    if any(row["verdict"] == "broken" for row in rows):
        sys.exit(1)


def measure(archive: Orthanc, files: Path, home: Path, slices: int, runs: int) -> list[dict]:
    """Return a row a comparison."""
    settings = archive.settings(limits=Limits(reserve_bytes=0))
    storescu(archive, files)
    with WebArchive(settings) as web:
        found = web.series(web.studies(Query(date="20240101-"))[0])[0]
        series = replace(found, instances=web.instances(found))
        assert len(series.instances) == slices

        def ours(peer: DimseArchive | WebArchive) -> Callable[[Path], object]:
            def work(folder: Path) -> None:
                with Spool(folder / "spool") as spool:
                    assert fetch(peer, series, spool).complete

            return work

        pairs = [
            ("WADO-RS into the spool", ours(web), "httpx stream into one file", bare_httpx, 0.9),
            ("C-GET into the spool", ours(DimseArchive(settings)), "dcmtk getscu", getscu, 0.2),
            ("C-MOVE into the spool", ours(DimseArchive(settings, "c-move")), "dcmtk getscu", getscu, None),
        ]
        rows = []
        for name, mine, other, theirs, wanted in pairs:
            times = [(timed(mine, home), timed(lambda f, t=theirs: t(archive, series, f), home)) for _ in range(runs)]
            rows.append(row(name, other, times, wanted))
    pushes: list[tuple[str, Callable[[], object], str, Callable[[], object], float | None]] = [
        (
            "push, two associations",
            lambda: push(files, settings),
            "pynetdicom plain loop",
            lambda: plain_loop(archive, files),
            3.0,
        ),
        (
            "push, STOW-RS",
            lambda: push(files, settings, "stow-rs"),
            "dcmtk storescu",
            lambda: storescu(archive, files),
            None,
        ),
    ]
    for name, send, other, plain, wanted in pushes:
        times = []
        for _ in range(runs):
            mine_now = timed(lambda _, s=send: s(), home, archive.empty)
            times.append((mine_now, timed(lambda _, s=plain: s(), home, archive.empty)))
        rows.append(row(name, other, times, wanted))
    return rows


def row(name: str, other: str, times: list[tuple[Spent, Spent]], wanted: float | None) -> dict:
    """Return one line of the table; a ratio is how many times faster, or with how much less CPU, our way is."""
    (mine, mine_cpu), (theirs, theirs_cpu) = (zip(*side, strict=True) for side in zip(*times, strict=True))
    ratio = statistics.median(theirs) / statistics.median(mine)
    return {
        "route": name,
        "seconds": statistics.median(mine),
        "range": f"{min(mine):.2f}-{max(mine):.2f}",
        "cpu": statistics.median(mine_cpu),
        "plain": other,
        "plain_seconds": statistics.median(theirs),
        "plain_range": f"{min(theirs):.2f}-{max(theirs):.2f}",
        "plain_cpu": statistics.median(theirs_cpu),
        "ratio": ratio,
        "best": min(theirs) / min(mine),
        "cpu_ratio": statistics.median(theirs_cpu) / statistics.median(mine_cpu),
        "wanted": "-" if wanted is None else f"{wanted:g}",
        "verdict": "-" if wanted is None else "kept" if ratio >= wanted else "broken",
    }


if __name__ == "__main__":
    main()
