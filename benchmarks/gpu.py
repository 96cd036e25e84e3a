"""What the three-stage loop costs on one GPU: the whole table within a given time, the most important rows first.

    python benchmarks/gpu.py --out FOLDER [--minutes 9]
    python benchmarks/gpu.py --out FOLDER --device cpu --quick      # the same code in about a minute, on small networks

Writes FOLDER/gpu.json after each block, and FOLDER/gpu.md. What the time does not suffice for is named as left out.
U-Net of 31 M weights, all cells of the generator searched, a step of alpha every fourth iteration, 40 cases. Columns:

    stage I, II, III    milliseconds of the three steps (I with drawing the batch), III as often as it is due
    iteration           their sum; img/s: labelled images in that time
    floor               milliseconds of the bare passes, see `step_cost.py`, in the precision of the row, not compiled
    peak GiB            largest memory allocated on the GPU, networks and cases included
    TFLOP/s, share      floating-point operations of convolutions and products (counted in the same run) over the time,
                        and over the fastest square matrix product of the row's precision measured in the same run
    busy                share of the time in which the GPU works on a kernel; small: launching kernels is what is slow
    waits               how often an iteration waits for the GPU
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.gpu_rows import EVERY, Row, agreement, measure, peak, phases, short_run

PAPER = {"warm_up": 4000, "search": 5000, "fine_tune": 2000, "final_fit": 5000}
"""Iterations of the paper's setting: generator pretraining of 200 epochs of 40 cases two at a time, then 5,000 of the
loop; the derived generator is fine-tuned and the final fit is as long as the loop."""

COLUMNS = {
    "size": "d",
    "batch": "d",
    "width": "d",
    "precision": "s",
    "channels_last": "d",
    "compile": "d",
    "img/s": ".1f",
    "stage I": ".2f",
    "stage II": ".2f",
    "stage III": ".2f",
    "iteration": ".2f",
    "floor": ".2f",
    "iteration/floor": ".2f",
    "peak GiB": ".2f",
    "TFLOP/s": ".2f",
    "share": ".1%",
    "busy": ".0%",
    "waits": ".1f",
}


class Report:
    """What was measured so far, written after every block.

    Args:
        folder: of ``gpu.json`` and ``gpu.md``.
        seconds: how long all of it may take.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.end = folder, time.monotonic() + seconds
        self.held: dict[str, Any] = {"peaks": {}, "rows": [], "hypergradient": [], "paper": [], "left_out": []}
        folder.mkdir(parents=True, exist_ok=True)

    def block(self, name: str, run: Callable[[], None], needs: float = 0.0) -> None:
        """Run a block if there is time for it, and say so if there is not, or if it fails."""
        left = self.end - time.monotonic()
        if left <= needs:
            reason = f"{left:.0f} s were left"
        else:
            try:
                run()
                reason = ""
            except (RuntimeError, ValueError) as problem:  # out of memory, or no kernel for it: the others go on
                reason = f"{type(problem).__name__}: {str(problem).splitlines()[0]}"
        gc.collect()
        if reason:
            self.held["left_out"].append(f"{name}: {reason}")
            print(f"left out {name}: {reason}", flush=True)
        (self.folder / "gpu.json").write_text(json.dumps(self.held, indent=1) + "\n", encoding="utf-8")
        (self.folder / "gpu.md").write_text(markdown(self.held), encoding="utf-8")


def markdown(held: dict[str, Any]) -> str:
    """Return the tables."""
    lines = ["# One GPU", "", f"{held['device']}, torch {held['torch']}. `python {held['command']}`", ""]
    for precision, value in held["peaks"].items():
        lines.append(f"- fastest square matrix product, {precision}: {value / 1e12:.3g} TFLOP/s")
    lines += ["", *_table(COLUMNS, held["rows"]), ""]
    if held["hypergradient"]:
        lines += ["One iteration's hypergradient against float64, from the same state:", ""]
        names = {"estimator": "s", "precision": "s", "cosine": ".6f", "length": ".4f"}
        lines += [*_table(names, held["hypergradient"]), ""]
    for run in held["paper"]:
        each = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in run["seconds"].items())
        lines += [
            f"The paper's setting, batch {run['batch']}, generator width {run['width']}, {run['precision']}: ms an "
            f"iteration by phase: {each}. **Extrapolated** from these to {run['steps']}: {run['extrapolated']:.0f} s. "
            f"Run in earnest, {run['short']['steps']}: {run['short']['seconds']:.1f} s, where the same sum says "
            f"{run['short']['extrapolated']:.1f} s. Peak {run['peak GiB']:.2f} GiB.",
            "",
        ]
    lines += [f"- left out: {line}" for line in held["left_out"]]
    return "\n".join(lines) + "\n"


