"""How well the models did on the cases that are labelled now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Compose
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod

from genseg_monai._outcome import one_line
from genseg_monai.apps.label.models import Models
from genseg_monai.apps.label.segment import told_to_client
from genseg_monai.data.read import LabelReader
from genseg_monai.errors import UserError
from genseg_monai.inferers.support_cases import LoadFilesd
from genseg_monai.metrics.cases import score_case
from genseg_monai.transforms.normalise import MapLabeld

__all__ = ["CaseScoring"]

logger = logging.getLogger(__name__)


class CaseScoring(ScoringMethod):
    """Compare the final label of each case with the one a model gave.

    Where the model's own mask was kept (tag ``original``), that one is scored: what the annotator had to change. Else
    the case is segmented now, which flatters a model that was trained on it.

    Args:
        models: where the segmenters come from.
    """

    def __init__(self, models: Models) -> None:
        super().__init__("Dice, Jaccard and 95 % Hausdorff distance of each labelled case")
        self.models = models

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score all labelled cases, and note the scores in the datastore.

        Args:
            request: ``y`` and ``y_pred``, the tags to compare, ``final`` and ``original`` if not given.
            datastore: has the images and labels.

        Returns:
            Case -> its scores, as `score` gives them; one that cannot be scored is left out and told in the log.

        Raises:
            HTTPException: none of them can be scored.
        """
        truth_tag = request.get("y", DefaultLabelTag.FINAL)
        guess_tag = request.get("y_pred", DefaultLabelTag.ORIGINAL)
        found: dict[str, Any] = {}
        failed: list[Exception] = []
        with told_to_client():
            datastore.datalist()  # an archive fetches its labels
            for case in sorted(datastore.get_labeled_images()):
                try:
                    found[case] = self._scored(datastore, case, truth_tag, guess_tag)
                except Exception as error:  # a foreign file can make a reader fail in any way
                    logger.warning("%s is not scored: %s", case, one_line(error))
                    failed.append(error)
                else:
                    datastore.update_image_info(case, {"scores": found[case]})
            if failed and not found:
                raise failed[0]
        return found

    def _scored(self, datastore: Datastore, case: str, truth_tag: str, guess_tag: str) -> dict[str, Any]:
        truth = _file(datastore, case, truth_tag)
        if truth is None:
            raise UserError(case, "wanted its label, there is none that can be read")
        return self.score(datastore.get_image_uri(case), truth, _file(datastore, case, guess_tag))

    def score(self, image: str, truth: str, guess: str | None) -> dict[str, Any]:
        """Return the scores of each class, and which mask was scored: ``original`` or ``segmented now``."""
        plan = self.models.trained_plan() if guess is None else self.models.support_plan()
        load = Compose([LoadFilesd("label", LabelReader()), MapLabeld("label", plan.label_values)])
        label: MetaTensor = load({"label": truth})["label"]
        mask = self.models.trained().segment(Path(image)).mask if guess is None else load({"label": guess})["label"]
        spacing = label.pixdim.tolist() if plan.spatial_dims == 3 else None
        rows = score_case(mask.as_tensor(), label.as_tensor(), plan.classes, spacing)
        told: Mapping[str, Any] = {
            row.class_name: {"dice": row.dice, "jaccard": row.jaccard, "hd95": row.hd95} for row in rows
        }
        return {**told, "of": "segmented now" if guess is None else "original"}


def _file(datastore: Datastore, case: str, tag: str) -> str | None:
    """Return the file of a label, None where there is none."""
    label = datastore.get_label_by_image_id(case, tag)
    path = datastore.get_label_uri(label, tag) if label else ""
    return path if path and Path(path).is_file() else None
