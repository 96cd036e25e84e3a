"""The labels of the cases that a study scores on: read and understood before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monai.transforms import Compose

from genseg_monai.apps.studies.settings import StudySettings
from genseg_monai.data.plan import propose_plan
from genseg_monai.data.read import LabelReader
from genseg_monai.inferers.support_cases import LoadFilesd, apply
from genseg_monai.transforms.normalise import MapLabeld

__all__ = ["check_labels", "label_reader"]


def label_reader(label_values: Mapping[int, int]) -> Compose:
    """Return what reads the ``label`` of a case as class indices.

    Args:
        label_values: raw value -> class index.
    """
    return Compose([LoadFilesd("label", LabelReader()), MapLabeld("label", label_values)])


def check_labels(
    settings: StudySettings, train: Sequence[Mapping[str, Any]], scored: Mapping[str, Iterable[Mapping[str, Any]]]
) -> None:
    """Read every label that cells will be scored on, so that none is found wrong after hours of training.

    Args:
        settings: of the study.
        train: cases that say what the values mean, where the configuration does not.
        scored: cases by data set.

    Raises:
        UserError: a label cannot be read, or has values that the training does not know.
    """
    values = settings.resolved("label_values") or propose_plan(train).label_values
    read = label_reader(values)
    for cases in scored.values():
        for case in cases:
            apply(read, {"label": case["label"]})
