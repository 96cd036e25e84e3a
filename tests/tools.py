"""Programs that some tests need: where one is missing the test is skipped, visibly; in CI that is a failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

__all__ = ["dcmqi_segments", "dicom_errors", "needed"]

# beside this Python, or the system's; pynetdicom puts programs of dcmtk's names first in PATH
_PLACES = os.pathsep.join(["/usr/bin", "/usr/sbin", "/usr/local/bin", str(Path(sys.executable).parent)])
_FROM = {"segimage2itkimage": "dcmqi (requirements-dev.txt)"}


def needed(*programs: str) -> list[str]:
    """Return where programs (or files, by their path) are; skip where one is missing, fail if `CI` is `true`."""
    found = {name: shutil.which(name, path=_PLACES) or (name if Path(name).is_file() else "") for name in programs}
    gone = [f"{name} of {_source(name)}" for name, path in found.items() if not path]
    if gone:
        reason = f"not installed: {', '.join(gone)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return list(found.values())


def _source(name: str) -> str:
    """Return what installs a program."""
    return "`make label`" if ".venv-label" in name else _FROM.get(name, ".ci/apt.sh")


def dicom_errors(path: Path) -> set[str]:
    """Return the errors that dciodvfy, which knows every rule of the standard, finds in a file."""
    [program] = needed("dciodvfy")
    said = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, errors="replace", check=False)
    return {line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")}


def dcmqi_segments(seg: Path, affine: np.ndarray, folder: Path) -> dict[str, set[tuple[int, ...]]]:
    """Read a SEG with dcmqi, an implementation that shares no code with ours.

    Args:
        seg: the file.
        affine: (4, 4), voxel to RAS mm, of the grid in which the voxels are counted; they have to lie on it.
        folder: for what dcmqi writes.

    Returns:
        Label of each segment -> its voxels.
    """
    [program] = needed("segimage2itkimage")
    folder.mkdir(parents=True, exist_ok=True)
    line = [program, "--inputDICOM", str(seg), "--outputDirectory", str(folder), "-t", "nii"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for entries in json.loads((folder / "meta.json").read_text())["segmentAttributes"]:
        for entry in entries:
            image = nibabel.load(folder / f"{entry['labelID']}.nii.gz")
            voxels = np.argwhere(np.asarray(image.dataobj) == entry["labelID"])
            world = voxels @ image.affine[:3, :3].T + image.affine[:3, 3]
            there = (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
            assert np.abs(there - np.rint(there)).max(initial=0) < 0.02
            found[entry["SegmentLabel"]] = {tuple(int(n) for n in voxel) for voxel in np.rint(there)}
    return found
