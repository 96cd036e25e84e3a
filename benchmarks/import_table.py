"""What becomes of every folder, series and file of a set of real DICOM data: read, or refused with the reason.

    python -m benchmarks.import_table FOLDER [--speed import_speed.json] [--out docs/results/dicom_import.md]

FOLDER is the `dicom` folder of the real data, as the tests have it. What each entry has to become stands
in tests/dicom/real_files.py, and how it was found out in the text below; the last column compares. The
exit code is 1 if an entry comes out otherwise or is not in that list. `--speed` adds what import_speed.py wrote.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom

from genseg_monai.dicom.annotation import is_annotation, label_map
from genseg_monai.dicom.convert import convert_folder
from genseg_monai.dicom.series import SeriesError, SeriesFault, find_series, read_series
from genseg_monai.dicom.uids import Key
from tests.dicom.real_files import ANNOTATIONS, FILES, FOLDERS, TREE

LABELS = {"liver": 1, "roi-1": 2}
SERIES_HEAD = "| entry | files | kind | read as a series | by `convert` | as expected |\n|---|---|---|---|---|---|"
NOTES_HEAD = "| annotation | kind | on the series | outcome | as expected |\n|---|---|---|---|---|"

EXPECTED = """\
What is expected of a file or series was found out with other programs (dcm2niix, ITK, dcmqi) and by looking. Of the
annotations it was not all known beforehand: `liver.dcm` was counted by an earlier test, and the voxels of the RTSTRUCT
were confirmed afterwards by an independent count with matplotlib's point in polygon. All of it stands in
[tests/dicom/real_files.py](../../tests/dicom/real_files.py); the tests compare voxels and affines too."""
TIMED = """\
200 slices of 512 x 512, warm cache, on two CPU cores that others used too; the routes take turns, medians count.
`python -m benchmarks.import_speed --repeats 9 --json SPEED.json`; the table is one run of two, under a load of one. In
the other, under a load of three, `read_series`, which gives volume and affine, was 17.7 times faster than MONAI's
`LoadImage` with ITKReader, with 15.6 times less CPU, and `LoadImage` with SeriesReader, like for like, 5.5 times, with
6.5 times less CPU. The goal of 5 times was met by both in both runs."""


def series_rows(root: Path) -> Iterator[list[str]]:
    """Yield one row an entry: name, number of files, kind, outcomes, whether the first is right."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        # of the broken files of `torture` any may be met first
        wanted = set(SeriesFault) if folder.name == "torture" else FOLDERS.get(folder.name)
        yield [f"**{folder.name}**", str(len(files)), _kind(files), *_read(folder, wanted, _imported(files))]
    for series, (place, (count, wanted)) in zip(find_series(root / "dicomdir_tree"), TREE.items(), strict=True):
        assert place in str(series.files[0])
        assert len(series.files) == count
        row = _read(series, wanted, _imported(series.files))
        yield [f"dicomdir_tree: {place}", str(count), _kind(series.files), *row]
    for path in sorted((root / "torture").iterdir()):
        yield [path.name, "1", _kind([path]), *_read(path, FILES.get(path.name), _imported([path]))]


def _read(source: Any, wanted: Any, imported: str) -> list[str]:
    try:
        series = read_series(source)
    except SeriesError as error:
        right = error.reason in wanted if isinstance(wanted, set) else error.reason == wanted
        return [f"refused, {error.reason}: {error.problem}", imported, _yes(right)]
    got = series.modality, series.array.shape, (int(series.array.min()), int(series.array.max()))
    told = f"{' x '.join(map(str, series.array.shape))}, values {got[2][0]} to {got[2][1]}"
    return [told, imported, _yes(isinstance(wanted, tuple) and got[: len(wanted)] == wanted)]


def _imported(files: Sequence[Path]) -> str:
    """Return what `convert` makes of some files, suspicion of text and faces included."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "in"
        place.mkdir()
        for number, path in enumerate(files):
            shutil.copy(path, place / f"{number:04d}")
        done = convert_folder(place, Path(name) / "out", LABELS, key=Key(bytes(32)))
    parts = [f"{done.labelled} labelled"] * bool(done.labelled) + [f"{done.unlabelled} unlabelled"] * bool(
        done.unlabelled
    )
    parts += [f"refused: {', '.join(f'{reason} {n}' for reason, n in done.refused.items())}"] * bool(done.refused)
    return "; ".join(parts) or "no image"


def note_rows(root: Path) -> Iterator[list[str]]:
    """Yield one row an annotation: name, kind, the series it was drawn on, outcome, whether it is right."""
    found = sorted(path for path in root.rglob("*") if path.suffix == ".dcm" and is_annotation(path))
    assert {str(path.relative_to(root)) for path in found} == set(ANNOTATIONS)
    for path in found:
        home, labels, wanted = ANNOTATIONS[str(path.relative_to(root))]
        drawn, report = label_map([path], read_series(root / home), labels)
        got = report.refused[0].reason if report.refused else (int((drawn > 0).sum()), report.absent)
        told = (
            f"refused, {report.refused[0].reason}: {report.refused[0].problem}"
            if report.refused
            else f"{got[0]} voxels; {report.absent} of its images missing, {report.outside} contours or voxels outside"
        )
        yield [str(path.relative_to(root)), _kind([path]), home, told, _yes(got == wanted)]


def _kind(files: Sequence[Path]) -> str:
    """Return modality and transfer syntax."""
    kinds = set()
    for path in files:
        try:
            data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality"], force=True)
            syntax = data.file_meta.get("TransferSyntaxUID")
        except Exception:  # the broken ones
            continue
        kinds.add((data.get("Modality") or "-", syntax.name if syntax else "-"))
    if len(kinds) > 3:
        return f"{len({modality for modality, _ in kinds})} modalities, {len({syntax for _, syntax in kinds})} syntaxes"
    return "; ".join(f"{modality}, {syntax}" for modality, syntax in sorted(kinds))


def _yes(right: bool) -> str:
    return "yes" if right else "NO"


def _table(head: str, rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([head, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)])


def _speed(path: Path) -> str:
    rows = [[str(value) for value in row.values()] for row in json.loads(path.read_text(encoding="utf-8"))]
    head = "| route | seconds | range | CPU seconds | times faster than MONAI's ITKReader | times less CPU |"
    return _table(head + "\n|---|---|---|---|---|---|", rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--speed", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    series, notes = list(series_rows(options.folder)), list(note_rows(options.folder))
    refused = sum(row[3].startswith("refused") for row in series)
    wrong = [row[0] for row in (*series, *notes) if row[-1] != "yes"]
    text = [
        "# Real DICOM files: what is read, and why the rest is refused",
        "Made by `python -m benchmarks.import_table FOLDER --speed SPEED.json --out docs/results/dicom_import.md`.",
        f"{len(series)} entries, of which {len(series) - refused} are read and {refused} refused; {len(notes)} "
        f"annotations. {len(wrong)} came out otherwise than expected.\n" + EXPECTED,
        "`convert` keeps back more than reading does: what may show a face or text. It gets each entry alone, so an\n"
        "annotation counts only with its images beside it.",
        _table(SERIES_HEAD, series),
        "## SEG and RTSTRUCT",
        _table(NOTES_HEAD, notes),
    ]
    if options.speed:
        text += [
            "## Speed",
            TIMED,
            _speed(options.speed),
        ]
    page = "\n\n".join(text) + "\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page, encoding="utf-8")
    else:
        print(page, end="")
    if wrong:
        print(f"otherwise than expected: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
