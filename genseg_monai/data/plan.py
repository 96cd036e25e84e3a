"""What is settled before training and stays with the model: working size, classes, normalisation.

A plan is proposed from the training cases, can be changed by hand, and is written as the block ``plan:`` of the
inference configuration, so that a model is never fed with anything but what it was trained on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from genseg_monai.data.facts import look_at_all
from genseg_monai.data.fingerprint import Fingerprint, take_fingerprint
from genseg_monai.data.labels import class_table, described
from genseg_monai.errors import UserError
from genseg_monai.transforms.normalise import Normalisation

__all__ = ["Plan", "plan_from", "propose_plan"]

logger = logging.getLogger(__name__)

_STEP = 16  # working sizes are multiples of it
_SLACK = 0.1  # voxels by which rounded millimetres may miss a whole number
_LONGEST = {("cpu", 2): 128, ("cpu", 3): 64, ("cuda", 2): 256, ("cuda", 3): 128}
_MOST_LOOKED_AT = 200  # cases; more of them change no median
_PERCENTILES = (0.5, 99.5)
_SOFT_TISSUE = (-160.0, 240.0)  # HU
_CT = frozenset({"CT"})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How cases are brought to the network, and what its outputs mean.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels: channels of an image.
        classes: names; the first is the background.
        label_values: raw value in a label -> class index.
        size: working size, multiples of 16; of a patch where ``native``.
        spacing: mm of the working grid in 3D; None scales the image to fit.
        normalisation: `range`, `percentile` (of each image) or `window` (HU).
        lower: intensity, percentile or HU that becomes 0.
        upper: the one that becomes 1.
        modality: for the reader, as ``CT``, ``MR``, ``picture``.
        native: whether images keep their voxels and are seen in patches of ``size``, instead of being fitted to it.

    Raises:
        UserError: a value is not of the kind said here.

    Example:
        >>> plan = Plan(classes=("background", "lesion"), label_values={0: 0, 255: 1}, size=(64, 64))
        >>> Plan.from_dict(plan.as_dict()) == plan
        True
    """

    spatial_dims: int = 2
    in_channels: int = 1
    classes: tuple[str, ...]
    label_values: dict[int, int]
    size: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    normalisation: Normalisation = Normalisation.RANGE
    lower: float = 0.0
    upper: float = 255.0
    modality: str = ""
    native: bool = False

    def __post_init__(self) -> None:
        dims = self.spatial_dims
        _require(dims in {2, 3}, "spatial_dims", "2 or 3", dims)
        _require(self.in_channels >= 1, "in_channels", "1 or more", self.in_channels)
        _require(len(self.classes) >= 2, "classes", "background and at least one more", self.classes)
        known = set(range(len(self.classes)))
        _require(set(self.label_values.values()) <= known, "label_values", f"class indices {known}", self.label_values)
        right = len(self.size) == dims and all(n >= _STEP and n % _STEP == 0 for n in self.size)
        _require(right, "size", f"{dims} multiples of {_STEP}", self.size)
        right = self.spacing is None or (len(self.spacing) == dims and all(s > 0 for s in self.spacing))
        _require(right, "spacing", f"{dims} positive numbers (mm) or nothing", self.spacing)
        _require(self.spacing is None or not self.native, "spacing", "nothing beside native: true", self.spacing)
        _require(self.lower < self.upper, "lower, upper", "lower < upper", (self.lower, self.upper))

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, text, lists and dictionaries, as they stand in a configuration."""
        plain = asdict(self)
        plain |= {"classes": list(self.classes), "size": list(self.size), "normalisation": str(self.normalisation)}
        plain["spacing"] = None if self.spacing is None else list(self.spacing)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Build a plan from the block of a configuration.

        Raises:
            UserError: a key is missing or unknown, or a value is wrong.
        """
        known = {f.name for f in fields(cls)}
        wrong = [key for key in values if key not in known]
        missing = [key for key in ("classes", "label_values", "size") if key not in values]
        if wrong or missing:
            came = f"{', '.join(wrong)} besides" if wrong else f"no {', '.join(missing)}"
            raise UserError("plan", f"wanted {', '.join(sorted(known))}, got {came}; correct the block `plan:`")
        given = dict(values)
        try:
            given["classes"] = tuple(str(name) for name in given["classes"])
            given["label_values"] = {int(raw): int(index) for raw, index in given["label_values"].items()}
            given["size"] = tuple(int(n) for n in given["size"])
            if given.get("spacing") is not None:
                given["spacing"] = tuple(float(s) for s in given["spacing"])
            if "normalisation" in given:
                given["normalisation"] = Normalisation(given["normalisation"])
            for key in ("lower", "upper"):
                if key in given:
                    given[key] = float(given[key])
            given["native"] = bool(given.get("native"))
            return cls(**given)
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                "plan", f"wanted the values of a plan, got one of another kind ({error}); correct it"
            ) from error


