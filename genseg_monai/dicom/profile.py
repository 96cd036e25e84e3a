"""What a de-identification keeps, cleans and refuses: the profile of PS3.15 Annex E with its options, as settings.

`profile.yaml` reads

    options: [retain_modified_dates, clean_descriptors]
    labels: [liver, tumour]                     # names of segments and regions that may stay
    quarantine: {burned_in: true, faces: true, allow: [US, {modality: CT, body_part: HEAD}]}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from genseg_monai.dicom.quarantine import Reason
from genseg_monai.dicom.table import EDITION, find_row
from genseg_monai.errors import UserError

__all__ = ["Option", "Profile", "Quarantine", "load_profile"]


class Option(StrEnum):
    """The options of the profile that are offered; the value is the name in `profile.yaml`."""

    RETAIN_UIDS = "retain_uids"
    RETAIN_FULL_DATES = "retain_full_dates"
    RETAIN_MODIFIED_DATES = "retain_modified_dates"
    RETAIN_PATIENT_CHARACTERISTICS = "retain_patient_characteristics"
    RETAIN_DEVICE_IDENTITY = "retain_device_identity"
    RETAIN_SAFE_PRIVATE = "retain_safe_private"
    CLEAN_DESCRIPTORS = "clean_descriptors"
    CLEAN_GRAPHICS = "clean_graphics"

    @property
    def column(self) -> str:
        """Return the column of the table that holds this option's actions."""
        return _FACTS[self][0]

    @property
    def code(self) -> tuple[str, str]:
        """Return the code of context group 7050 (scheme DCM) and its meaning."""
        return _FACTS[self][1:]


_FACTS = {
    Option.RETAIN_UIDS: ("uids", "113110", "Retain UIDs Option"),
    Option.RETAIN_FULL_DATES: (
        "full_dates",
        "113106",
        "Retain Longitudinal Temporal Information Full Dates Option",
    ),
    Option.RETAIN_MODIFIED_DATES: (
        "modified_dates",
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
    ),
    Option.RETAIN_PATIENT_CHARACTERISTICS: ("patient", "113108", "Retain Patient Characteristics Option"),
    Option.RETAIN_DEVICE_IDENTITY: ("device", "113109", "Retain Device Identity Option"),
    Option.RETAIN_SAFE_PRIVATE: ("private", "113111", "Retain Safe Private Option"),
    Option.CLEAN_DESCRIPTORS: ("descriptors", "113105", "Clean Descriptors Option"),
    Option.CLEAN_GRAPHICS: ("graphics", "113103", "Clean Graphics Option"),
}

_SWITCH = {
    Reason.BURNED_IN: "burned_in",
    Reason.SCREENSHOT: "screenshots",
    Reason.FACE: "faces",
    Reason.DOCUMENT: "documents",
    Reason.HIGH_BITS: "high_bits",
}
_RULE_KEYS = {"modality", "image_type", "manufacturer", "sop_class", "body_part"}


@dataclass(frozen=True)
class Quarantine:
    """Which suspicions keep an object back, and which objects pass all the same.

    Args:
        burned_in, screenshots, faces, documents, high_bits: False switches that suspicion off.
        allow: rules; an object passes that has every value of one of them (any case).
    """

    burned_in: bool = True
    screenshots: bool = True
    faces: bool = True
    documents: bool = True
    high_bits: bool = True
    allow: tuple[Mapping[str, str], ...] = ()

    def counts(self, reason: Reason) -> bool:
        """Tell whether a suspicion of this kind keeps an object back."""
        return bool(getattr(self, _SWITCH[reason])) if reason in _SWITCH else True

    def allows(self, facts: Mapping[str, tuple[str, ...]]) -> bool:
        """Tell whether one of the rules lets an object with these values pass."""
        return any(
            all(wanted.lower() in (value.lower() for value in facts[name]) for name, wanted in rule.items())
            for rule in self.allow
        )


