"""Rules of all kinds, and what their file may say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from genseg_monai.errors import UserError
from genseg_monai.pacs.records import InstanceRecord, Query, SeriesRecord, matches_text
from genseg_monai.pacs.rules import Rules, best_of, load_rules, orientation_of

SERIES = SeriesRecord("1.1", "1.2", "CT", "Liver Portal 3mm", 60, 4)
FACTS = {
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "SliceThickness": "2.5",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "ContrastBolusAgent": "Iohexol 300",
    "NumberOfFrames": "1",
}


def rules(tmp_path: Path, text: str) -> Rules:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    return load_rules(path)


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ("{modality: CT}", True),
        ("{modality: MR}", False),
        ("{orientation: axial}", True),
        ("{orientation: coronal}", False),
        ("{thickness: [0, 3]}", True),
        ("{thickness: [3, 9]}", False),
        ('{description: "/portal/i"}', True),
        ('{description: "/portal/"}', False),
        ('{description: "*portal*"}', True),
        ("{image_type: ORIGINAL}", True),
        ("{image_type: [original, AXIAL]}", True),
        ("{image_type: DERIVED}", False),
        ("{slices: [20, 2000]}", True),
        ("{slices: [61, 2000]}", False),
        ("{contrast: '*'}", True),
        ("{contrast: '/iohex/i'}", True),
        ("{contrast: ''}", False),
        ("{modality: CT, thickness: [0, 3], description: '*portal*'}", True),
        ("{modality: CT, thickness: [0, 2]}", False),
    ],
)
def test_each_condition(tmp_path: Path, rule: str, fits: bool) -> None:
    assert rules(tmp_path, f"all: [{rule}]").decide(SERIES, FACTS) is fits


@pytest.mark.parametrize(
    ("text", "known", "open_", "final"),
    [
        ("any: [{modality: MR}, {modality: CT}]", True, True, True),
        ("all: [{modality: MR}, {modality: CT}]", False, False, False),
        ("any: [{modality: CT}, {thickness: [0, 1]}]", True, True, True),
        ("all: [{modality: CT}, {thickness: [0, 3]}]", True, None, False),
        ("any: [{modality: MR}, {all: [{modality: CT}, {orientation: axial}]}]", True, None, False),
        ("all: [{contrast: ''}]", False, None, True),
    ],
)
def test_any_all_and_what_is_not_known(tmp_path: Path, text: str, known: bool, open_: bool | None, final: bool) -> None:
    made = rules(tmp_path, text)
    assert made.decide(SERIES, FACTS) is known
    assert made.decide(SERIES, {}) is open_
    assert made.decide(SERIES, {}, final=True) is final


def test_most_slices_win() -> None:
    more = replace(SERIES, series_uid="1.3", count=90)
    same = replace(SERIES, series_uid="1.4", count=90, number=2)
    other = replace(SERIES, study_uid="1.9", series_uid="1.5", count=1)
    assert best_of([SERIES, more, same, other], "best") == [same, other]
    assert best_of([SERIES, more, same, other], "all") == [same, more, SERIES, other]


def test_frames_count_as_slices(tmp_path: Path) -> None:
    """One enhanced object of 300 frames is more than a scout of three images."""
    held = tuple(InstanceRecord(f"1.2.3.{n}", "1.2.840.10008.5.1.4.1.1.2") for n in range(3))
    scout = replace(SERIES, count=3, instances=held)
    enhanced = replace(SERIES, series_uid="1.3", instances=(InstanceRecord("1.2.4", "1.2.840.10008.5.1.4.1.1.2.1"),))
    thick = rules(tmp_path, "all: [{slices: [20, 2000]}]")
    assert thick.decide(scout, {}) is False
    assert thick.decide(replace(scout, instances=()), {}) is None  # may turn out to be enhanced
    assert thick.decide(enhanced, {}) is None
    assert thick.decide(enhanced, {"NumberOfFrames": "300"}) is True
    assert thick.decide(enhanced, {"NumberOfFrames": "3000"}) is False
    assert best_of([scout, replace(enhanced, facts={"NumberOfFrames": "300"})], "best")[0].series_uid == "1.3"


def test_without_a_file_everything_fits() -> None:
    made = load_rules(None)
    assert made.decide(SERIES, {}) is True
    assert made.keep == "all"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{modality: CT}", "under any: or all:"),
        ("any: []", "not empty"),
        ("any: {modality: CT}", "with a list"),
        ("all: [{modalty: CT}]", "got also modalty"),
        ("all: [{}]", "at least one condition"),
        ("all: [{orientation: diagonal}]", "axial, coronal"),
        ("all: [{thickness: 3}]", r"\[from, to\]"),
        ("all: [{slices: [9, 1]}]", r"\[from, to\]"),
        ("all: [{modality: 3}]", "wanted a text"),
        ("all: [{description: '/(/'}]", "regular expression"),
        ("keep: most\nall: [{modality: CT}]", "best or all"),
        ("{", "readable YAML"),
    ],
)
def test_faults_of_the_file(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        rules(tmp_path, text)


@pytest.mark.parametrize(
    ("cosines", "plane"),
    [
        ([1, 0, 0, 0, 1, 0], "axial"),
        ([1, 0, 0, 0, 0, -1], "coronal"),
        ([0, 1, 0, 0, 0, -1], "sagittal"),
        ([0.7071, 0.7071, 0, 0, 0, -1], "oblique"),
        ([1, 0, 0, 0, 0.94, 0.34], "axial"),
        ([0, 0, 0, 0, 0, 0], None),
        (["x"] * 6, None),
        ([1, 0, 0], None),
        (["nan"] * 6, None),
    ],
)
def test_orientation(cosines: list, plane: str | None) -> None:
    assert orientation_of(cosines) == plane


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "at least one"),
        ({"study_uid": ("../../etc/passwd",)}, "digits and points"),
        ({"patient_id": ("*",)}, "whole identifiers"),
        ({"accession": ("A\\B",)}, "whole identifiers"),
        ({"date": "yesterday"}, "YYYYMMDD"),
        ({"date": "20241399"}, "days of the calendar"),
        ({"date": "20240101-20240230"}, "days of the calendar"),
        ({"date": "20241231-20240101"}, "earlier one first"),
        ({"date": "20240101", "modality": ("ct",)}, "in capitals"),
        ({"date": "20240101", "description": "/(/"}, "regular expression"),
    ],
)
def test_queries_that_ask_for_too_much_or_nonsense(wrong: dict, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        Query(**wrong)
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize("date", ["", "20240229", "20240229-", "-20240229", "20240101-20240101"])
def test_days_and_ranges(date: str) -> None:
    assert Query(patient_id=("P",), date=date).date == date


def test_identifiers_stay_as_typed() -> None:
    assert Query(patient_id=("1E5", "1_000", "12#3", "None")).patient_id == ("1E5", "1_000", "12#3", "None")


def test_text_of_any_kind() -> None:
    assert not matches_text("portal", "Liver portal")
    assert matches_text("liver portal", "Liver portal")
