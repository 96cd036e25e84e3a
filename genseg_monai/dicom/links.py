"""Which annotation speaks of which series, what its regions are called, and whose images they are: headers only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from genseg_monai.dicom.deidentify import complete
from genseg_monai.dicom.identity import MAX_DEPTH, find_identity
from genseg_monai.dicom.instance import quiet
from genseg_monai.dicom.profile import Profile
from genseg_monai.dicom.quarantine import Quarantined, Reason, suspect

__all__ = ["Annotation", "read_annotation", "read_owner"]

_SERIES, _REFERENCED, _FRAME = 0x0020000E, 0x00081155, 0x00200052


@dataclass(frozen=True)
class Annotation:
    """A SEG or an RTSTRUCT, as far as it says what it belongs to. Names are as the file has them.

    Attributes:
        path: the file.
        instance: its own UID.
        refers: the UIDs of series and instances it refers to.
        frame: UID of its frame of reference.
        names: of segments or regions.
    """

    path: Path
    instance: str
    refers: frozenset[str]
    frame: str
    names: tuple[str, ...]

    def speaks_of(self, uids: frozenset[str], frame: str) -> bool:
        """Tell whether it refers to one of the UIDs of a series; one that refers to none is judged by its frame."""
        return bool(self.refers & uids) if self.refers else bool(frame) and self.frame == frame


def read_annotation(path: Path) -> Annotation:
    """Read what a SEG or RTSTRUCT refers to.

    Raises:
        Quarantined: the header cannot be read.
    """
    dataset = _header(path)
    try:
        with quiet():
            found = list(_uids(dataset, 0))
            regions = dataset.get("SegmentSequence") or dataset.get("StructureSetROISequence") or ()
            names = tuple(str(item.get("SegmentLabel") or item.get("ROIName") or "") for item in regions)
            frames = [uid for tag, uid in found if tag == _FRAME]
            instance = str(dataset.get("SOPInstanceUID") or "")
    except Quarantined:
        raise
    except Exception:
        raise Quarantined(Reason.UNREADABLE) from None
    refers = frozenset(uid for tag, uid in found if tag != _FRAME) - {instance}
    return Annotation(path, instance, refers, frames[0] if frames else "", names)


def read_owner(paths: tuple[Path, ...], profile: Profile) -> str:
    """Return the original patient id of the files of a series.

    Raises:
        Quarantined: one of the files is suspected, cannot be read, or they belong to several patients.
    """
    owners = set()
    for path in paths:
        header = complete(_header(path))
        try:
            with quiet():
                reason = suspect(header, profile)
                owners.add(find_identity(header).patient)
        except Quarantined:
            raise
        except Exception:
            raise Quarantined(Reason.UNREADABLE) from None
        if reason is not None:
            raise Quarantined(reason)
    if len(owners) != 1:
        raise Quarantined(Reason.BAD_UID)
    return owners.pop()


def _header(path: Path) -> Dataset:
    try:
        with quiet():
            return dcmread(path, stop_before_pixels=True, force=True)
    except RecursionError:
        raise Quarantined(Reason.TOO_DEEP) from None
    except MemoryError:
        raise Quarantined(Reason.TOO_LARGE) from None
    except Exception:
        raise Quarantined(Reason.UNREADABLE) from None


def _uids(dataset: Dataset, depth: int) -> Iterator[tuple[int, str]]:
    """Yield series inside sequences, referenced instances, and frames of reference, wherever they stand."""
    if depth > MAX_DEPTH:
        raise Quarantined(Reason.TOO_DEEP)
    for tag in sorted(dataset.keys()):
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement) and element.VR not in ("SQ", "UI", "UN", None):
            continue
        if tag in (_REFERENCED, _FRAME) or (tag == _SERIES and depth):
            yield int(tag), str(dataset[tag].value or "").strip("\0 ")
        elif dataset[tag].VR == "SQ":
            for item in dataset[tag].value or ():
                yield from _uids(item, depth + 1)
