"""Parts of the label app that need MONAI Label but no server: what `parts` found is judged here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.apps.label.server import label_environment, label_python

pytestmark = pytest.mark.xdist_group("label_parts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    words = [label_python(), "-m", "tests.apps.label.parts", str(folder)]
    ran = subprocess.run(words, env=label_environment(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_a_patient_is_a_pseudonym_and_no_patient_is_no_group(found: dict[str, Any], folder: Path) -> None:
    first, again = found["groups"]
    assert first == again, "the draw of the cases to hold out follows from the groups"
    assert first[0] == first[1] != first[2] == first[3]
    assert first[4:] == ["e", "f"]
    assert "SMITH" not in str(first)
    assert (folder / "groups" / "patients.key").stat().st_mode & 0o777 == 0o600


def test_labels_are_fetched_before_they_are_scored_and_one_bad_case_ends_nothing(found: dict[str, Any]) -> None:
    told = found["scores"]
    assert told["some"] == {"a": {"dice": 1.0, "of": "label.nii.gz"}}
    assert told["noted"] == ["a"]
    assert told["none"] == [400, "b: wanted its label, there is none that can be read"]


def test_an_answer_lists_the_labelled_cases_a_few_times_and_scores_again_after_a_correction(found: dict) -> None:
    asked = found["ranking"]["listed and scored"]
    assert [scored for _, scored in asked] == [2 * 16, 0, 2 * 16]
    assert max(listed for listed, _ in asked) <= 3, "an archive is asked each time"


def test_options_that_mean_nothing_are_told(found: dict) -> None:
    told = "candidates: wanted a whole number from 1 on, got "
    assert found["ranking"]["refused"] == [[400, told + value] for value in ("0", "-1", "'x'", "None")]
    assert found["share_held_out"] == [8, 2, "val_split: wanted a share below 1, such as 0.2, got None"]


def test_a_bundle_has_one_training_at_a_time(found: dict) -> None:
    during, after = found["two_at_once"]
    assert during == "genseg: wanted to train, a training of this bundle is running; stop it or wait for its end"
    assert "budget: wanted a time" in after
