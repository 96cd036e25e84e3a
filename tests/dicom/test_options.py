"""Each option of the profile, and each row of the table."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from genseg_monai.dicom.deidentify import Deidentifier, encode
from genseg_monai.dicom.profile import Option, Profile, load_profile
from genseg_monai.dicom.table import find_row, load_table, make_table
from genseg_monai.dicom.uids import Key
from genseg_monai.errors import UserError

KEY = Key(bytes(range(32)))
_TEXT = "ZZPHI"
_VALUES = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "PN"), _TEXT),
    **dict.fromkeys(("US", "SS", "UL", "SL", "FL", "FD"), 4711),
    **dict.fromkeys(("OB", "OW", "UN", "OF", "OD", "OL"), _TEXT.encode() + b"\0\0\0"),
    "AS": "077Y",
    "DA": "20240229",
    "DT": "20240229101112",
    "TM": "101112",
    "DS": "47.11",
    "IS": "47110",
    "UI": "1.2.826.0.1.3680043.10.511.7",
    "UR": "http://zzphi.example",
}


def full_object():
    """Return an image that holds every attribute of the table."""
    image = Dataset()
    for name in load_table():
        if not set(name) <= set("0123456789abcdef") or name.startswith(("0000", "0002", "0004")):
            continue
        tag, vr = int(name, 16), dictionary_VR(int(name, 16))
        if vr == "SQ":
            item = Dataset()
            item.PatientName, item.CodeValue = f"{_TEXT}^Nested", _TEXT
            image.add(DataElement(tag, vr, Sequence([item])))
        else:
            image.add(DataElement(tag, vr, _VALUES[vr.split(" or ")[0]]))
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = "1.2.4", "1.2.4.1", "CT"
    return image


def apply(*options, image=None, **settings):
    image = full_object() if image is None else image
    return Deidentifier(Profile(options=frozenset(options), **settings), KEY).apply(image)


def test_every_row_of_the_table_is_honoured():
    before, after = full_object(), apply()
    wrong = []
    for element in before:
        row = find_row(element.tag)
        if row is None or element.keyword in ("PatientID", "DeidentificationMethod"):
            continue
        now = after.get(element.tag)
        gone, empty = now is None, now is not None and not now.value and now.VM == 0
        changed = not gone and now.value != element.value
        fits = {
            "X": gone,
            "Z": empty or (element.VR == "SQ" and not gone and len(now.value) == 0) or (not gone and now.value == ""),
            "D": changed,
            "U": changed,
        }
        allowed = row.action.replace("*", "").split("/")
        if not any(fits[action] for action in allowed):
            wrong.append((element.keyword, row.action, repr(now)))
    assert not wrong
    assert b"zzphi" not in encode(after).lower()


@pytest.mark.parametrize("option", list(Option))
def test_every_row_of_an_option_is_honoured(option):
    """K keeps the value; C leaves nothing that is not cleaned; rows the option does not name are as without it."""
    before, plain, after = full_object(), apply(), apply(option)
    for element in before:
        row, tag = find_row(element.tag), element.tag
        if row is None or element.VR == "SQ" or element.keyword == "PatientID":
            continue
        action = row.options.get(option.column)
        if action is None:
            assert after.get(tag) == plain.get(tag), element.keyword
        elif action == "K" and element.VR not in ("OB", "UN"):
            kept = after[tag].value
            named = element.VR in ("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT")  # ZZPHI is a name in this object
            assert kept == element.value or (named and _TEXT not in str(kept)), element.keyword
    assert b"zzphi" not in encode(after).lower()


def test_retain_uids_keeps_them():
    made = apply(Option.RETAIN_UIDS)
    assert made.SOPInstanceUID == "1.2.3"
    assert made.DeviceUID == _VALUES["UI"] or made.DeviceUID.startswith("2.25.")


def test_retain_device_identity_keeps_what_names_no_person():
    image = Dataset()
    image.update(full_object())
    image.StationName, image.DeviceSerialNumber = "ROOM 4", "SN 12"
    made = apply(Option.RETAIN_DEVICE_IDENTITY, image=image)
    assert (made.StationName, made.DeviceSerialNumber) == ("ROOM 4", "SN 12")


def test_retain_patient_characteristics():
    image = full_object()
    image.PatientSex, image.PatientAge, image.PatientWeight = "F", "093Y", "61.5"
    made = apply(Option.RETAIN_PATIENT_CHARACTERISTICS, image=image)
    assert (made.PatientSex, made.PatientAge, float(made.PatientWeight)) == ("F", "090Y", 61.5)
    plain = apply(image=image)
    assert plain.PatientSex == ""
    assert "PatientAge" not in plain


def test_full_dates_stay_and_modified_dates_move_together():
    image = full_object()
    image.StudyDate, image.SeriesDate, image.AcquisitionDateTime = "20240301", "20240304", "202403041011"
    full = apply(Option.RETAIN_FULL_DATES, image=image)
    assert (full.StudyDate, full.SeriesDate) == ("20240301", "20240304")
    moved = apply(Option.RETAIN_MODIFIED_DATES, image=image)
    assert moved.StudyDate != "20240301"
    days = (_day(moved.SeriesDate) - _day(moved.StudyDate)).days
    assert days == 3
    assert moved.AcquisitionDateTime[:8] == moved.SeriesDate
    assert 1 <= (_day("20240301") - _day(moved.StudyDate)).days <= 365
    assert moved.StudyTime == "101112"
    assert moved.PatientBirthDate == ""
    weeks = apply(Option.RETAIN_MODIFIED_DATES, image=image, whole_weeks=True)
    assert (_day("20240301") - _day(weeks.StudyDate)).days % 7 == 0


def test_the_shift_is_the_patients():
    shifts = set()
    for number in range(20):
        image = full_object()
        image.PatientID, image.StudyDate = f"patient {number}", "20240301"
        shifts.add(apply(Option.RETAIN_MODIFIED_DATES, image=image).StudyDate)
    assert len(shifts) > 10


def test_clean_descriptors_keeps_known_words_only():
    image = full_object()
    image.SeriesDescription, image.StudyDescription = "Liver portal 3mm Dr House", "for Mrs Doe"
    made = apply(Option.CLEAN_DESCRIPTORS, image=image)
    assert made.SeriesDescription == "Liver portal 3mm"
    assert made.StudyDescription in ("", "REMOVED")


def test_clean_graphics_keeps_regions_without_words():
    image = full_object()
    for group, kind in ((0x6000, "R"), (0x6002, "G")):
        image.add_new((group, 0x0010), "US", 4)
        image.add_new((group, 0x0040), "CS", kind)
        image.add_new((group, 0x0022), "LO", _TEXT)
        image.add_new((group, 0x3000), "OW", b"\x0f\0")
    text = Dataset()
    text.UnformattedTextValue = _TEXT
    graphic = Dataset()
    graphic.TextObjectSequence = [text]
    graphic.GraphicLayer = "NONE"
    image.GraphicAnnotationSequence = [graphic]
    made = apply(Option.CLEAN_GRAPHICS, image=image)
    assert made[0x6000, 0x3000].value == b"\x0f\0"
    assert (0x6000, 0x0022) not in made
    assert (0x6002, 0x3000) not in made
    assert "TextObjectSequence" not in made.GraphicAnnotationSequence[0]
    assert b"zzphi" not in encode(made).lower()
    assert not [element for element in apply(image=image) if element.tag.group >> 8 == 0x60]


def test_safe_private_agrees_with_the_dictionary() -> None:
    """Names and representations are those of pydicom's private dictionary, as far as it knows them."""
    from pydicom._private_dict import private_dictionaries

    from genseg_monai.dicom.private import _SAFE

    known = 0
    for (creator, group, element), vr in _SAFE.items():
        held = {key.lower(): entry for key, entry in private_dictionaries[creator].items()}
        if (found := held.get(f"{group:04x}xx{element:02x}")) is not None:
            assert found[0] == vr
            known += 1
    assert known >= len(_SAFE) - 1
    assert ("ELSCINT1", 0x01E1, 0x50) not in _SAFE


