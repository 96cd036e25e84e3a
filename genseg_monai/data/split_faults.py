"""What is wrong with who trains and who is left for the test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genseg_monai.data.facts import CaseFacts
from genseg_monai.data.fault import Fault, FaultKind, Severity, fault
from genseg_monai.data.layouts import Listing, read_json
from genseg_monai.data.splits import Splits, group_of, read_splits
from genseg_monai.errors import UserError

__all__ = ["split_faults"]

_FEWEST_TO_TRAIN = 4


def split_faults(folder: Path, listing: Listing, facts: Sequence[CaseFacts], seed: int) -> list[Fault]:
    """Name what is wrong with the split, and equal images, which are worst on two sides of it.

    Args:
        folder: the data set.
        listing: its cases.
        facts: what was seen in them.
        seed: of the split, where the data set brings none.
    """
    found: list[Fault] = []
    splits: Splits | None = None
    try:
        splits = read_splits(folder, listing.cases, seed)
    except UserError as error:
        found += _in_file(folder, listing) or [fault(FaultKind.SPLITS, error.where, error.problem)]
    sides = {case["case"]: name for name in ("train", "val", "test") for case in getattr(splits, name, [])}
    alike: dict[str, list[CaseFacts]] = defaultdict(list)
    for case in facts:
        if case.digest:
            alike[case.digest].append(case)
    for group in alike.values():
        for case in group[1:]:
            first = group[0]
            two = {sides.get(case.case), sides.get(first.case)} - {None}
            torn = f", in {' and '.join(sorted(str(s) for s in two))}" if len(two) > 1 else ""
            message = (
                f"wanted each image once, got the pixels of {Path(first.image).name} again{torn}; remove one of them"
            )
            found.append(fault(FaultKind.DUPLICATE, case.image, message))
    if splits is not None and (splits.train or not splits.test):
        found += _too_few(folder, splits)
    return found


def _too_few(folder: Path, splits: Splits) -> list[Fault]:
    cases, patients = len(splits.train), len({group_of(case, i) for i, case in enumerate(splits.train)})
    found = []
    if cases < _FEWEST_TO_TRAIN:
        message = f"wanted at least {_FEWEST_TO_TRAIN} training cases, got {cases}; label more cases"
        found.append(fault(FaultKind.TOO_FEW, folder, message))
    elif patients < 2:
        message = f"wanted training cases of at least 2 patients, got {patients}; add another patient"
        found.append(fault(FaultKind.TOO_FEW, folder, message))
    if not splits.val:
        message = "wanted validation cases, got none: the last model is kept, not the best; label at least 5 cases"
        found.append(fault(FaultKind.TOO_FEW, folder, message, Severity.WARNING))
    return found


def _in_file(folder: Path, listing: Listing) -> list[Fault]:
    """List every fault of ``splits.json``; reading it stops at the first."""
    file = (folder if folder.is_dir() else folder.parent) / "splits.json"
    try:
        content: Any = read_json(file) if file.is_file() else None
    except UserError:
        return []
    if not isinstance(content, dict):
        return []
    groups = {case["case"]: group_of(case) for case in listing.cases}
    sides: dict[str, str] = {}
    torn: dict[str, str] = {}
    found = []
    for name in ("train", "val", "test"):
        for case in map(str, content.get(name) or []):
            if case not in groups:
                message = f"wanted cases of this data set, got {case!r} in {name}, not among them; add or remove it"
            elif case in sides:
                message = f"wanted each case once, got {case!r} in {sides[case]} and {name}; remove one of them"
            elif torn.setdefault(groups[case], name) != name:
                message = (
                    f"wanted each patient in one split, got {groups[case]!r} in {torn[groups[case]]}, {name}; move them"
                )
            else:
                sides[case] = name
                continue
            sides.setdefault(case, name)
            found.append(fault(FaultKind.SPLITS, file, message))
    return found
