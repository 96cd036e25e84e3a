"""GenSeg's training as MONAI Label asks for it: in place, with the labelled cases, from the weights that are there."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask

from genseg_monai._outcome import report_in_one_line
from genseg_monai.apps.label.options import extended_plan, share, switch, training_ids, training_options
from genseg_monai.apps.label.patients import UNKNOWN, patient_key
from genseg_monai.apps.label.segment import told_to_client
from genseg_monai.data.read import LabelReader
from genseg_monai.errors import UserError
from genseg_monai.transforms.save import stem_of

__all__ = ["GenSegTraining"]

logger = logging.getLogger(__name__)

_FEWEST = 4  # cases to train on: some of them judge the architecture


class GenSegTraining(BundleTrainTask):
    """Train the three stages of a bundle.

    Args:
        bundle: the folder of the bundle.
        conf: of the app.
        home: folder for the key of the pseudonyms that patients of an archive get.
    """

    def __init__(self, bundle: Path, conf: dict[str, str], home: Path) -> None:
        super().__init__(str(bundle), conf)
        self.folder, self.home = Path(bundle), Path(home)
        self._asked: dict[str, Any] = {}

    @property
    def _segmenter(self) -> str:
        return str(self._inference["segmenter"])

    @property
    def _inference(self) -> dict[str, Any]:
        """Return the config of inference, which every training in place renews."""
        found: dict[str, Any] = yaml.safe_load((self.folder / "configs" / "inference.yaml").read_text(encoding="utf-8"))
        return found

    @property
    def _outer_every(self) -> int:
        return int(self.bundle_config["outer_every"])

    def config(self) -> dict[str, Any]:
        """Return the options of a training and their defaults."""
        given: dict[str, Any] = super().config()
        kept = {name: given[name] for name in ("device", "pretrained", "val_split")}
        epochs = {"max_epochs": int(self.bundle_config["max_epochs"])}
        return kept | epochs | training_options(self._segmenter, self._outer_every)

    def stats(self) -> dict[str, Any]:
        """Return how far the training is, or what the last one left.

        ``epoch`` of ``total_epochs`` (here iterations), ``best_metric`` and, at the end, ``total_time`` are what 3D
        Slicer shows; ``cases_scored`` has the scores of each case that was held out.
        """
        record = self.folder / "run.json"
        if not record.is_file():
            return {}
        run = json.loads(record.read_text(encoding="utf-8"))
        told: dict[str, Any] = {name: run[name] for name in ("finished", "cases", "seconds", "iterations")}
        told |= {"epoch": 0, "total_epochs": sum(run["iterations"].values())}
        begun = record.stat().st_mtime - float(run["seconds"])
        told["epoch"] = _iteration(self.folder / "logs" / "train.log", begun)
        if not run["finished"]:
            return told
        rows = [row for path in sorted((self.folder / "scores").glob("genseg*.csv")) for row in _rows(path)]
        told |= {"total_time": run["seconds"], "cases_scored": rows}
        dice = [float(row["dice"]) for row in rows if row.get("dice")]
        if dice:
            told["best_metric"] = sum(dice) / len(dice)
        return told

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; progress and errors go to the log, of which GET /train/ shows the last lines.

        Args:
            request: the options; those left out have their defaults.
            datastore: has the labelled cases.

        Returns:
            What `stats` tells of it.

        Raises:
            HTTPException: an option means nothing, the training failed, or another one of this bundle is running.
        """
        report_in_one_line()
        with told_to_client(), self._alone():
            wanted = {**self.config(), **request, "multi_gpu": False, "tracking": "None"}
            wanted["device"] = wanted["device"] or "cpu"
            wanted["run_id"] = wanted.get("run_id") or "run"
            self._asked = training_ids(wanted, self._segmenter, self._outer_every)
            super().__call__(wanted, datastore)
        return self.stats()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other trainings out of the bundle; the lock goes with the process."""
        with open(self.folder / ".training.lock", "a", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                problem = "wanted to train, a training of this bundle is running; stop it or wait for its end"
                raise UserError("genseg", problem) from None
            yield

    def _fetch_datalist(self, request: dict[str, Any], datastore: Datastore) -> list[dict[str, Any]]:
        """Return the labelled cases with their names, and pseudonyms of their patients where the archive knows them."""
        found = []
        for case in super()._fetch_datalist(request, datastore):
            name = stem_of(case["image"])
            found.append({**case, "case": name, "group": self._group(datastore.get_image_info(name)) or name})
        return found

    def _group(self, told: Mapping[str, Any]) -> str | None:
        """Return a pseudonym of the patient, or else of the study; logs, scores and the clients show it."""
        for name in ("PatientID", "StudyInstanceUID"):
            if told.get(name) not in (None, "", UNKNOWN):
                return patient_key(self.home).patient(str(told[name]))
        return None

    def _partition_datalist(
        self, datalist: list[dict[str, Any]], request: dict[str, Any], shuffle: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Hold out whole patients, as many cases as are asked for and leave enough to train on.

        The draw follows from the names, so that a case that was held out is not trained on next time.
        """
        wanted = round(share(request["val_split"], "val_split") * len(datalist))
        wanted = max(min(wanted, len(datalist) - _FEWEST), 0)
        groups: dict[str, list[dict[str, Any]]] = {}
        for case in datalist:
            groups.setdefault(str(case["group"]), []).append(case)
        held_out: list[dict[str, Any]] = []
        for name in sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest()):
            if len(held_out) + len(groups[name]) <= wanted:
                held_out += groups[name]
        training = [case for case in datalist if case not in held_out]
        logger.info("%d labelled cases: %d to train on, %d held out", len(datalist), len(training), len(held_out))
        return training, held_out

    def _load_checkpoint(self, model_pytorch: str, pretrained: Any, train_handlers: list[dict[str, Any]]) -> None:
        """Start from the weights that are there, if they are wanted and are those of the segmenter."""
        if switch(pretrained, "pretrained") and self._asked["segmenter"] == self._segmenter:
            super()._load_checkpoint(model_pytorch, True, train_handlers)
        else:
            train_handlers[:] = [one for one in train_handlers if one.get("_target_") != "CheckpointLoader"]

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        overrides.update(self._asked)
        overrides["score#dataset#data"] = overrides["validate#dataset#data"]  # the data set of a run is not here
        if isinstance(self.bundle_config["plan"], Mapping):  # else it is proposed anew by each training
            cases = [*overrides["train#dataset#data"], *overrides["validate#dataset#data"]]
            values = {value for case in cases for value in _values(case["label"])}
            overrides["plan"] = extended_plan(self._inference["plan"], values, self._asked.get("size"))
        return overrides


def _values(label: str) -> list[int]:
    reader = LabelReader()
    return [int(value) for value in np.unique(reader.get_data(reader.read(label))[0])]


def _iteration(log: Path, begun: float) -> int:
    """Return the last iteration that the log of a training tells, 0 where it has told none since it began."""
    if not log.is_file():
        return 0
    for line in reversed(log.read_text(encoding="utf-8").splitlines()):
        told = re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ .*: iteration (\d+) of \d+", line)
        if told:
            when = datetime.strptime(told[1], "%Y-%m-%d %H:%M:%S").timestamp()
            return int(told[2]) if when >= begun - 2 else 0
    return 0


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
