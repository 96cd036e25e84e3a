"""What an annotator does, from an empty folder, by REST: label six cases, train, ask what is next.

    python benchmarks/label_walk.py --data DATA [--archive] [--budget 10m] [--size 32,48,32] [--json FILE] [--picture P]

DATA is a data set of volumes with labels, such as the hippocampus of the Medical Segmentation Decathlon. The script
starts `genseg label` with no label and an untrained bundle, uploads six labels, asks UniverSeg and, after a training of
the given budget, GenSeg for masks of cases without a label, and prints the Dice of both; then asks which case is next.
With --archive the images lie in Orthanc as DICOM series, and the label of one more case is stored there as DICOM SEG
and checked with dciodvfy; both programs have to be installed. All seconds are wall-clock. --picture draws the last mask
that UniverSeg has returned, by the six labels, over its image; with --budget 0 that is the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
import nibabel
import numpy as np

from benchmarks.dicom_from_nifti import write_series
from genseg_monai.data.cases import find_cases
from genseg_monai.data.splits import read_splits
from genseg_monai.metrics.cases import score_case

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
LABELLED, SCORED, WAITING = 6, 6, 6


@dataclass
class Walk:
    """A server, the cases in it, and what was measured.

    Attributes:
        url: of the server.
        names: case -> its name in the server.
        cases: of the data set: `image`, `label`, `case`.
        rows: what was measured: (step, value).
    """

    url: str
    names: dict[str, str]
    cases: Sequence[dict[str, Any]]
    rows: list[tuple[str, str]] = field(default_factory=list)

    def note(self, step: str, value: str) -> None:
        """Keep a line of the table and print it."""
        self.rows.append((step, value))
        print(f"{step:<58}{value}", flush=True)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask the server; anything but success ends the script with what it said."""
        reply = httpx.request(method, self.url + path, timeout=3600, **more)
        if reply.status_code != 200:
            raise SystemExit(f"{method} {path}: {reply.status_code} {reply.text}")
        return reply

    def upload(self, case: dict[str, Any]) -> None:
        """Give the server the label of a case, as an annotator who has finished it."""
        with open(case["label"], "rb") as opened:
            path = f"/datastore/label?image={self.names[case['case']]}&tag=final"
            self.ask("PUT", path, files={"label": (Path(case["label"]).name, opened)}, data={"params": "{}"})

    def dice(self, model: str, cases: Sequence[dict[str, Any]], folder: Path) -> tuple[list[float], float]:
        """Return the mean Dice over the classes of each case, and the seconds a case."""
        found, begun = [], time.perf_counter()
        for case in cases:
            path = f"/infer/{model}?image={self.names[case['case']]}&output=image"
            reply = self.ask("POST", path, data={"params": '{"device": "cpu"}'})
            file = folder / "answer.nii.gz"
            file.write_bytes(reply.content)
            mask, truth = nibabel.load(file), nibabel.load(case["label"])
            ours, theirs = np.asarray(mask.dataobj), np.asarray(truth.dataobj)
            classes = ["background", *map(str, range(1, int(theirs.max()) + 1))]
            rows = score_case(_on_grid(ours, mask.affine, truth)[None], theirs[None], classes, truth.header.get_zooms())
            found.append(mean(row.dice for row in rows))
        return found, (time.perf_counter() - begun) / len(cases)

    def train(self, budget: str, size: str) -> tuple[dict[str, Any], float]:
        """Train all three stages on all labels; return what the server tells of it, and the seconds."""
        begun = time.perf_counter()
        self.ask("POST", "/train/genseg", json={"device": "cpu", "budget": budget, "size": size, "val_split": 0.0})
        while True:
            status = self.ask("GET", "/train/").json()
            if status["status"] == "DONE":
                return self.ask("GET", "/info/").json()["train_stats"]["genseg"], time.perf_counter() - begun
            if status["status"] == "ERROR":
                raise SystemExit("\n".join(status["details"]))
            time.sleep(1)


def _on_grid(mask: np.ndarray, affine: np.ndarray, truth: Any) -> np.ndarray:
    """Return a mask in the order of voxels of the truth; ITK and DICOM may have turned axes around."""
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(mask.astype(np.uint8), affine))
    back = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(turned.affine), nibabel.io_orientation(truth.affine)
    )
    return np.asarray(turned.as_reoriented(back).dataobj)


def walk(made: Walk, folder: Path, budget: str, size: str, picture: str | None) -> None:
    labelled, scored = made.cases[:LABELLED], made.cases[LABELLED : LABELLED + SCORED]
    info = made.ask("GET", "/info/").json()
    made.note("cases in the server, labelled", f"{info['datastore']['total']}, {info['datastore']['completed']}")
    made.upload(labelled[0])
    found, seconds = made.dice("universeg", scored, folder)
    made.note("UniverSeg with 1 label: Dice (min to max), seconds a case", _told(found, seconds))
    for case in labelled[1:]:
        made.upload(case)
    found, seconds = made.dice("universeg", scored, folder)
    made.note(f"UniverSeg with {LABELLED} labels", _told(found, seconds))
    if picture:
        _draw(nibabel.load(scored[-1]["image"]), nibabel.load(folder / "answer.nii.gz"), picture)
    if budget == "0":
        return
    stats, seconds = made.train(budget, size)
    steps = sum(stats["iterations"].values())
    made.note(f"training, budget {budget}: seconds in all, iterations", f"{seconds:.0f}, {steps}")
    found, seconds = made.dice("genseg", scored, folder)
    made.note(f"GenSeg after it, {LABELLED} labels", _told(found, seconds))
    begun = time.perf_counter()
    answer = made.ask("POST", "/activelearning/disagreement", json={}).json()
    case = next(case for case, name in made.names.items() if name == answer["id"])
    made.note("next case to label (disagreement), seconds", f"{case} ({answer['weight']:.3f}), {seconds_since(begun)}")


