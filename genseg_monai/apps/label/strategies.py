"""Which case to label next."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from genseg_monai._outcome import one_line
from genseg_monai.apps.label.models import Models
from genseg_monai.apps.label.segment import told_to_client
from genseg_monai.errors import UserError
from genseg_monai.inferers.in_context_segmenter import InContextSegmenter
from genseg_monai.inferers.ranking import disagreement
from genseg_monai.inferers.trained_segmenter import TrainedSegmenter

__all__ = ["Disagreement", "Uncertainty"]

logger = logging.getLogger(__name__)

_MOST = 16  # candidates looked at for one answer


class Ranking(Strategy):
    """Answer with the unlabelled case of the highest score; scores are kept until the models change.

    Args:
        models: where the segmenters come from.
        description: for the client.
    """

    def __init__(self, models: Models, description: str) -> None:
        super().__init__(description)
        self.models = models
        self._scores: dict[tuple[Any, ...], float] = {}

    @abstractmethod
    def score(self, image: str) -> float:
        """Return how much a label of an image would teach."""

    @abstractmethod
    def ready(self) -> None:
        """Make what scoring needs; an error here is the answer."""

    def basis(self, datastore: Datastore) -> tuple[Any, ...]:
        """Return what the scores rest on."""
        weights = self.models.bundle / "models" / "model.pt"
        return weights.stat().st_mtime_ns, tuple(sorted(datastore.get_labeled_images()))

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Answer a request for the next case.

        Args:
            request: ``candidates``, how many cases are looked at, at most.
            datastore: has the images.

        Returns:
            ``id``, its score as ``weight``, and the ``scores`` of all cases looked at; None if all are labelled.
        """
        waiting = sorted(datastore.get_unlabeled_images())
        if not waiting:
            return None
        if not datastore.get_labeled_images() and not self.models.is_trained:
            return {"id": waiting[0], "weight": 0.0}  # nothing to judge by yet
        most = int(request.get("candidates", _MOST))
        step = max(len(waiting) / most, 1.0)
        candidates = [waiting[int(i * step)] for i in range(min(most, len(waiting)))]
        basis, scores = self.basis(datastore), {}
        with told_to_client():
            self.ready()
            for case in candidates:
                key = (*basis, case)
                if key not in self._scores:
                    self._scores[key] = self._tried(case, datastore)
                if not math.isnan(self._scores[key]):
                    scores[case] = self._scores[key]
            if not scores:
                raise UserError(candidates[0], "wanted an image to score, none can be read, see the log")
        best = max(scores, key=lambda case: scores[case])
        return {"id": best, "weight": scores[best], "scores": scores}

    def _tried(self, case: str, datastore: Datastore) -> float:
        """Return the score of a case; one that cannot be read is left out and told."""
        try:
            return self.score(datastore.get_image_uri(case))
        except Exception as error:  # a foreign file can make a reader fail in any way
            logger.warning("%s left out: %s", case, one_line(error))
            return math.nan


class Uncertainty(Ranking):
    """The case GenSeg, or before its first training UniverSeg, is least sure of: mean entropy of the classes."""

    def __init__(self, models: Models) -> None:
        super().__init__(models, "The case the model is least sure of")

    def ready(self) -> None:
        """Load the model that is asked."""
        self._model()

    def score(self, image: str) -> float:
        """Return the uncertainty of the mask, in [0, 1]."""
        return self._model().segment(image).uncertainty

    def _model(self) -> TrainedSegmenter | InContextSegmenter:
        return self.models.trained() if self.models.is_trained else self.models.quick()


class Disagreement(Uncertainty):
    """The case on which GenSeg and UniverSeg differ most; before the first training, the one UniverSeg is unsure of."""

    def __init__(self, models: Models) -> None:
        Ranking.__init__(self, models, "The case on which GenSeg and UniverSeg differ most")

    def ready(self) -> None:
        """Load both models."""
        super().ready()
        if self._both and self.models.trained().plan.classes != self.models.quick().plan.classes:
            raise UserError("disagreement", "wanted the classes of the training in the labels, there are others; train")

    @property
    def _both(self) -> bool:
        return self.models.is_trained and bool(self.models.labelled())

    def score(self, image: str) -> float:
        """Return 1 less the mean Dice between the two masks, in [0, 1]."""
        if not self._both:
            return super().score(image)
        trained, shown = self.models.trained(), self.models.quick()
        masks = [segmenter.segment(Path(image)).mask.as_tensor() for segmenter in (trained, shown)]
        return disagreement(masks[0], masks[1], len(trained.plan.classes))
