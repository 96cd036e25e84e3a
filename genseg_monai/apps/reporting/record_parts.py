"""The sections of a report that come from the record of a training: its cost, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from genseg_monai.apps.reporting.page import Code, Table, Text
from genseg_monai.apps.reporting.sources import Run

__all__ = ["command_of", "cost", "energy_told", "repeat"]


def cost(run: Run) -> list[Any]:
    """Return time, memory and energy of a training."""
    record = run.record
    steps, spent = record.get("iterations", {}), record.get("seconds_by_phase", {})
    rows = [
        [phase.replace("_", " "), str(count), f"{spent[phase]:.0f}", f"{spent[phase] / count:.2f}"]
        for phase, count in steps.items()
        if count and phase in spent
    ]
    total = sum(spent.values())
    energy, gpu = record.get("energy_wh"), record.get("peak_gpu_memory_gib")
    told = (
        f"{total / 60:.1f} minutes in all on {record.get('device', 'an unknown device')}, at most "
        f"{record.get('peak_memory_gib', '?')} GiB of memory"
        f"{'' if gpu is None else f' and {gpu} GiB on the GPU'}; {energy_told(energy)}."
    )
    blocks: list[Any] = [Text(told)]
    return [*blocks, Table(["phase", "iterations", "seconds", "s / iteration"], rows)] if rows else blocks


def energy_told(watt_hours: float | None) -> str:
    """Return what is known of the energy.

    Example:
        >>> energy_told(12.34), energy_told(None)
        ('12.3 Wh of energy', 'the energy could not be read on this machine')
    """
    return "the energy could not be read on this machine" if watt_hours is None else f"{watt_hours:.1f} Wh of energy"


def repeat(run: Run, *, command: bool = True) -> list[Any]:
    """Return command, versions, seed and hash.

    Args:
        run: the training.
        command: whether its own command is told, which is that of the study for one of its trainings.
    """
    record = run.record
    versions = {"genseg": record.get("genseg"), **record.get("versions", {})}
    facts = [
        ["seed", str(record.get("seed"))],
        ["training cases (of them for the search)", f"{record.get('cases', {}).get('training')} "
         f"({record.get('cases', {}).get('search')})"],
        ["configuration, SHA-256", f"{run.config_hash} (configs/train.yaml)"],
        *([name, str(version)] for name, version in versions.items()),
    ]  # fmt: skip
    same = "python -m monai.bundle run training --config_file configs/train.yaml --dataset_dir DATA --output_dir NEW"
    first = [Code(command_of(record)), Text("Or, in the folder of the training, from the configuration it has left:")]
    if not command:
        first = [Text("The training shown in detail, in its folder:")]
    return [*first, Code(same), Table(["what", "value"], facts, numbers=False)]


def command_of(record: Mapping[str, Any]) -> str:
    """Return the command of a training with DATA and OUT for the folders of the machine it ran on.

    Example:
        >>> command_of({"command": ["x/genseg_monai/__main__.py", "train", "--data", "d/feet", "--out", "runs/feet"]})
        'python -m genseg_monai train --data DATA --out OUT'
    """
    program, *words = [str(word) for word in record.get("command") or ["genseg"]]
    path = PurePath(program)
    name = f"python {path.name}" if path.suffix == ".py" else path.name
    if path.name == "__main__.py":
        name = f"python -m {'monai.bundle' if path.parts[-3:-1] == ('monai', 'bundle') else path.parent.name}"
    places = {"--data": "DATA", "--dataset_dir": "DATA", "--out": "OUT", "--output_dir": "OUT", "--resume": "OUT"}
    told = []
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        place = places.get(words[i - 1]) if i else None
        if place and not word.startswith("phantom://") and (words[i - 1] != "--resume" or "/" in word):
            told.append(place)
        elif equals and flag in places and not value.startswith("phantom://"):
            told.append(f"{flag}={places[flag]}")
        else:
            told.append(word)
    return " ".join([name, *(f"'{w}'" if any(c in w for c in " ?&*[]{}$") else w for w in told)])
