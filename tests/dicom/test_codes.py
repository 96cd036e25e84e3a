"""What classes mean in a DICOM SEG, as a user says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genseg_monai.dicom.codes import Code, load_codes, meaning_of
from genseg_monai.errors import UserError


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "codes.yaml"
    path.write_text(
        "liver tumour:\n  category: 49755003 SCT Morphologically Altered Structure\n  type: 4147007 SCT Mass\n"
        "  region: 10200004 SCT Liver\n  colour: [255, 128, 0]\nduct: {type: 245399007 SCT Bile duct}\n"
    )
    codes = load_codes(path, ["liver tumour", "duct", "liver"])
    assert codes["liver tumour"].category == Code("49755003", "SCT", "Morphologically Altered Structure")
    assert codes["liver tumour"].type == Code("4147007", "SCT", "Mass")
    assert codes["liver tumour"].region == Code("10200004", "SCT", "Liver")
    assert codes["liver tumour"].colour == (255, 128, 0)
    assert codes["duct"].category.meaning == "Anatomical Structure"
    assert "liver" not in codes
    assert meaning_of("duct").type.scheme == "99GENSEG"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, "wanted classes with codes"),
        ([1], "wanted classes with codes"),
        ({"kidney": {"type": "64033007 SCT Kidney"}}, r"wanted classes of the bundle \(liver\), got kidney"),
        ({"liver": "10200004 SCT Liver"}, "wanted type, and"),
        ({"liver": {"category": "123037004 SCT Anatomical Structure"}}, "wanted type, and"),
        ({"liver": {"type": "10200004 SCT Liver", "color": [1, 2, 3]}}, "wanted type, and"),
        ({"liver": {"type": "10200004"}}, "wanted value, scheme and meaning for liver: type"),
        ({"liver": {"type": "1" * 17 + " SCT Liver"}}, "wanted value, scheme and meaning"),
        ({"liver": {"type": "10200004 SCT Liver", "colour": [1, 2, 256]}}, "from 0 to 255"),
        ({"liver": {"type": "10200004 SCT Liver", "colour": "red"}}, "from 0 to 255"),
    ],
)
def test_faults_are_told(said: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_codes(said, ["liver"])


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="FileNotFoundError"):
        load_codes(tmp_path / "none.yaml", ["liver"])
    (tmp_path / "broken.yaml").write_text("liver: [")
    with pytest.raises(UserError, match="wanted a readable YAML file"):
        load_codes(tmp_path / "broken.yaml", ["liver"])
