"""How fast a CT series of 200 x 512 x 512 is read, against MONAI's reader.

    python -m benchmarks.import_speed [--slices 200] [--repeats 3] [--json FILE]

The series is drawn into a temporary folder, uncompressed; every route reads it with a warm cache, and the best of the
repeats counts. Goal: the volume and its affine, geometry checked, at least 5 times faster than by MONAI's ITKReader.
The second row adds what MONAI wants of it, a contiguous float32 tensor in the order X, Y, Z.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

GOAL = 5.0


def draw_series(folder: Path, slices: int, size: int = 512) -> None:
    """Write a CT series with shuffled file names."""
    random = np.random.default_rng(0)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    names = random.permutation(slices)
    for index in range(slices):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.Modality, data.ImageType, data.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], index + 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [-180, -180, 1.25 * index], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness, data.Rows, data.Columns = [0.7, 0.7], 1.25, size, size
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = random.integers(0, 2000, (size, size), np.int16).tobytes()
        data.save_as(folder / f"{names[index]:04d}.dcm", enforce_file_format=True)


def best_of(repeats: int, read: Callable[[], object]) -> float:
    """Return the least time in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        read()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(slices: int, repeats: int) -> list[dict[str, object]]:
    """Return one row a route: its name, seconds, and how many times faster than ITKReader."""
    from monai.data.image_reader import ITKReader, PydicomReader
    from monai.transforms import LoadImage

    from genseg_monai.dicom.reader import SeriesReader
    from genseg_monai.dicom.series import read_series

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_series(folder, slices)
        routes: dict[str, Callable[[], object]] = {
            "genseg read_series": lambda: read_series(folder),
            "genseg LoadImage(SeriesReader)": lambda: LoadImage(reader=SeriesReader, image_only=True)(folder),
            "MONAI LoadImage(ITKReader)": lambda: LoadImage(reader=ITKReader, image_only=True)(folder),
            "MONAI LoadImage(PydicomReader)": lambda: LoadImage(reader=PydicomReader, image_only=True)(folder),
            "raw bytes": lambda: [path.read_bytes() for path in folder.iterdir()],
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seconds = {route: best_of(repeats, read) for route, read in routes.items()}
    monai = seconds["MONAI LoadImage(ITKReader)"]
    return [
        {"route": route, "seconds": round(s, 3), "times faster": round(monai / s, 2)} for route, s in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.slices, options.repeats)
    for row in rows:
        print(f"{row['route']:34s} {row['seconds']:8.3f} s {row['times faster']:8.2f} x")
    reached = float(str(rows[0]["times faster"]))
    print(f"goal {GOAL} x ITKReader: {'reached' if reached >= GOAL else 'MISSED'} ({reached:.2f} x)")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
