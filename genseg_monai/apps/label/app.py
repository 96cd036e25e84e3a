"""What the server offers: models, trainings, strategies and scores over one datastore."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

import genseg_monai
from genseg_monai.apps.label.models import Models
from genseg_monai.apps.label.scoring import CaseScoring
from genseg_monai.apps.label.segment import GenSegTask, UniverSegTask
from genseg_monai.apps.label.strategies import Disagreement, Uncertainty
from genseg_monai.apps.label.training import GenSegTraining

__all__ = ["GenSegApp"]

logger = logging.getLogger(__name__)


class GenSegApp(MONAILabelApp):
    """GenSeg and UniverSeg for 3D Slicer and OHIF.

    Args:
        app_dir: the folder `launch.prepare` made.
        studies: a folder, or the DICOMweb address of an archive.
        conf: ``bundle``, the folder of the bundle; ``universeg``, the file of other weights than this package's;
            ``modalities`` of the series of an archive, as "CT,MR".
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.models = Models(Path(conf["bundle"]), self._labelled, conf.get("universeg"))
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="GenSeg",
            description="Segmentation from few labelled cases: GenSeg, and UniverSeg before the first training",
            version=genseg_monai.__version__,
        )

    def _labelled(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.datastore().datalist()
        return found

    def init_infers(self) -> dict[str, Any]:
        """Return the models."""
        return {"genseg": GenSegTask(self.models), "universeg": UniverSegTask(self.models)}

    def init_trainers(self) -> dict[str, Any]:
        """Return the trainings."""
        return {"genseg": GenSegTraining(self.models.bundle, self.conf, Path(self.app_dir).parent)}

    def init_strategies(self) -> dict[str, Any]:
        """Return the ways to choose the next case."""
        return {
            "disagreement": Disagreement(self.models),
            "uncertainty": Uncertainty(self.models),
            "random": Random(),
            "first": First(),
        }

    def init_scoring_methods(self) -> dict[str, Any]:
        """Return the ways to score."""
        return {"cases": CaseScoring(self.models)}

    def _init_dicomweb_datastore(self) -> Any:
        from genseg_monai.apps.label.archive import open_archive

        modalities = self.conf.get("modalities", "CT,MR").split(",")
        return open_archive(self.studies, modalities, self._classes, Path(self.app_dir).parent)

    def _classes(self) -> tuple[str, ...]:
        """Return the names of the classes of the training, none before it."""
        return self.models.trained_plan().classes if self.models.is_trained else ()
