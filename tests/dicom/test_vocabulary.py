from __future__ import annotations

import pytest

from genseg_monai.dicom.vocabulary import clean_code, clean_text, is_term, withhold


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Liver portal venous 3mm", "Liver portal venous 3mm"),
        ("CT abdomen, Mrs Smith-Jones, 555-1234", "CT abdomen"),
        ("Jane Doe", ""),
        ("12.03.1950", ""),
        ("19500312", ""),
        ("room 12 for of", ""),
        ("B30f T2w L4-L5 120kV 0.625mm", "B30f T2w L4-L5 120kV 0.625mm"),
        ("SIEMENS Healthineers", "SIEMENS Healthineers"),
        ("left-lung/right lung", "left-lung right lung"),
        ("X9999999", ""),
        ("", ""),
    ],
)
def test_only_known_words_and_technical_numbers_stay(text, kept):
    assert clean_text(text) == kept


def test_banned_words_go_though_known_and_allowed_names_stay_though_unknown():
    assert clean_text("Liver of Brain", banned={"brain"}) == "Liver of"
    assert clean_text("Läsion  7b", allowed={"läsion 7b"}) == "Läsion 7b"
    assert clean_text("Läsion 7b Doe", allowed={"läsion 7b"}) == ""


@pytest.mark.parametrize(
    ("value", "known"), [("ORIGINAL", True), ("MIXED_SIGNAL", True), ("DOE_JANE", False), ("12345", False)]
)
def test_coded_strings_are_terms_or_nothing(value, known):
    assert is_term(value) is known


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        (("10200004", "SCT", "Liver"), ("10200004", "SCT", "Liver")),
        (("10200004", "SCT", "Liver of Doe"), ("10200004", "SCT", "Liver of")),
        (("mm", "UCUM", "mm"), ("mm", "UCUM", "mm")),
        (("Doe", "UCUM", "Doe"), ("REMOVED", "99GENSEG", "removed")),
        (("DOE", "SCT", "Liver"), ("REMOVED", "99GENSEG", "removed")),
        (("10200004", "99DOE", "Liver"), ("REMOVED", "99GENSEG", "removed")),
    ],
)
def test_codes_of_public_schemes_stay(code, kept):
    assert clean_code(*code) == kept


def test_a_code_that_is_an_id_goes():
    assert clean_code("84736251", "SCT", "Liver", banned={"84736251"})[1] == "99GENSEG"


def test_names_are_withheld_unless_known():
    assert withhold("Left  Lung", "ABCDEFGHIJ") == "Left Lung"
    assert withhold("Doe 1", "ABCDEFGHIJ") == "[withheld ABCDEFGH]"
    assert withhold("Doe 1", "ABCDEFGHIJ", allowed={"doe 1"}) == "Doe 1"