def propose_plan(
    cases: Sequence[Mapping[str, Any]],
    *,
    label_values: Mapping[int, int] | None = None,
    size: Sequence[int] | None = None,
    modality: str | None = None,
    device: str = "cpu",
    patch_size: Sequence[int] | None = None,
) -> Plan:
    """Look at the training cases and propose a plan.

    Args:
        cases: training cases; `image` and `label` are enough.
        label_values: raw value -> class index, where it is not plain from the labels.
        size: working size instead of the proposed one; rounded up to multiples of 16, at least 32.
        modality: ``CT``, ``MR`` or another; as the files say, or told by the intensities, if None.
        device: ``cuda`` proposes larger working sizes: at most 256 instead of 128 pixels, 128 instead of 64 voxels.
        patch_size: keep every image as it is and train on patches of this size; rounded up like ``size``.

    Raises:
        UserError: cases cannot be read, do not belong together, or their label values need explaining.

    Example:
        >>> from genseg_monai.data import find_cases
        >>> plan = propose_plan(find_cases("phantom://2d?cases=6&size=32"))
        >>> plan.size, plan.classes, plan.label_values, str(plan.normalisation)
        ((32, 32), ('background', 'foreground'), {0: 0, 255: 1}, 'range')
    """
    if not cases:
        raise UserError("training cases", "wanted at least one, got none; check splits.json")
    step = -(-len(cases) // _MOST_LOOKED_AT)
    facts = look_at_all(cases[::step])
    for case in facts:
        for error in case.errors:
            raise error
    names, said, declared = described(cases[0])
    return plan_from(
        take_fingerprint(facts),
        label_values=label_values,
        size=size,
        modality=modality or said,
        device=device,
        patch_size=patch_size,
        names=names,
        declared=declared,
        where=facts[0].label or facts[0].image,
    )


def plan_from(
    fingerprint: Fingerprint,
    *,
    label_values: Mapping[int, int] | None = None,
    size: Sequence[int] | None = None,
    modality: str | None = None,
    device: str = "cpu",
    patch_size: Sequence[int] | None = None,
    names: Mapping[int, str] | None = None,
    declared: Sequence[int] = (),
    where: str = "labels",
) -> Plan:
    """Propose a plan from a fingerprint; the arguments are those of `propose_plan`.

    Args:
        fingerprint: of the training cases.
        label_values: raw value -> class index.
        size: working size.
        modality: as ``CT``.
        device: ``cpu`` or ``cuda``.
        patch_size: of native patches.
        names: names of raw values.
        declared: raw values the data set says it has, whether or not they were seen.
        where: a label, for the message.
    """
    table, classes = class_table(fingerprint, label_values, names or {}, declared, where)
    dims = fingerprint.spatial_dims
    longest = _LONGEST["cuda" if str(device).startswith("cuda") else "cpu", dims]
    native = patch_size is not None
    size = patch_size if native else size
    spacing = _spacing(fingerprint, longest) if dims == 3 and not native else None
    kind = (modality or fingerprint.modality or _guess(fingerprint)).strip()
    mode, lower, upper = _normalisation(fingerprint, kind)
    return Plan(
        spatial_dims=dims,
        in_channels=max(fingerprint.channels),
        classes=classes,
        label_values=table,
        size=_given_size(size, dims) if size is not None else _working_size(fingerprint, spacing, longest),
        spacing=spacing,
        normalisation=mode,
        lower=lower,
        upper=upper,
        modality=kind,
        native=native,
    )


def _require(right: bool, name: str, wanted: str, came: object) -> None:
    if not right:
        raise UserError(f"plan: {name}", f"wanted {wanted}, got {came}; correct it in the configuration")


def _given_size(size: Sequence[int], dims: int) -> tuple[int, ...]:
    numbers = [size] * dims if isinstance(size, int) else list(size)
    if len(numbers) != dims or not all(n > 0 for n in numbers):
        raise UserError("size", f"wanted {dims} positive numbers, got {size}; give as many as the images have axes")
    return tuple(_up(n) for n in numbers)


def _up(length: float) -> int:
    return max(2 * _STEP, math.ceil((length - _SLACK) / _STEP) * _STEP)


def _working_size(fingerprint: Fingerprint, spacing: tuple[float, ...] | None, longest: int) -> tuple[int, ...]:
    """Return the median picture scaled to ``longest``, or the box that holds every volume at ``spacing``."""
    if spacing is None or fingerprint.extents is None:
        median = fingerprint.sizes.median
        scale = min(1.0, longest / max(median))
        return tuple(min(longest, _up(n * scale)) for n in median)
    return tuple(min(longest, _up(mm / step)) for mm, step in zip(fingerprint.extents.high, spacing, strict=True))


def _spacing(fingerprint: Fingerprint, longest: int) -> tuple[float, ...] | None:
    """Return the median spacing, coarser where a volume would not fit ``longest``, the finest axes first."""
    if fingerprint.spacing is None or fingerprint.extents is None:
        return None
    coarsest = max(fingerprint.extents.high) / longest
    return tuple(round(max(s, coarsest), 3) for s in fingerprint.spacing.median)


def _guess(fingerprint: Fingerprint) -> str:
    """Tell CT by air far below zero in whole numbers; anything else is a picture or an unknown volume."""
    if fingerprint.pictures:
        return "picture"
    low, _, _, high, _ = fingerprint.intensities
    return "CT" if low <= -500 and high > 100 else ""


def _normalisation(fingerprint: Fingerprint, modality: str) -> tuple[Normalisation, float, float]:
    if modality.upper() in _CT and not fingerprint.pictures:
        # nnU-Net's way, from inside the foreground, but never narrower than soft tissue: the generator draws all of it
        low, high = _SOFT_TISSUE
        if fingerprint.foreground:
            low, high = min(low, fingerprint.foreground[1]), max(high, fingerprint.foreground[3])
        return Normalisation.WINDOW, float(round(low)), float(round(high))
    if fingerprint.pictures and set(fingerprint.dtypes) == {"uint8"}:
        return Normalisation.RANGE, 0.0, 255.0
    return Normalisation.PERCENTILE, *_PERCENTILES
