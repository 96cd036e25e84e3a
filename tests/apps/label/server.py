"""A real server of MONAI Label in its own environment, cases to label, and a bundle that trains in seconds."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np

from tests.bundle.tiny import SHIPPED
from tests.pacs.orthanc import free_port
from tests.tools import needed

__all__ = ["LabelServer", "label_environment", "label_python", "quick_bundle", "running", "write_cases"]

ROOT = SHIPPED.parent
_QUICK = {
    "max_epochs": "1",
    "epoch_length": "6",
    "batch_size": "2",
    "generator_width": "2",
    "discriminator_width": "4",
    "outer_every": "2",
    "outer_after": "1",
    "rehearse": "false",
    "val_interval": "1",
    "baselines": "[]",
}


def label_python() -> str:
    """Return the Python of MONAI Label's environment; skip where there is none, fail if `CI` is `true`."""
    [python] = needed(os.environ.get("GENSEG_LABEL_PYTHON") or str(ROOT / ".venv-label" / "bin" / "python"))
    return python


def label_environment() -> dict[str, str]:
    """Return the environment of a process with that Python: this package, its own programs first, one thread."""
    paths = [str(Path(label_python()).parent), os.environ.get("PATH", "")]
    hidden = {name: value for name, value in os.environ.items() if not name.startswith("MONAI_LABEL_")}
    return {**hidden, "PYTHONPATH": str(ROOT), "PATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def write_cases(folder: Path, count: int, labelled: int = 0) -> list[str]:
    """Write volumes with a bright box in noise, of odd size and spacing, as MONAI Label's folder of studies.

    Returns:
        The names of the cases; the labels of all of them are in `folder / "truth"`, of the first also where MONAI
        Label looks for them.
    """
    random, affine = np.random.default_rng(0), np.array([[-1.2, 0, 0, 5], [0, -1, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
    for name in ("truth", "labels/final"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    names = [f"case{i}" for i in range(count)]
    for i, name in enumerate(names):
        label = np.zeros((21, 24, 12), np.uint8)
        label[3 + i : 13 + i, 5:16, 3:9] = 1
        image = (200 * label + random.normal(0, 30, label.shape)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / "truth" / f"{name}.nii.gz")
        if i < labelled:
            shutil.copy(folder / "truth" / f"{name}.nii.gz", folder / "labels" / "final" / f"{name}.nii.gz")
    return names


def quick_bundle(folder: Path) -> Path:
    """Write a copy of the shipped bundle that trains for six iterations of small networks."""
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("universeg"))
    path = folder / "configs" / "train.yaml"
    text = path.read_text("utf-8")
    for name, value in _QUICK.items():
        text, count = re.subn(rf"^{name}: .*$", f"{name}: {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    path.write_text(text, "utf-8")
    return folder


@dataclass
class LabelServer:
    """A running server."""

    url: str
    log: Path

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, timeout=200, **more)

    def info(self) -> dict[str, Any]:
        return self.ask("GET", "/info/").raise_for_status().json()

    def infer(self, model: str, image: str, **params: Any) -> httpx.Response:
        data = {"params": json.dumps({"device": "cpu", **params})}
        return self.ask("POST", f"/infer/{model}?image={image}&output=image", data=data)

    def mask(self, model: str, image: str, file: Path, **params: Any) -> nibabel.Nifti1Image:
        """Ask for a mask, keep it in a file and read it."""
        reply = self.infer(model, image, **params)
        assert reply.status_code == 200, reply.text
        file.write_bytes(reply.content)
        return nibabel.load(file)

    def upload(self, image: str, file: Path, **params: Any) -> httpx.Response:
        with file.open("rb") as opened:
            files, data = {"label": (file.name, opened)}, {"params": json.dumps(params)}
            return self.ask("PUT", f"/datastore/label?image={image}&tag=final", files=files, data=data)

    def train(self, **params: Any) -> dict[str, Any]:
        """Train in the background as a client does, and return the status at the end."""
        self.ask("POST", "/train/genseg", json={"device": "cpu", **params}).raise_for_status()
        for _ in range(2000):
            status = self.ask("GET", "/train/").json()
            if status["status"] in ("DONE", "ERROR"):
                return status
            time.sleep(0.1)
        raise AssertionError(status)

    def train_and_wait(self, **params: Any) -> httpx.Response:
        """Train in the server's own process."""
        return self.ask("POST", "/train/genseg?run_sync=true", json={"device": "cpu", **params})


@contextmanager
def running(words: list[str], folder: Path, port: int | None = None, **more: str) -> Iterator[LabelServer]:
    """Start a server, and stop it with all its processes.

    Args:
        words: the command without its port.
        folder: to start it in; its log is written here.
        port: to listen on.
        more: environment variables.
    """
    port = port or free_port()
    log = folder / "server.log"
    with log.open("w") as opened:
        process = subprocess.Popen(
            [*words, "--port", str(port)],
            cwd=folder,
            env={**label_environment(), **more},
            stdout=opened,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = LabelServer(f"http://127.0.0.1:{port}", log)
    try:
        for _ in range(1200):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                server.info()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            raise AssertionError(log.read_text()[-3000:])
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def genseg_label(studies: str, *more: str) -> list[str]:
    """Return the command that starts our own app."""
    return [sys.executable, "-m", "genseg_monai", "label", "--studies", studies, *more]