def _table(columns: dict[str, str], rows: Iterable[dict[str, Any]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [format(row[name], form) if name in row else "-" for name, form in columns.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def plan(quick: bool, cuda: bool) -> list[Row]:
    """Return the rows of the table, the most important first."""
    if quick:
        small = Row(32, 2, 4, segmenter="unet_small", features=(4, 4, 8, 8, 16, 4), discriminator_width=4, cases=8)
        return [small, replace(small, precision="float32", channels_last=False)]
    sizes = [(128, 2), (256, 2), (256, 16), (128, 16), (128, 8), (256, 8)]
    best = "bfloat16" if cuda else "float32"
    rows = [Row(size, batch, 32, best) for size, batch in sizes]
    rows += [replace(row, precision=p) for row in rows[:3] for p in ("float32", "tf32") if p != best]
    rows += [replace(row, channels_last=False) for row in rows[:3]]
    rows += [replace(row, compile=True) for row in rows[:3]]
    rows += [replace(row, width=64) for row in rows[: len(sizes)]]
    more = [Row(size, batch, width) for size, batch in sizes for width in (32, 64)]
    more = [replace(row, precision=p, channels_last=c) for row in more for p in _PRECISIONS for c in (True, False)]
    rows += [replace(row, compile=c) for row in more for c in (False, True)]
    return list(dict.fromkeys(rows))


_PRECISIONS = ("bfloat16", "tf32", "float32")


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="no block is begun after so long")
    parser.add_argument("--quick", action="store_true", help="small networks, few rows")
    arguments = parser.parse_args(given)
    device, quick = torch.device(arguments.device), arguments.quick
    cuda = device.type == "cuda"
    if cuda and not torch.cuda.is_available():
        parser.error("no GPU to be found; --device cpu --quick tries the same code")
    precisions = [p for p in _PRECISIONS if cuda or p != "tf32"]
    report = Report(arguments.out, 60 * arguments.minutes)
    report.held |= {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "command": " ".join(["benchmarks/gpu.py", *(sys.argv[1:] if given is None else given)]),
        "outer_every": EVERY,
    }
    rows, repeats = plan(quick, cuda), 1 if quick else 5

    def peaks() -> None:
        for precision in precisions:
            found = peak(device, precision, 256 if quick else 8192)
            report.held["peaks"][precision] = found
            print(f"fastest square matrix product, {precision}: {found / 1e12:.3g} TFLOP/s", flush=True)

    report.block("peaks", peaks)
    print(" ".join(f"{name:>{max(8, len(name))}}" for name in COLUMNS), flush=True)

    def line(row: Row, bare: bool) -> None:
        found = asdict(row) | measure(row, device, repeats, bare=bare)
        found["img/s"] = found.pop("images/s")
        twin = {"size": row.size, "batch": row.batch, "width": row.width, "precision": row.precision}
        counted = [found, *(old for old in report.held["rows"] if twin.items() <= old.items())]
        operations = next((old["GFLOP"] for old in counted if "GFLOP" in old), None)
        if operations is not None:
            found["TFLOP/s"] = operations / found["iteration"]
            found["share"] = 1e12 * found["TFLOP/s"] / report.held["peaks"][row.precision]
        report.held["rows"].append(found)
        cells = [format(found[name], form) if name in found else "-" for name, form in COLUMNS.items()]
        print(" ".join(f"{cell:>{max(8, len(name))}}" for name, cell in zip(COLUMNS, cells, strict=True)), flush=True)

    def table(wanted: list[Row], bare: bool) -> None:
        for row in wanted:
            name = ", ".join(f"{key} {getattr(row, key)}" for key in list(COLUMNS)[:6])
            report.block(f"row ({name})", lambda row=row: line(row, bare), needs=60.0 if row.compile else 0.0)

    def direction(estimator: str) -> None:
        row = rows[0] if quick else Row(128, 2, 32)
        for precision, found in agreement(row, device, precisions, 3 if quick else 30, estimator).items():
            report.held["hypergradient"].append({"estimator": estimator, "precision": precision} | found)
            print(f"hypergradient, {estimator}, {precision} to float64: {found}", flush=True)

    def paper(row: Row) -> None:
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        steps = {name: n // 100 for name, n in PAPER.items()} if quick else PAPER
        seconds = phases(row, device, repeats)
        with tempfile.TemporaryDirectory() as folder:
            short = short_run(row, device, 12 if quick else 400, Path(folder))
        short["extrapolated"] = sum(seconds.get(name, 0.0) * n for name, n in short["steps"].items())
        found = {"batch": row.batch, "width": row.width, "precision": row.precision, "seconds": seconds, "steps": steps}
        found |= {"extrapolated": sum(seconds[name] * n for name, n in steps.items()), "short": short}
        found["peak GiB"] = torch.cuda.max_memory_allocated(device) / 2**30 if cuda else float("nan")
        report.held["paper"].append(found)
        print(f"paper's setting, batch {row.batch}, width {row.width}: {found}", flush=True)

    first, later = (rows[:1], rows[1:]) if quick else (rows[:3], rows[3:])
    table(first, True)
    settings = rows[:1] if quick else [Row(256, 2, 32), Row(256, 2, 64), Row(256, 16, 32)]
    for row in settings if cuda or quick else []:
        report.block(f"the paper's setting, batch {row.batch}, width {row.width}", lambda row=row: paper(row))
    for estimator in ("mixed",) if quick else ("mixed", "hybrid"):
        report.block(f"hypergradient, {estimator}", lambda estimator=estimator: direction(estimator))
    table(later, not quick)
    print(f"written to {arguments.out}", flush=True)


if __name__ == "__main__":
    main()
