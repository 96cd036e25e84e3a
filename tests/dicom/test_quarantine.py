from __future__ import annotations

import copy

import pytest
from pydicom.dataset import Dataset

from genseg_monai.dicom.deidentify import Deidentifier
from genseg_monai.dicom.profile import Profile, Quarantine
from genseg_monai.dicom.quarantine import Quarantined, Reason, suspect
from genseg_monai.dicom.uids import Key

CT, MR, US = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.6.1"
CAPTURE, REPORT = "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.88.11"


def _image(kind=CT, modality="CT", **values):
    image = Dataset()
    image.SOPClassUID, image.Modality = kind, modality
    for keyword, value in values.items():
        setattr(image, keyword, value)
    return image


def _coded(value, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


SUSPECTED = [
    (_image(BurnedInAnnotation="YES"), Reason.BURNED_IN, "burned_in"),
    (_image(US, "US"), Reason.BURNED_IN, "burned_in"),
    (_image(CAPTURE, "CT"), Reason.SCREENSHOT, "screenshots"),
    (_image(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), Reason.SCREENSHOT, "screenshots"),
    (_image(REPORT, "SR"), Reason.DOCUMENT, "documents"),
    (_image(BodyPartExamined="HEAD"), Reason.FACE, "faces"),
    (_image(MR, "MR", SeriesDescription="t1_mprage_sag"), Reason.FACE, "faces"),
    (_image(MR, "MR", ProtocolName="Neurocranium"), Reason.FACE, "faces"),
    (_image(AnatomicRegionSequence=[_coded("69536005", "part")]), Reason.FACE, "faces"),
]


@pytest.mark.parametrize(("image", "reason", "switch"), SUSPECTED)
def test_what_is_suspected_is_refused_unless_the_switch_is_off(image, reason, switch):
    assert suspect(image, Profile()) is reason
    assert suspect(image, Profile(quarantine=Quarantine(**{switch: False}))) is None


@pytest.mark.parametrize(
    "image",
    [
        _image(),
        _image(BodyPartExamined="ABDOMEN", SeriesDescription="Liver portal"),
        _image("1.2.840.10008.5.1.4.1.1.66.4", "SEG", SeriesDescription="brain"),
        _image("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"),
        _image(BurnedInAnnotation="NO"),
    ],
)
def test_what_is_not_suspected_passes(image):
    assert suspect(image, Profile()) is None


@pytest.mark.parametrize(
    ("rule", "passes"),
    [
        ({"modality": "us"}, True),
        ({"modality": "CT"}, False),
        ({"modality": "US", "manufacturer": "Philips"}, True),
        ({"modality": "US", "manufacturer": "Other"}, False),
        ({"sop_class": US}, True),
        ({"image_type": "ORIGINAL"}, True),
    ],
)
def test_a_rule_lets_pass_what_fits_all_of_it(rule, passes):
    image = _image(US, "US", Manufacturer="PHILIPS", ImageType=["ORIGINAL", "PRIMARY"])
    assert (suspect(image, Profile(quarantine=Quarantine(allow=(rule,)))) is None) is passes


@pytest.mark.parametrize("kind", ["", "1.3.12.2.1107.5.9.1", "../../x"])
def test_no_rule_lets_an_unknown_class_pass(kind):
    image = Dataset()
    image.Modality = "CT"
    image.add_new("SOPClassUID", "LO", kind)  # not UI: pydicom would warn of the value
    assert suspect(image, Profile(quarantine=Quarantine(allow=({"modality": "CT"},)))) is Reason.BAD_UID


def test_a_dicomdir_is_no_object():
    assert suspect(_image("1.2.840.10008.1.3.10"), Profile()) is Reason.DIRECTORY


def test_the_error_names_the_reason_and_nothing_else():
    with pytest.raises(Quarantined) as caught:
        Deidentifier(Profile(), Key(bytes(32))).apply(_image(BurnedInAnnotation="YES", PatientName="Doe^Jane"))
    assert "burned_in" in str(caught.value)
    assert "Doe" not in repr(caught.value)
    again = copy.copy(caught.value)  # as pickling does, to leave a worker process
    assert again.reason is Reason.BURNED_IN
    assert str(again) == str(caught.value)
