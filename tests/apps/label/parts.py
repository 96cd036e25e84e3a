"""What the parts of the label app do without a server, as JSON: run by MONAI Label's Python for test_parts.py."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fastapi import HTTPException
from monai.data import MetaTensor

from genseg_monai._outcome import one_line
from genseg_monai.apps.label.models import Models
from genseg_monai.apps.label.scoring import CaseScoring
from genseg_monai.apps.label.strategies import Disagreement
from genseg_monai.apps.label.training import GenSegTraining
from genseg_monai.errors import UserError

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


class Scored(Archived):
    """A datastore that fetches its labels when it is asked for its list, and has no file of one."""

    fetched = False

    def datalist(self) -> list[dict[str, str]]:
        self.fetched = True
        return super().datalist()

    def get_labeled_images(self) -> list[str]:
        return list(self.told)

    def get_label_by_image_id(self, case: str, tag: str) -> str:
        return case if tag == "final" and self.fetched else ""

    def get_label_uri(self, case: str, tag: str) -> str:
        return self.told[case]["label"]

    def get_image_uri(self, case: str) -> str:
        return f"{case}.nii.gz"

    def update_image_info(self, case: str, info: dict[str, Any]) -> None:
        self.told[case] |= info


def scores(folder: Path) -> Any:
    """Return the scores of three cases: one has a label, of one it is gone, one cannot be read."""
    (folder / "label.nii.gz").touch()
    (folder / "broken.nii.gz").touch()
    files = {"a": folder / "label.nii.gz", "b": folder / "gone.nii.gz", "c": folder / "broken.nii.gz"}
    store = Scored({name: {"label": str(file)} for name, file in files.items()})

    def score(image: str, truth: str, guess: str | None) -> dict[str, Any]:
        if "broken" in truth:
            raise OSError("not a NIfTI file")
        return {"dice": 1.0, "of": Path(truth).name}

    scoring = CaseScoring(Models(SHIPPED, list))
    scoring.score = score
    told = {"some": scoring({}, store), "noted": [name for name in files if "scores" in store.told[name]]}
    try:
        scoring({}, Scored({"b": {"label": str(files["b"])}}))
    except HTTPException as error:
        told["none"] = [error.status_code, error.detail]
    return told


class Waiting(Archived):
    """A datastore of which half is labelled."""

    def get_unlabeled_images(self) -> list[str]:
        return [f"{i}" for i in range(40)]

    def get_labeled_images(self) -> list[str]:
        return list(self.told)

    def get_image_uri(self, case: str) -> str:
        return case


def ranking(folder: Path) -> Any:
    """Return how often the labelled cases are listed and cases scored for two answers, and again after a correction;
    and what is told of numbers of candidates that mean nothing."""  # fmt: skip
    label, listed, scored = folder / "label.nii.gz", list[int](), list[str]()
    label.write_bytes(b"one")
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(b"trained")

    def labelled() -> list[dict[str, str]]:
        listed.append(1)
        return [{"image": str(label), "label": str(label)}]

    class Segmenter:
        plan = SimpleNamespace(classes=("background", "liver"))

        def segment(self, image: str | Path) -> Any:
            scored.append(str(image))
            return SimpleNamespace(mask=MetaTensor(torch.ones(1, 4, 4)), uncertainty=0.5)

    class Known(Models):
        def trained(self, device: str = "cpu") -> Any:
            return Segmenter()

        def shown(self, *settings: Any, **more: Any) -> Any:
            self._supports()
            return Segmenter()

    strategy, store, told = Disagreement(Known(folder, labelled)), Waiting({"l": {}}), []
    for content in (b"one", b"one", b"corrected"):
        if label.read_bytes() != content:
            label.write_bytes(content)
        listed.clear()
        scored.clear()
        strategy({}, store)
        told.append([len(listed), len(scored)])
    refused = []
    for candidates in (0, -1, "x", None):
        try:
            strategy({"candidates": candidates}, store)
        except HTTPException as error:
            refused.append([error.status_code, error.detail])
    return {"listed and scored": told, "refused": refused}


def share_held_out(folder: Path) -> Any:
    """Return what is told of a share to hold out that means nothing."""
    training = GenSegTraining(SHIPPED, {}, folder)
    cases = training._fetch_datalist({"model": "genseg"}, Archived({f"c{i}": {} for i in range(10)}))
    told = [len(part) for part in training._partition_datalist(cases, {"val_split": "0.2"})]
    try:
        training._partition_datalist(cases, {"val_split": None})
    except UserError as error:
        return [*told, str(error)]


def two_at_once(folder: Path) -> Any:
    """Return what is told of a training of a bundle that is being trained, and after that."""
    shutil.copytree(SHIPPED, folder / "bundle", ignore=shutil.ignore_patterns("*.pt"))
    trainings = [GenSegTraining(folder / "bundle", {}, folder) for _ in range(2)]
    told = []
    for busy in (trainings[0]._alone(), nullcontext()):
        with busy:
            try:
                trainings[1]({"model": "genseg", "budget": "soon"}, Archived({}))
            except HTTPException as error:
                told.append(error.detail)
    return told


PARTS: list[Callable[[Path], Any]] = [groups, scores, ranking, share_held_out, two_at_once]

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
