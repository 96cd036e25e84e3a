"""What `genseg check` predicts of a run beside what the run takes: CPU time and peak memory, five settings.

Each prediction and each run is a process of its own. Time is CPU time of the process from the first handler to the end
of the run, so that it says the same on a busy machine; `check` prints it beside the wall-clock time, which is that of
the machine as busy as it was while it looked.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SMALL = {"max_epochs": 4, "epoch_length": 8, "val_interval": 2, "save_interval": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "2D 32 px, width 8": {"dataset_dir": "phantom://2d?cases=12&size=32", "generator_width": 8},
    "2D 64 px, width 16": {"dataset_dir": "phantom://2d?cases=12&size=64"},
    "2D 64 px, width 32, batch 8": {
        "dataset_dir": "phantom://2d?cases=12&size=64",
        "generator_width": 32,
        "batch_size": 8,
        "max_epochs": 2,
    },
    "2D 64 px, unet 31 M, batch 2": {
        "dataset_dir": "phantom://2d?cases=12&size=64",
        "segmenter": "unet",
        "batch_size": 2,
        "max_epochs": 2,
    },
    "3D 32 voxels, width 4, batch 2": {
        "dataset_dir": "phantom://3d?cases=8&size=32",
        "generator_width": 4,
        "batch_size": 2,
        "max_epochs": 2,
    },
}


def workflow(name: str, folder: str) -> Any:
    from monai.bundle import ConfigWorkflow

    from genseg_monai.apps.workflow import quiet, shipped_bundle

    quiet()
    started = ConfigWorkflow(
        str(shipped_bundle() / "configs" / "train.yaml"),
        workflow_type="train",
        logging_file=False,
        device="cpu",
        bundle_root=str(shipped_bundle()),
        output_dir=f"{folder}/out",
        **{**SMALL, "rehearse": False, **SETTINGS[name]},
    )
    started.initialize()
    return started


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forecast(name: str) -> dict[str, float]:
    from genseg_monai.engines.estimate import measure

    with tempfile.TemporaryDirectory() as folder:
        trainer = workflow(name, folder).parser.get_parsed_content("train#trainer")
        found = measure(trainer)
    return {"seconds": found.total(trainer.schedule, cpu=True), "bytes": found.peak_bytes}


def run(name: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        trainer = workflow(name, folder).parser.get_parsed_content("train#trainer")
        start = time.process_time()
        trainer.run()
        return {"seconds": time.process_time() - start, "bytes": peak()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps({"forecast": forecast, "run": run}[arguments.only](arguments.name)))
        return
    print(f"{'setting':32} {'predicted':>10} {'run':>8} {'ratio':>6}   {'predicted':>9} {'run':>6} {'ratio':>6}")
    print(f"{'':32} {'CPU s':>10} {'CPU s':>8} {'':>6}   {'GiB':>9} {'GiB':>6}")
    ratios: dict[str, list[float]] = {"seconds": [], "bytes": []}
    for name in SETTINGS:
        rows = []
        for only in ("forecast", "run"):
            command = [sys.executable, "-W", "ignore", __file__, "--only", only, "--name", name]
            environment = {"OMP_NUM_THREADS": "1", **os.environ}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
        for what, told in ratios.items():
            told.append(rows[0][what] / rows[1][what])
        print(
            f"{name:32} {rows[0]['seconds']:>10.1f} {rows[1]['seconds']:>8.1f} {ratios['seconds'][-1]:>6.2f}   "
            f"{rows[0]['bytes'] / 2**30:>9.2f} {rows[1]['bytes'] / 2**30:>6.2f} {ratios['bytes'][-1]:>6.2f}",
            flush=True,
        )
    medians = {what: statistics.median(told) for what, told in ratios.items()}
    print(f"{'median ratio':32} {'':>10} {'':>8} {medians['seconds']:>6.2f}   {'':>9} {'':>6} {medians['bytes']:>6.2f}")


if __name__ == "__main__":
    main()
