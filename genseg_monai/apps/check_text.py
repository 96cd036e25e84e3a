"""The findings of `genseg check` as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genseg_monai.data.fault import Fault
    from genseg_monai.data.fingerprint import Fingerprint, Spread
    from genseg_monai.data.plan import Plan
    from genseg_monai.data.splits import Splits

__all__ = ["fault_lines", "fingerprint_lines", "plan_lines", "split_line"]

_MOST_VALUES = 12


def fault_lines(faults: Sequence[Fault]) -> list[str]:
    """Return the number of errors and warnings, then each of them."""
    errors = sum(fault.severity == "error" for fault in faults)
    warnings = len(faults) - errors
    return [f"errors: {errors}, warnings: {warnings}", *map(str, faults)]


def fingerprint_lines(fingerprint: Fingerprint) -> list[str]:
    """Return sizes, spacing, intensities and classes."""
    kind = "pictures" if fingerprint.spatial_dims == 2 else "volumes"
    lines = [
        f"images: {fingerprint.cases} {kind}, channels {_counts(fingerprint.channels)}, "
        f"stored as {_counts(fingerprint.dtypes)}" + (f", {fingerprint.modality}" if fingerprint.modality else ""),
        f"size: {_spread(fingerprint.sizes)}",
    ]
    if fingerprint.spacing is not None:
        lines.append(f"spacing: {_spread(fingerprint.spacing)} mm; axes {_counts(fingerprint.directions)}")
    names = ("lowest", "0.5 %", "median", "99.5 %", "highest")
    for name, numbers in (("intensities", fingerprint.intensities), ("in the foreground", fingerprint.foreground)):
        if numbers:
            lines.append(f"{name}: " + ", ".join(f"{n} {v:.4g}" for n, v in zip(names, numbers, strict=True)))
    shown = list(fingerprint.values.items())[:_MOST_VALUES]
    for value, share in shown:
        lines.append(f"label value {value:g}: {100 * share:.3g} % of voxels, in {fingerprint.cases_with[value]} cases")
    if len(fingerprint.values) > len(shown):
        lines.append(f"and {len(fingerprint.values) - len(shown)} further label values")
    return lines


def plan_lines(plan: Plan) -> list[str]:
    """Return working size, classes and normalisation."""
    classes = ", ".join(
        f"{index} {name} (from {_values([raw for raw, i in plan.label_values.items() if i == index])})"
        for index, name in enumerate(plan.classes)
    )
    unit = {"range": "as stored", "percentile": "% of each image", "window": "HU"}[str(plan.normalisation)]
    spacing = f", {_by(plan.spacing)} mm" if plan.spacing else ", scaled to fit with the aspect kept"
    size = (
        f"native voxels, in patches of {_by(plan.size)}" if plan.native else f"working size: {_by(plan.size)}{spacing}"
    )
    return [
        size,
        f"classes: {classes}",
        f"intensities: {plan.lower:g} to {plan.upper:g} ({unit}) become 0 to 1"
        + (f"; modality {plan.modality}" if plan.modality else ""),
    ]


def split_line(splits: Splits) -> str:
    """Return how many cases each split has."""
    return f"split: {len(splits.train)} train, {len(splits.val)} validate, {len(splits.test)} test"


def _values(raw: Sequence[int]) -> str:
    """Return label values, a long run of them by its ends."""
    if len(raw) > 2 and list(raw) == list(range(raw[0], raw[-1] + 1)):
        return f"{raw[0]} to {raw[-1]}"
    return ", ".join(map(str, raw))


def _by(numbers: Sequence[Any]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _counts(counts: Mapping[Any, int]) -> str:
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{what} ({count} times)" for what, count in counts.items())


def _spread(spread: Spread) -> str:
    if spread.low == spread.high:
        return _by(spread.median)
    return f"{_by(spread.median)} (from {_by(spread.low)} to {_by(spread.high)})"
