"""Everything that is wrong with a data set, in one list: whoever mends it wants to do so once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from genseg_monai.data.cases import data_folder, list_cases
from genseg_monai.data.facts import CaseFacts, look_at_all
from genseg_monai.data.fault import Fault, FaultKind, Severity, fault
from genseg_monai.data.layouts import Listing
from genseg_monai.data.split_faults import split_faults
from genseg_monai.errors import UserError

__all__ = ["Fault", "FaultKind", "Severity", "faults_in", "find_faults"]

_STRANGE = 0.05  # share of cases below which a label value none of the others has is worth a word


def find_faults(
    root: str | Path,
    *,
    label_dir: str | None = None,
    label_values: Mapping[int, int] | None = None,
    seed: int = 0,
) -> list[Fault]:
    """Look at every case of a data set and list what is wrong, the errors first.

    Args:
        root: as for `find_cases`.
        label_dir: name of the folder of labels.
        label_values: raw value -> class index: the values a label may have; else those most labels have.
        seed: of the split, where the data set brings none.

    Example:
        >>> find_faults("phantom://2d?cases=6&size=32")
        []
    """
    try:
        listing = list_cases(root, label_dir)
    except UserError as error:
        return [fault(FaultKind.LAYOUT, error.where, error.problem)]
    return faults_in(root, listing, look_at_all(listing.cases), label_values=label_values, seed=seed)


def faults_in(
    root: str | Path,
    listing: Listing,
    facts: Sequence[CaseFacts],
    *,
    label_values: Mapping[int, int] | None = None,
    seed: int = 0,
) -> list[Fault]:
    """List what is wrong with cases that were looked at already; the arguments are those of `find_faults`.

    Args:
        root: the data set.
        listing: its cases and what is left over.
        facts: what was seen in each case of `listing`, in the same order.
        label_values: raw value -> class index.
        seed: of the split.
    """
    folder = data_folder(root)
    faults = [*_unpaired(listing), *_names(folder, listing)]
    for case in facts:
        faults += _in_case(case)
    faults += _label_values(facts, label_values)
    faults += _channels(facts)
    faults += split_faults(folder, listing, facts, seed)
    return sorted(faults, key=lambda one: one.severity is Severity.WARNING)


def _unpaired(listing: Listing) -> list[Fault]:
    """Name images without label, which training leaves out, and labels without image, which are mistakes."""
    found = [
        fault(FaultKind.UNPAIRED, path, "wanted a label of the same name, got none; it is left out", Severity.WARNING)
        for path in listing.unlabelled
    ]
    for path in listing.orphans:
        if path.exists():
            found.append(
                fault(FaultKind.UNPAIRED, path, "wanted an image of the same name, got none; add or rename it")
            )
        else:
            found.append(
                fault(FaultKind.UNPAIRED, path, "wanted this file, it is listed but not there; add or unlist it")
            )
    return found


def _names(folder: Path, listing: Listing) -> list[Fault]:
    counts = Counter(case["case"] for case in listing.cases)
    return [
        fault(FaultKind.NAME, folder, f"wanted one name a case, got {name!r} {count} times; rename the files")
        for name, count in counts.items()
        if count > 1
    ]


def _in_case(case: CaseFacts) -> list[Fault]:
    found = [fault(FaultKind.UNREADABLE, error.where, error.problem) for error in case.errors]
    if case.size and case.bounds[0] == case.bounds[1]:
        found.append(
            fault(FaultKind.CONSTANT, case.image, f"wanted an image, got {case.bounds[0]:g} everywhere; look at it")
        )
    if not case.label_size:
        return found
    if case.size and case.size != case.label_size:
        sizes = [" x ".join(map(str, size)) for size in (case.size, case.label_size)]
        found.append(
            fault(
                FaultKind.SIZE,
                case.label,
                f"wanted the size of its image, {sizes[0]}, got {sizes[1]}; draw it on the image",
            )
        )
    elif case.size and not case.same_place:
        away = float(np.abs(case.affine - case.label_affine).max())
        found.append(
            fault(
                FaultKind.PLACE, case.label,
                f"wanted the affine of its image, got one {away:.3g} mm away; save it in the space of the image",
            )
        )  # fmt: skip
    if len(case.values) == 1:
        value = next(iter(case.values))
        said = "nothing is marked" if value == 0 else f"everything is {value:g}"
        found.append(fault(FaultKind.EMPTY_MASK, case.label, f"wanted a structure, {said}; right if there is none"))
    return found


def _label_values(facts: Sequence[CaseFacts], label_values: Mapping[int, int] | None) -> list[Fault]:
    """Name labels with values nobody announced: not whole, not in ``label_values``, or in very few cases."""
    with_value: Counter[float] = Counter(value for case in facts for value in case.values)
    labelled = sum(bool(case.values) for case in facts)
    known = {float(value) for value in label_values} if label_values is not None else None
    found = []
    for case in facts:
        for value in case.values:
            whole = value == int(value) and value >= 0
            if known is not None and value not in known:
                wanted = ", ".join(f"{v:g}" for v in sorted(known))
                problem = f"wanted the label values {wanted}, got {value:g}; correct it or add it to label_values"
            elif known is None and not whole:
                problem = f"wanted whole label values from 0 on, got {value:g}; write class numbers"
            elif known is None and len(with_value) > 2 and with_value[value] <= _STRANGE * labelled:
                text = f"got {value:g}, which {with_value[value]} of {labelled} labels have"
                strays = Severity.WARNING
                found.append(
                    fault(FaultKind.LABEL_VALUES, case.label, f"wanted usual values, {text}; look at it", strays)
                )
                continue
            else:
                continue
            found.append(fault(FaultKind.LABEL_VALUES, case.label, problem))
            break
    return _brief(found)


def _brief(faults: list[Fault], most: int = 3) -> list[Fault]:
    """Keep the first few stray values of a label: a noisy one has two hundred of them."""
    seen: Counter[str] = Counter()
    kept = []
    for one in faults:
        seen[one.where] += 1
        if seen[one.where] <= most:
            kept.append(one)
    return kept


def _channels(facts: Sequence[CaseFacts]) -> list[Fault]:
    counts = Counter(case.channels for case in facts if case.channels)
    dims = Counter(len(case.size) for case in facts if case.size)
    usual = {kind: counter.most_common(1)[0][0] for kind, counter in (("c", counts), ("d", dims)) if counter}
    found = []
    for case in facts:
        if case.size and len(case.size) != usual["d"]:
            kinds = {2: "a picture", 3: "a volume"}
            message = f"wanted {kinds[usual['d']]} like most, got {kinds[len(case.size)]}; use one kind in a data set"
            found.append(fault(FaultKind.CHANNELS, case.image, message, Severity.ERROR))
        elif case.channels and case.channels != usual["c"]:
            pictures = {case.channels, usual["c"]} == {1, 3}
            message = f"wanted {usual['c']} channels like most, got {case.channels}; " + (
                "grey is repeated to colour" if pictures else "add the missing ones"
            )
            found.append(fault(FaultKind.CHANNELS, case.image, message, None if pictures else Severity.ERROR))
    return found
