"""A word planted in every attribute the standard knows, whether the table of PS3.15 lists it or not."""

from __future__ import annotations

import pytest
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from genseg_monai.dicom.deidentify import Deidentifier, encode
from genseg_monai.dicom.instance import quiet
from genseg_monai.dicom.profile import Option, Profile
from genseg_monai.dicom.uids import Key

# in no name and no id of the object: the engine cannot know it, only the rules for each attribute can stop it
WORD = "QXVORNAME"
_VALUES = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT"), WORD),
    **dict.fromkeys(("OB", "OW", "UN", "OF", "OD", "OL", "OV"), WORD.encode() + bytes(7)),
    "UR": f"http://{WORD}",
    "PN": "Other^Jane",
    "AS": WORD[:4],
    "DA": WORD[:8],
    "DT": WORD,
    "TM": WORD,
    "UI": f"1.2.{WORD}",
    "DS": WORD,
    "IS": WORD,
}
_KEPT = {Option.RETAIN_DEVICE_IDENTITY, Option.RETAIN_PATIENT_CHARACTERISTICS}  # keep texts as they are, by the table


def _object(depth):
    """Return an object with every attribute, and one with every attribute in an item of a sequence."""
    image = Dataset()
    for tag, (vr, *_rest) in DicomDictionary.items():
        kind = vr.split(" or ")[0]
        if (
            tag >> 16 <= 7
            or (tag & 0xFFFF) == 0
            or kind not in _VALUES
            or tag == 0x00080005
            or (tag == 0x7FE00010 and not depth)
        ):
            continue
        element = DataElement(tag, kind, None)
        element._value = _VALUES[kind]  # as a file might hold it; pydicom would refuse some of these
        image[tag] = element
    if depth:
        image.PatientName = image.PatientID = ""
        outer = Dataset()
        outer.add(DataElement(0x00081140, "SQ", Sequence([image])))
        image = outer
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = "1.2.4", "1.2.4.1", "CT"
    image.ImageType, image.BurnedInAnnotation = ["ORIGINAL", "PRIMARY"], "NO"
    image.PatientID = "4711"
    for keyword in ("FloatPixelData", "DoubleFloatPixelData"):
        if keyword in image:
            del image[keyword]
    return image


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("options", [(), tuple(sorted(set(Option) - {Option.RETAIN_FULL_DATES} - _KEPT))])
def test_a_word_in_every_attribute_is_gone(options, depth):
    with quiet():
        made = Deidentifier(Profile(options=frozenset(options)), Key(bytes(32))).apply(_object(depth))
        content = encode(made)
    assert WORD.encode() not in content
    assert WORD[:8].encode() not in content, made
    assert WORD.lower().encode() not in content.lower()
