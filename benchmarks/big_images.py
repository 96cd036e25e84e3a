"""Memory of segmenting volumes of several sizes in native windows, each in a process of its own.

`inferer`: what `SlabInferer` needs beside the image (32 bits a voxel) and the mask (8 bits), the network's own passes
included; beside it MONAI's `sliding_window_inference`. `predict`: the peak of all of `genseg predict` (reading NIfTI,
normalising, axes, windows, writing NIfTI), less what an empty process holds, image and mask. The network is a single
convolution: what a real one needs for one window comes on top, whatever the size of the image.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SIZES = "128x128x128,256x256x256,512x512x200,512x512x400"
CLASSES = 3
MIB = 2**20


def peak() -> int:
    """Return the largest memory this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def inferer(size: tuple[int, ...], window: int, ours: bool) -> dict[str, float]:
    import torch
    from monai.inferers import sliding_window_inference

    from genseg_monai.inferers.slabs import segment_in_slabs

    network = torch.nn.Conv3d(1, CLASSES, 1)
    roi = (window,) * 3
    with torch.no_grad():
        segment_in_slabs(torch.rand(1, 1, *roi), network, roi)  # what every size needs at the start
        empty = peak()
        image = torch.rand(1, 1, *size)
        start = time.process_time()
        if ours:
            mask = segment_in_slabs(image, network, roi)
        else:
            mask = sliding_window_inference(image, roi, 1, network, mode="gaussian").argmax(1, keepdim=True).byte()
    beside = peak() - empty - image.nbytes - mask.nbytes
    return {"beside": beside / MIB, "seconds": time.process_time() - start}


def predict(size: tuple[int, ...], window: int) -> dict[str, float]:
    import nibabel
    import numpy as np
    import torch
    from monai.bundle import ConfigWorkflow

    from genseg_monai.apps.workflow import quiet, shipped_bundle

    quiet()
    plan = {
        "spatial_dims": 3, "in_channels": 1, "classes": ["background", "organ", "lesion"], "native": True,
        "label_values": {0: 0, 1: 1, 2: 2}, "size": [window] * 3, "spacing": None, "normalisation": "window",
        "lower": -160.0, "upper": 240.0, "modality": "CT",
    }  # fmt: skip

    def run(folder: Path, shape: tuple[int, ...]) -> None:
        path = folder / f"{'x'.join(map(str, shape))}.nii"
        stored = np.lib.format.open_memmap(folder / "voxels.npy", "w+", np.int16, shape)
        for i, plane in enumerate(stored):
            plane[:] = np.random.default_rng(i).integers(-1000, 1000, plane.shape)
        nibabel.Nifti1Image(stored, np.eye(4)).to_filename(path)
        del stored, plane  # both hold the file in memory
        workflow = ConfigWorkflow(
            str(shipped_bundle() / "configs" / "inference.yaml"),
            workflow_type="infer",
            logging_file=False,
            dataset_dir=str(path),
            output_dir=str(folder / "masks"),
            bundle_root=".",
            plan=plan,
            network_def={"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 3, "kernel_size": 1},
            handlers=[],
        )  # fmt: skip
        workflow.initialize()
        workflow.run()
        path.unlink()

    with tempfile.TemporaryDirectory() as name:
        torch.manual_seed(0)
        run(Path(name), (window,) * 3)
        empty, start = peak(), time.process_time()
        run(Path(name), size)
    voxels = float(np.prod(size))
    return {
        "beside": (peak() - empty - 5 * voxels) / MIB,
        "peak": peak() / 2**30,
        "seconds": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--window", type=int, default=96)
    parser.add_argument("--only", choices=["slabs", "monai", "predict"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [tuple(int(n) for n in text.split("x")) for text in arguments.sizes.split(",")]
    if arguments.only:
        work: Any = {"slabs": lambda *a: inferer(*a, True), "monai": lambda *a: inferer(*a, False), "predict": predict}
        print(json.dumps(work[arguments.only](sizes[0], arguments.window)))
        return
    print(f"{'size':>13} {'image MiB':>9} {'mask MiB':>8}  inferer beside: {'slabs':>6} {'MONAI':>6}"
          f"  predict beside: {'MiB':>6} {'bytes/voxel':>11} {'peak GiB':>8} {'CPU s':>6}")  # fmt: skip
    for size in sizes:
        text = "x".join(map(str, size))
        rows = {}
        for only in ("slabs", "monai", "predict"):
            command = [
                sys.executable,
                "-W",
                "ignore",
                __file__,
                "--only",
                only,
                "--sizes",
                text,
                "--window",
                str(arguments.window),
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            rows[only] = json.loads(done.stdout.splitlines()[-1])
        voxels = size[0] * size[1] * size[2]
        told = rows["predict"]
        print(f"{text:>13} {4 * voxels / MIB:>9.0f} {voxels / MIB:>8.0f}  {'':15} {rows['slabs']['beside']:>6.0f} "
              f"{rows['monai']['beside']:>6.0f}  {'':15} {told['beside']:>6.0f} {told['beside'] * MIB / voxels:>11.1f} "
              f"{told['peak']:>8.2f} {told['seconds']:>6.0f}", flush=True)  # fmt: skip
    print(f"{CLASSES} classes, windows of {arguments.window}, overlap 0.25, scores held within 256 MiB")


if __name__ == "__main__":
    main()
