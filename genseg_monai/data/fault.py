"""One thing that is wrong with a data set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from genseg_monai.errors import UserError

__all__ = ["Fault", "FaultKind", "Severity", "fault"]


class FaultKind(StrEnum):
    """What may be wrong."""

    LAYOUT = "layout"
    UNPAIRED = "unpaired"
    UNREADABLE = "unreadable"
    SIZE = "size"
    PLACE = "place"
    EMPTY_MASK = "empty mask"
    LABEL_VALUES = "label values"
    CHANNELS = "channels"
    CONSTANT = "constant image"
    DUPLICATE = "duplicate"
    NAME = "name"
    SPLITS = "splits"
    TOO_FEW = "too few"


class Severity(StrEnum):
    """Whether training refuses it or goes on."""

    ERROR = "error"
    WARNING = "warning"


_WARNINGS = frozenset({FaultKind.EMPTY_MASK, FaultKind.DUPLICATE, FaultKind.CHANNELS, FaultKind.CONSTANT})


@dataclass(frozen=True)
class Fault:
    """One thing to mend.

    Attributes:
        kind: what it is.
        where: the file, or the data set.
        message: what was wanted, what came, what to do.
        severity: `error` where training refuses, `warning` where it goes on.
    """

    kind: FaultKind
    where: str
    message: str
    severity: Severity

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.severity}: {UserError(self.where, self.message)}"


def fault(kind: FaultKind, where: object, message: str, severity: Severity | None = None) -> Fault:
    """Make a fault; its severity is that of its kind unless given."""
    return Fault(kind, str(where), message, severity or (Severity.WARNING if kind in _WARNINGS else Severity.ERROR))