def _draw(image: Any, mask: Any, path: str) -> None:
    """Draw the slices through the middle of a mask: the image, and the outline and inside of the mask over it."""
    import matplotlib.pyplot as plt

    image, mask = nibabel.as_closest_canonical(image), nibabel.as_closest_canonical(mask)
    shown, drawn, steps = image.get_fdata(), mask.get_fdata().round(), image.header.get_zooms()
    low, high = np.percentile(shown[shown > shown.mean()], (1, 99))
    middle = [round(float(np.mean(axis))) for axis in np.nonzero(drawn)]
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
    for axis, plot in enumerate(axes):
        under, over = (np.take(volume, middle[axis], axis).T for volume in (shown, drawn))
        across, up = (step for i, step in enumerate(steps) if i != axis)
        plot.imshow(under, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=up / across)
        over = np.ma.masked_equal(over, 0)
        plot.imshow(over, cmap="autumn", alpha=0.3, origin="lower", aspect=up / across, interpolation="nearest")
        plot.contour(over.filled(0), levels=np.arange(0.5, drawn.max()), colors="red", linewidths=1.2)
        plot.set_title(("from the right", "from the front", "from the head")[axis], fontsize=10)
        plot.axis("off")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def seconds_since(begun: float) -> str:
    return f"{time.perf_counter() - begun:.1f}"


def _told(dice: Sequence[float], seconds: float) -> str:
    return f"{mean(dice):.3f} ({min(dice):.3f} to {max(dice):.3f}), {seconds:.1f}"


def _port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def _process(words: Sequence[str], url: str, log: Path, folder: Path) -> Iterator[None]:
    """Run a server until the block ends; wait for it to answer."""
    with log.open("w") as opened:
        process = subprocess.Popen(words, cwd=folder, stdout=opened, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        for _ in range(1200):
            if process.poll() is not None:
                raise SystemExit(log.read_text()[-2000:])
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(url, timeout=60)
                break
            time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _orthanc(folder: Path, port: int) -> list[str]:
    settings = {
        "StorageDirectory": str(folder / "orthanc"), "IndexDirectory": str(folder / "orthanc"), "HttpPort": port,
        "DicomServerEnabled": False, "RemoteAccessAllowed": False, "Plugins": [PLUGIN],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    return [shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(folder / "orthanc.json")]


def _store_and_check(made: Walk, archive: str, folder: Path) -> None:
    """Store the label of one more case, fetch the SEG it has become, and have dciodvfy look at it."""
    case = made.cases[LABELLED]
    before = set(httpx.get(f"{archive}/instances").json())
    made.upload(case)
    [new] = set(httpx.get(f"{archive}/instances").json()) - before
    seg = folder / "seg.dcm"
    seg.write_bytes(httpx.get(f"{archive}/instances/{new}/file").content)
    done = subprocess.run(["/usr/bin/dciodvfy", "-new", str(seg)], capture_output=True, text=True, check=False)
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
    made.note("DICOM SEG stored in the archive: errors of dciodvfy", "none" if not errors else "; ".join(errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="volumes with labels, in any layout that train reads")
    parser.add_argument("--archive", action="store_true", help="through Orthanc and DICOMweb")
    parser.add_argument("--budget", default="10m", help="of the training")
    parser.add_argument("--size", default="", help="working size of the training; as the images suggest")
    parser.add_argument("--weights", help="of UniverSeg; those the package ships")
    parser.add_argument("--picture", help="file for a picture of a mask over its image")
    parser.add_argument("--json", help="file for the table")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    splits = read_splits(given.data, find_cases(given.data))
    cases = [*splits.train[:LABELLED], *(splits.test or splits.val)[:SCORED], *splits.train[LABELLED:][:WAITING]]
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as running:
        folder, archive = Path(temporary), f"http://127.0.0.1:{_port()}"
        (folder / "studies").mkdir()
        names = {}
        if given.archive:
            port = int(archive.rpartition(":")[2])
            running.enter_context(_process(_orthanc(folder, port), archive, folder / "orthanc.log", folder))
            for case in cases:
                names[case["case"]] = write_series(Path(case["image"]), folder / "dicom" / case["case"])
                for file in sorted((folder / "dicom" / case["case"]).iterdir()):
                    httpx.post(f"{archive}/instances", content=file.read_bytes()).raise_for_status()
        else:
            for case in cases:
                names[case["case"]] = Path(case["image"]).name.removesuffix(".nii.gz")
                shutil.copy(case["image"], folder / "studies")
        studies, port = f"{archive}/dicom-web" if given.archive else str(folder / "studies"), _port()
        words = [sys.executable, "-m", "genseg_monai", "label", "--studies", studies, "--home", str(folder / "home")]
        words += ["--port", str(port), *(["--weights", str(Path(given.weights).resolve())] if given.weights else [])]
        url = f"http://127.0.0.1:{port}"
        begun = time.perf_counter()
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
        running.enter_context(_process(words, f"{url}/info/", folder / "server.log", folder))
        made = Walk(url, names, cases)
        made.note("server started: seconds", seconds_since(begun))
        walk(made, folder, given.budget, given.size, given.picture)
        if given.archive:
            _store_and_check(made, archive, folder)
        if given.json:
            Path(given.json).write_text(json.dumps(made.rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
