"""De-identification, measured: identifiers found in the output, links between objects, time for a file.

Every object of a drawn study (CT, SEG, RTSTRUCT) holds identifiers wherever a DICOM file can hold one; every byte
written is searched for them, packed content unpacked.

    python -m benchmarks.deidentify [--slices 60]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from pydicom import dcmread

from genseg_monai.dicom.convert import convert_folder
from genseg_monai.dicom.folder import deidentify_folder
from genseg_monai.dicom.profile import Option, Profile
from genseg_monai.dicom.uids import Key
from tests.dicom.leaks import find_leaks
from tests.dicom.phi import MARK
from tests.dicom.study import LABELS, write_study

_OPTIONS = {
    "basic profile": frozenset(),
    "all options but full dates and UIDs": frozenset(set(Option) - {Option.RETAIN_FULL_DATES, Option.RETAIN_UIDS}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=60)
    slices = parser.parse_args().slices
    key = Key(bytes(range(32)))
    with tempfile.TemporaryDirectory() as home:
        source = Path(home, "in")
        study = write_study(source, slices=slices)
        planted = sum(path.read_bytes().count(MARK.encode()) for path in source.rglob("*.dcm"))
        print(f"{slices} CT + SEG + RTSTRUCT, {planted} marks planted, {len(study.secrets)} words searched for")
        print(f"{'command':<50} {'files':>5} {'found':>5} {'linked':>6} {'ms/file':>8}")
        for number, (name, options) in enumerate(_OPTIONS.items()):
            out = Path(home, f"out{number}")
            start = time.perf_counter()
            done = deidentify_folder(source, out, profile=Profile(options=options), key=key)
            spent = time.perf_counter() - start
            found, linked, each = len(find_leaks(out, study.secrets)), _linked(out), 1000 * spent / done.written
            print(f"{'deidentify, ' + name:<50} {done.written:>5} {found:>5} {linked!s:>6} {each:>8.1f}")
        out = Path(home, "data")
        start = time.perf_counter()
        convert_folder(source, out, LABELS, key=key)
        spent = time.perf_counter() - start
        found = len(find_leaks(out, study.secrets))
        print(f"{'convert':<50} {slices + 2:>5} {found:>5} {'':>6} {1000 * spent / (slices + 2):>8.1f}")


def _linked(out: Path) -> bool:
    """Whether SEG and RTSTRUCT refer to the images as they are now."""
    objects = [dcmread(path) for path in out.rglob("*.dcm")]
    images = {one.SOPInstanceUID for one in objects if one.Modality == "CT"}
    referred = []
    for one in objects:
        if one.Modality == "SEG":
            referred.append(
                {i.ReferencedSOPInstanceUID for i in one.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
            )
        if one.Modality == "RTSTRUCT":
            study = one.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
            series = study.RTReferencedSeriesSequence[0]
            referred.append({item.ReferencedSOPInstanceUID for item in series.ContourImageSequence})
    return len(referred) == 2 and all(uids and uids <= images for uids in referred)


if __name__ == "__main__":
    main()
