"""What the parts of the label app do without a server, as JSON: run by MONAI Label's Python for test_parts.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genseg_monai._outcome import one_line
from genseg_monai.apps.label.training import GenSegTraining

SHIPPED = Path(__file__).parents[3] / "bundle"


class Archived:
    """A datastore of labelled images that an archive tells something of."""

    def __init__(self, told: dict[str, dict[str, str]]) -> None:
        self.told = told

    def datalist(self) -> list[dict[str, str]]:
        return [{"image": f"{name}.nii.gz", "label": f"labels/{name}.nii.gz"} for name in self.told]

    def get_image_info(self, name: str) -> dict[str, str]:
        return self.told[name]


def groups(folder: Path) -> Any:
    """Return the groups of cases: two of one patient, two of a study without a patient, two of nobody; twice."""
    told = {
        "a": {"PatientID": "MRN-1-SMITH", "StudyInstanceUID": "1.1"},
        "b": {"PatientID": "MRN-1-SMITH", "StudyInstanceUID": "1.2"},
        "c": {"PatientID": "UNK", "StudyInstanceUID": "1.3"},
        "d": {"PatientID": "", "StudyInstanceUID": "1.3"},
        "e": {"PatientID": "UNK", "StudyInstanceUID": "UNK"},
        "f": {},
    }
    trainings = [GenSegTraining(SHIPPED, {}, folder) for _ in range(2)]
    return [
        [case["group"] for case in training._fetch_datalist({"model": "genseg"}, Archived(told))]
        for training in trainings
    ]


PARTS: list[Callable[[Path], Any]] = [groups]

if __name__ == "__main__":
    found = {}
    for part in PARTS:
        place = Path(sys.argv[1]) / part.__name__
        place.mkdir()
        try:
            found[part.__name__] = part(place)
        except Exception as error:
            found[part.__name__] = f"raised {one_line(error)}"
    sys.stdout.write(json.dumps(found))
