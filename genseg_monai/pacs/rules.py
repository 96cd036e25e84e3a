"""Which image series of a study is taken: rules on what its images are, not on where they lie.

`rules.yaml` is a list under `any:` or `all:`, and lists may be nested:

    any:
      - {modality: CT, orientation: axial, thickness: [0, 3], description: "/portal/i", image_type: ORIGINAL}
      - all: [{modality: MR}, {contrast: "*"}, {slices: [20, 2000]}]
    keep: best      # of the series of a study that match, the one with most slices; `all` keeps every one

A rule is three-valued. What the archive has not told yet makes it open, not false: the caller then looks at one
instance of the series.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from genseg_monai.errors import UserError
from genseg_monai.pacs.records import SeriesRecord, matches_text

__all__ = ["Orientation", "Rule", "Rules", "best_of", "load_rules", "orientation_of", "slices_of"]

_WITHIN = np.cos(np.deg2rad(30.0))
# objects of one image each: CT, MR, PET, computed and digital radiography, mammography, ultrasound, secondary capture
_SINGLE = {"1.2", "1.4", "1.128", "1.1", "1.1.1", "1.1.1.1", "1.1.2", "1.1.2.1", "1.6.1", "1.7"}
_SINGLE = {f"1.2.840.10008.5.1.4.1.{number}" for number in _SINGLE}


class Orientation(StrEnum):
    """Which plane of the patient the images lie in, within 30 degrees."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    OBLIQUE = "oblique"


def orientation_of(cosines: Sequence[object]) -> Orientation | None:
    """Name the plane of ImageOrientationPatient; None where it holds no two directions.

    Example:
        >>> orientation_of([1, 0, 0, 0, 0, -1])
        <Orientation.CORONAL: 'coronal'>
    """
    try:
        row, column = np.asarray([float(str(v)) for v in cosines]).reshape(2, 3)
    except ValueError:
        return None
    normal = np.abs(np.cross(row, column))
    length = float(np.linalg.norm(normal))
    if not 0.5 < length < 1.5:
        return None
    axis = int(np.argmax(normal))
    names = (Orientation.SAGITTAL, Orientation.CORONAL, Orientation.AXIAL)
    return names[axis] if normal[axis] / length >= _WITHIN else Orientation.OBLIQUE


def slices_of(series: SeriesRecord, facts: Mapping[str, Any]) -> int | None:
    """Return how many slices a series has, frames counted; None while its instances may hold untold frames.

    Args:
        series: with its instances, or their number.
        facts: of one of its instances; the others count as having as many frames.

    Example:
        >>> slices_of(SeriesRecord("1.1", "1.2", "CT", count=2), {"NumberOfFrames": "150"})
        300
    """
    count, frames = len(series.instances) or series.count, _number(facts.get("NumberOfFrames"))
    if count and frames:
        return count * int(frames)
    told = series.instances and all(one.sop_class in _SINGLE for one in series.instances)
    return count if told else None


@dataclass(frozen=True)
class Rule:
    """What one series has to be; an empty field asks for nothing.

    Attributes:
        modality: CT, MR, ...
        orientation: plane of the images.
        thickness: millimetres, from and to, both included.
        description: pattern of the series description.
        contrast: pattern of the contrast agent; `*` any, an empty text none.
        image_type: values ImageType has to hold.
        slices: number of images, frames counted, from and to.

    Example:
        >>> series = SeriesRecord("1.1", "1.2", "CT", "Liver portal", 60)
        >>> rule = Rule(modality="CT", description="/portal/i", slices=(20, 2000))
        >>> rule.decide(series, {"NumberOfFrames": 1}), Rule(thickness=(0, 3)).decide(series, {})
        (True, None)
    """

    modality: str = ""
    orientation: Orientation | str = ""
    thickness: tuple[float, float] | None = None
    description: str = ""
    contrast: str | None = None
    image_type: tuple[str, ...] = ()
    slices: tuple[float, float] | None = None

    def decide(self, series: SeriesRecord, facts: Mapping[str, Any], final: bool = False) -> bool | None:
        """Say whether a series fits; None while a fact is missing.

        Args:
            series: as listed by the archive.
            facts: attributes of one of its instances, as far as known.
            final: nothing more will be known: what is missing does not fit.
        """
        checks: list[bool | None] = []
        if self.modality:
            checks.append(series.modality == self.modality)
        if self.description:
            checks.append(matches_text(self.description, series.description))
        if self.slices:
            count = slices_of(series, facts)
            checks.append(None if count is None else self.slices[0] <= count <= self.slices[1])
        if self.orientation:
            found = facts.get("ImageOrientationPatient")
            checks.append(None if found is None else orientation_of(found) == self.orientation)
        if self.thickness:
            value = _number(facts.get("SliceThickness"))
            checks.append(None if value is None else self.thickness[0] <= value <= self.thickness[1])
        if self.image_type:
            held = facts.get("ImageType")
            terms = {str(v).strip().upper() for v in ([held] if isinstance(held, str) else held or ())}
            checks.append(None if held is None else {v.upper() for v in self.image_type} <= terms)
        if self.contrast is not None:
            checks.append(self._contrast(facts, final))
        if False in checks:
            return False
        return (False if final else None) if None in checks else True

    def _contrast(self, facts: Mapping[str, Any], final: bool) -> bool | None:
        agent = facts.get("ContrastBolusAgent")
        if agent is None and not final:
            return None
        text = str(agent or "").strip()
        return matches_text(self.contrast or "", text) if self.contrast and text else bool(text) == bool(self.contrast)


