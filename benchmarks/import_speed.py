"""How fast a CT series of 200 x 512 x 512 is read, against MONAI's reader.

    python -m benchmarks.import_speed [--slices 200] [--repeats 7] [--json FILE]

The series is drawn into a temporary folder, uncompressed. The routes take turns, with a warm cache, so that a busy
machine disturbs all alike; medians count, of seconds and of CPU seconds. Goal: the volume and its affine, geometry
checked, at least 5 times faster than by MONAI's ITKReader; both as it is (first row) and as what MONAI wants of it, a
contiguous float32 tensor in the order X, Y, Z (second row).
"""

from __future__ import annotations

import argparse
import json
import statistics
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


def timed(read: Callable[[], object]) -> tuple[float, float]:
    """Return seconds, and CPU seconds of all threads."""
    start, used = time.perf_counter(), time.process_time()
    read()
    return time.perf_counter() - start, time.process_time() - used


def measure(slices: int, repeats: int) -> list[dict[str, object]]:
    """Return one row a route: seconds, CPU seconds, and how many times less of both than ITKReader takes."""
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
            for read in routes.values():
                read()  # fills the cache, imports what is imported late
            rounds = [{route: timed(read) for route, read in routes.items()} for _ in range(repeats)]
    rows = []
    for route in routes:
        wall, used = zip(*(one[route] for one in rounds), strict=True)
        base, base_used = zip(*(one["MONAI LoadImage(ITKReader)"] for one in rounds), strict=True)
        rows.append(
            {
                "route": route,
                "seconds": round(statistics.median(wall), 3),
                "range": f"{min(wall):.3f} to {max(wall):.3f}",
                "CPU seconds": round(statistics.median(used), 3),
                "times faster": round(statistics.median(base) / statistics.median(wall), 2),
                "times less CPU": round(statistics.median(base_used) / statistics.median(used), 2),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.slices, options.repeats)
    for row in rows:
        print(
            f"{row['route']:34s} {row['seconds']:8.3f} s ({row['range']})  {row['CPU seconds']:8.3f} CPU s "
            f"{row['times faster']:8.2f} x {row['times less CPU']:8.2f} x CPU"
        )
    for row in rows[:2]:
        reached = float(str(row["times faster"]))
        print(
            f"{row['route']}: goal {GOAL:g} x ITKReader {'reached' if reached >= GOAL else 'MISSED'} ({reached:.2f} x)"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