@dataclass(frozen=True)
class Profile:
    """The basic profile with its options.

    Args:
        options: which options are on.
        labels: names of segments and regions that may stay, beside those made of the words of the vocabulary.
        quarantine: what is refused.
        whole_weeks: shift dates by multiples of seven days, so that the day of the week stays.

    Raises:
        UserError: full and modified dates are both on.

    Example:
        >>> profile = Profile(options=frozenset({Option.RETAIN_MODIFIED_DATES}))
        >>> profile.action(0x00080020), Profile().action(0x00080020), Profile().action(0x00280010)
        ('C', 'Z', '')
    """

    options: frozenset[Option] = frozenset()
    labels: tuple[str, ...] = ()
    quarantine: Quarantine = field(default_factory=Quarantine)
    whole_weeks: bool = False

    def __post_init__(self) -> None:
        if {Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES} <= self.options:
            raise UserError("profile", "wanted retain_full_dates or retain_modified_dates, got both; choose one")

    def action(self, tag: int) -> str:
        """Return the action for a tag: `K` keep, `C` clean, that of the basic profile, or `` where the table is silent.

        Where options disagree the stricter one, cleaning, wins.
        """
        row = find_row(tag)
        if row is None:
            return ""
        found = {row.options[option.column] for option in self.options if option.column in row.options}
        return "C" if "C" in found else "K" if "K" in found else row.action

    @property
    def codes(self) -> tuple[tuple[str, str], ...]:
        """Return the codes for De-identification Method Code Sequence, by number."""
        chosen = {option.code for option in self.options}
        if self.labels:
            chosen.add(Option.CLEAN_DESCRIPTORS.code)
        return (("113100", "Basic Application Confidentiality Profile"), *sorted(chosen))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for a manifest; `load_profile` reads them back from YAML."""
        switches = {name: getattr(self.quarantine, name) for name in _SWITCH.values()}
        return {
            "edition": EDITION,
            "options": sorted(option.value for option in self.options),
            "labels": list(self.labels),
            "quarantine": {**switches, "allow": [dict(rule) for rule in self.quarantine.allow]},
            "whole_weeks": self.whole_weeks,
        }

    @property
    def fingerprint(self) -> str:
        """Return what tells two profiles apart."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]


def load_profile(path: str | Path | None) -> Profile:
    """Read `profile.yaml`; None gives the basic profile without options.

    Raises:
        UserError: the file cannot be read, or holds a name or a value that is not known.
    """
    if path is None:
        return Profile()
    try:
        found = yaml.safe_load(Path(path).read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(path, f"wanted a readable YAML file, got {type(error).__name__}; correct the file") from None
    _check_keys(path, found, {"options", "labels", "quarantine", "whole_weeks", "edition"}, "profile")
    names = found.get("options") or []
    known = [option.value for option in Option]
    wrong = [str(name) for name in names if name not in known]
    if wrong:
        raise UserError(path, f"wanted options out of {', '.join(known)}, got {', '.join(wrong)}")
    return Profile(
        options=frozenset(Option(name) for name in names),
        labels=tuple(str(name) for name in found.get("labels") or ()),
        quarantine=_read_quarantine(path, found.get("quarantine") or {}),
        whole_weeks=bool(found.get("whole_weeks", False)),
    )


def _read_quarantine(path: str | Path, found: Any) -> Quarantine:
    switches = set(_SWITCH.values())
    _check_keys(path, found, switches | {"allow"}, "quarantine")
    wrong = [name for name in switches & set(found) if not isinstance(found[name], bool)]
    if wrong:
        raise UserError(path, f"wanted true or false for quarantine {wrong[0]}, got {found[wrong[0]]!r}")
    rules = []
    for rule in found.get("allow") or ():
        rule = {"modality": rule} if isinstance(rule, str) else rule
        _check_keys(path, rule, _RULE_KEYS, "allow rule")
        if not rule:
            raise UserError(
                path, "wanted at least one condition in an allow rule, got none: it would let everything pass"
            )
        rules.append({name: str(value) for name, value in rule.items()})
    return Quarantine(**{name: found[name] for name in sorted(switches & set(found))}, allow=tuple(rules))


def _check_keys(path: str | Path, found: Any, known: set[str], what: str) -> None:
    if not isinstance(found, Mapping):
        raise UserError(path, f"wanted a mapping for the {what}, got {type(found).__name__}")
    wrong = sorted(str(name) for name in found if name not in known)
    if wrong:
        raise UserError(path, f"wanted for the {what} only {', '.join(sorted(known))}, got {', '.join(wrong)}")