@dataclass(frozen=True)
class Rules:
    """Rules joined by `any` or `all`.

    Example:
        >>> series = SeriesRecord("1.1", "1.2", "CT", "Liver portal", 60)
        >>> thin = Rules("all", (Rule(modality="CT"), Rule(slices=(1, 99))))
        >>> Rules("any", (Rule(modality="MR"), thin)).decide(series, {"NumberOfFrames": 1})
        True
    """

    join: str = "all"
    parts: tuple[Rule | Rules, ...] = field(default=())
    keep: str = "all"

    def decide(self, series: SeriesRecord, facts: Mapping[str, Any], final: bool = False) -> bool | None:
        """Say whether a series fits; None while a fact is missing."""
        found = [part.decide(series, facts, final) for part in self.parts]
        if self.join == "any" and found:
            return True if True in found else None if None in found else False
        return False if False in found else None if None in found else True


def best_of(series: Iterable[SeriesRecord], keep: str) -> list[SeriesRecord]:
    """Return, of the series of each study, the one with most slices (ties: lowest number, then UID), or all."""

    def place(one: SeriesRecord) -> tuple[str, int, int, str]:
        slices = slices_of(one, one.facts) or len(one.instances) or one.count or 0
        return one.study_uid, -slices, one.number, one.series_uid

    ordered = sorted(series, key=place)
    if keep == "all":
        return ordered
    first: dict[str, SeriesRecord] = {}
    for one in ordered:
        first.setdefault(one.study_uid, one)
    return list(first.values())


def load_rules(path: str | os.PathLike[str] | None) -> Rules:
    """Read `rules.yaml`; without one every image series fits and is kept.

    Raises:
        UserError: the file cannot be read, or has an unknown key or a wrong value.
    """
    if path is None:
        return Rules()
    try:
        held = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise UserError(path, "wanted a readable YAML file with a list under any: or all:") from None
    keep = held.pop("keep", "best") if isinstance(held, dict) else "best"
    if keep not in ("best", "all"):
        raise UserError(f"{path}: keep", f"wanted best or all, got {keep!r}")
    made = _read(path, held)
    if not isinstance(made, Rules):
        raise UserError(path, "wanted a list under any: or all:, got a single rule; put it into a list")
    return Rules(made.join, made.parts, keep)


def _read(path: object, held: Any) -> Rule | Rules:
    if not isinstance(held, dict):
        raise UserError(path, "wanted mappings such as {modality: CT}, got something else")
    if joins := [join for join in ("any", "all") if join in held]:
        if len(held) > 1 or not isinstance(held[joins[0]], list) or not held[joins[0]]:
            raise UserError(path, "wanted either any: or all:, with a list of rules that is not empty")
        return Rules(joins[0], tuple(_read(path, one) for one in held[joins[0]]))
    known = list(Rule.__dataclass_fields__)
    if unknown := sorted(str(key) for key in held if key not in known):
        raise UserError(path, f"wanted only {', '.join(known)} in a rule, got also {', '.join(unknown)}")
    if not held:
        raise UserError(path, "wanted at least one condition in a rule, got none")
    made: dict[str, Any] = {}
    for key, value in held.items():
        if key in ("thickness", "slices"):
            made[key] = _range(path, key, value)
        elif key == "orientation":
            if value not in list(Orientation):
                raise UserError(path, f"wanted orientation {', '.join(Orientation)}, got {value!r}")
            made[key] = Orientation(value)
        elif key == "image_type":
            made[key] = tuple(str(v) for v in (value if isinstance(value, list) else [value]))
        elif isinstance(value, str):
            made[key] = value
        else:
            raise UserError(path, f"wanted a text for {key}, got {value!r}")
    for key in ("description", "contrast"):
        matches_text(made.get(key) or "", "")
    return Rule(**made)


def _range(path: object, key: str, value: Any) -> tuple[float, float]:
    good = isinstance(value, list) and len(value) == 2
    if not good or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value) or value[0] > value[1]:
        raise UserError(path, f"wanted {key}: [from, to], got {value!r}")
    return float(value[0]), float(value[1])


def _number(value: object) -> float | None:
    try:
        return None if value is None else float(str(value))
    except ValueError:
        return None
