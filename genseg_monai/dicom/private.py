"""Private attributes that the standard calls safe (PS3.15 Table E.3.10-1), as far as they are plain numbers.

Only these stay under Retain Safe Private; text is never kept, whatever the table says of it. The list is a part of the
table: each entry was found alike in a second source, the list of safe attributes in PixelMed's
`ClinicalTrialsAttributes`, and has the representation that pydicom's private dictionary gives it, where that has one.
Others of the table (diffusion b values, mammography, ultrasound) are left out, and so are removed.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from genseg_monai.dicom.values import WIDTHS, is_number

__all__ = ["safe_private"]

# (private creator, group, element within the block) -> value representation
_SAFE = {
    ("Philips PET Private Group", 0x7053, 0x00): "DS",  # SUV factor
    ("Philips PET Private Group", 0x7053, 0x09): "DS",  # activity concentration factor
    ("ELSCINT1", 0x00E1, 0x21): "DS",  # dose length product
    ("ELSCINT1", 0x00E1, 0x50): "DS",  # acquisition duration
    ("ELSCINT1", 0x01F1, 0x07): "DS",  # table velocity
    ("ELSCINT1", 0x01F1, 0x26): "DS",  # pitch
    ("ELSCINT1", 0x01F1, 0x27): "DS",  # rotation time
    ("GEMS_ACQU_01", 0x0019, 0x23): "DS",  # table speed
    ("GEMS_ACQU_01", 0x0019, 0x24): "DS",  # mid scan time
    ("GEMS_ACQU_01", 0x0019, 0x27): "DS",  # rotation speed
    ("GEMS_SERS_01", 0x0025, 0x07): "SL",  # images in series
    ("GEMS_HELIOS_01", 0x0045, 0x01): "SS",  # number of macro rows in the detector
    ("GEMS_HELIOS_01", 0x0045, 0x02): "FL",  # macro width at the isocentre
    ("Philips MR Imaging DD 001", 0x2005, 0x0D): "FL",  # scale intercept
    ("Philips MR Imaging DD 001", 0x2005, 0x0E): "FL",  # scale slope
}


def safe_private(dataset: Dataset) -> Iterator[DataElement | RawDataElement]:
    """Yield the safe private elements of a data set, each block's creator first."""
    named: set[int] = set()
    for tag in sorted(dataset.keys()):
        if not tag.is_private or tag.element <= 0xFF:
            continue
        place = (tag.group << 16) | (tag.element >> 8)
        creator = _creator(dataset, place)
        vr = _SAFE.get((creator, tag.group, tag.element & 0xFF))
        element = dataset.get_item(tag)
        if vr is None or not isinstance(element, (DataElement, RawDataElement)) or not _is_plain(element, vr):
            continue
        if place not in named:
            named.add(place)
            yield DataElement(place, "LO", creator)
        yield element._replace(VR=vr) if isinstance(element, RawDataElement) else element


def _creator(dataset: Dataset, place: int) -> str:
    value = dataset.get_item(place).value if place in dataset else ""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ")


def _is_plain(element: DataElement | RawDataElement, vr: str) -> bool:
    """Tell whether a value is numbers of the expected representation; a file may have lost it (UN) or tell another."""
    if element.VR not in (vr, "UN", None):
        return False
    value = element.value
    if not isinstance(element, RawDataElement):
        return vr == element.VR
    if not isinstance(value, bytes) or len(value) > 512:
        return False
    if vr in WIDTHS:
        return len(value) % WIDTHS[vr] == 0
    return is_number(value.decode("ascii", "replace"))