def test_retain_safe_private_keeps_numbers_of_known_blocks():
    image = full_object()
    block = image.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "1.5")
    block.add_new(0x03, "ST", _TEXT)
    block.add_new(0x09, "DS", "2.5")
    image.private_block(0x0009, "UNKNOWN MAKER", create=True).add_new(0x01, "DS", "3.5")
    made = apply(Option.RETAIN_SAFE_PRIVATE, image=image)
    kept = [element.tag for element in made if element.tag.is_private]
    assert kept == [0x70530010, 0x70531000, 0x70531009]
    assert not [element for element in apply(image=image) if element.tag.is_private]


def test_the_profile_is_read_from_yaml(tmp_path):
    path = tmp_path / "profile.yaml"
    path.write_text(
        "options: [retain_modified_dates, clean_descriptors]\nlabels: [liver]\n"
        "quarantine: {burned_in: true, faces: false, allow: [US, {modality: CT, body_part: HEAD}]}\n"
    )
    profile = load_profile(path)
    assert profile.options == {Option.RETAIN_MODIFIED_DATES, Option.CLEAN_DESCRIPTORS}
    assert not profile.quarantine.faces
    assert profile.quarantine.allow == ({"modality": "US"}, {"modality": "CT", "body_part": "HEAD"})
    assert profile.fingerprint != Profile().fingerprint


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("options: [keep_all]", "keep_all"),
        ("option: []", "option"),
        ("quarantine: {allow: [{}]}", "at least one condition"),
        ("quarantine: {faces: maybe}", "true or false"),
        ("options: [retain_full_dates, retain_modified_dates]", "both"),
        ("[", "readable YAML"),
        ("- 1", "mapping"),
    ],
)
def test_a_wrong_profile_is_refused(tmp_path, text, match):
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=match):
        load_profile(path)


def test_the_table_is_the_one_of_the_standard(real_data):
    source = real_data / "ps3_15" / "confidentiality_profile_attributes.json"
    shipped = subprocess.run(
        [sys.executable, "-m", "genseg_monai.dicom.table", source], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert shipped == list(make_table(json.loads(source.read_text())))
    assert len(load_table()) == len(shipped) - 2 == 621


def test_ranges_of_tags_are_found():
    assert find_row(0x60023000) == find_row(0x60003000)
    assert find_row(0x50201000).action == "X"
    assert find_row(0x00091001).options == {"private": "C"}
    assert find_row(0x00280010) is None
    assert keyword_for_tag(0x00280010) == "Rows"


def _day(text):
    from datetime import datetime

    return datetime.strptime(text, "%Y%m%d")
