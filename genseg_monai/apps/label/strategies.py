"""Which case to label next."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.utils.others.generic import name_to_device

from genseg_monai._outcome import one_line
from genseg_monai.apps.label.models import Models
from genseg_monai.apps.label.options import count
from genseg_monai.apps.label.segment import told_to_client
from genseg_monai.errors import UserError
from genseg_monai.inferers.ranking import disagreement

__all__ = ["Disagreement", "Uncertainty"]

logger = logging.getLogger(__name__)

_MOST = 16  # candidates looked at for one answer


class Ranking(Strategy):
    """Answer with the unlabelled case of the highest score; scores are kept until the models or labels change.

    Args:
        models: where the segmenters come from.
        description: for the client.
    """

    def __init__(self, models: Models, description: str) -> None:
        super().__init__(description)
        self.models = models
        self._scores: dict[tuple[Any, str], float] = {}

    @abstractmethod
    def scorer(self, device: str) -> Callable[[str], float]:
        """Return what tells how much a label of an image would teach; an error here is the answer."""

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Answer a request for the next case.

        Args:
            request: ``candidates``, how many cases are looked at, at most; ``device``, where.
            datastore: has the images.

        Returns:
            ``id``, its score as ``weight``, and the ``scores`` of all cases looked at; None if all are labelled.
        """
        waiting = sorted(datastore.get_unlabeled_images())
        if not waiting:
            return None
        if not datastore.get_labeled_images() and not self.models.is_trained:
            return {"id": waiting[0], "weight": 0.0}  # nothing to judge by yet
        with told_to_client():
            most = count(request.get("candidates", _MOST), "candidates")
        step = max(len(waiting) / most, 1.0)
        candidates = [waiting[int(i * step)] for i in range(min(most, len(waiting)))]
        with told_to_client():
            state, scores = self.models.state(), {}
            score = self.scorer(name_to_device(request.get("device")))
            for case in candidates:
                key = (state, case)
                if key not in self._scores:
                    self._scores[key] = _tried(score, case, datastore)
                if not math.isnan(self._scores[key]):
                    scores[case] = self._scores[key]
            if not scores:
                raise UserError(candidates[0], "wanted an image to score, none can be read, see the log")
        best = max(scores, key=lambda case: scores[case])
        return {"id": best, "weight": scores[best], "scores": scores}


class Uncertainty(Ranking):
    """The case GenSeg, or before its first training UniverSeg, is least sure of: mean entropy of the classes."""

    def __init__(self, models: Models) -> None:
        super().__init__(models, "The case the model is least sure of")

    def scorer(self, device: str) -> Callable[[str], float]:
        """Return what tells the uncertainty of the mask of an image, in [0, 1]."""
        model = self.models.trained(device) if self.models.is_trained else self.models.quick(device)
        return lambda image: model.segment(image).uncertainty


class Disagreement(Uncertainty):
    """The case on which GenSeg and UniverSeg differ most; before the first training, the one UniverSeg is unsure of."""

    def __init__(self, models: Models) -> None:
        Ranking.__init__(self, models, "The case on which GenSeg and UniverSeg differ most")

    def scorer(self, device: str) -> Callable[[str], float]:
        """Return what tells 1 less the mean Dice between the two masks of an image, in [0, 1]."""
        if not (self.models.is_trained and self.models.labelled()):
            return super().scorer(device)
        trained, shown = self.models.trained(device), self.models.quick(device)
        classes = trained.plan.classes
        if classes != shown.plan.classes:
            raise UserError("disagreement", "wanted the classes of the training in the labels, there are others; train")

        def differ(image: str) -> float:
            masks = [segmenter.segment(Path(image)).mask.as_tensor() for segmenter in (trained, shown)]
            return disagreement(masks[0], masks[1], len(classes))

        return differ


def _tried(score: Callable[[str], float], case: str, datastore: Datastore) -> float:
    """Return the score of a case; one that cannot be read is left out and told."""
    try:
        return score(datastore.get_image_uri(case))
    except Exception as error:  # a foreign file can make a reader fail in any way
        logger.warning("%s left out: %s", case, one_line(error))
        return math.nan
