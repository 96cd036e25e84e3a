"""The arm without training: UniverSeg is shown the training cases and segments the others by them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from genseg_monai._atomic import whole_file
from genseg_monai.apps.incontext import universeg_weights
from genseg_monai.apps.studies.cells import Cell
from genseg_monai.apps.studies.labels import label_reader
from genseg_monai.apps.studies.settings import StudySettings
from genseg_monai.errors import UserError
from genseg_monai.handlers.case_scores import native_spacing
from genseg_monai.inferers.in_context import InContextSettings
from genseg_monai.inferers.in_context_segmenter import InContextSegmenter
from genseg_monai.inferers.support_cases import apply, support_plan
from genseg_monai.metrics.cases import score_case, summarise, write_scores

__all__ = ["score_in_context"]


def score_in_context(
    folder: Path,
    settings: StudySettings,
    cell: Cell,
    train: Sequence[Mapping[str, Any]],
    scored: Mapping[str, Sequence[Mapping[str, Any]]],
    device: str | None = None,
) -> None:
    """Write ``cell.json`` and the scores of every data set, as a trained cell leaves them.

    Args:
        folder: of the cell.
        settings: of the study; ``weights`` is UniverSeg's file, ``ensemble`` its passes.
        cell: its seed decides the draws of supports.
        train: the supports.
        scored: cases by data set.
        device: cpu, cuda or cuda:N.

    Raises:
        UserError: there are no weights, or a label does not fit its image.
    """
    path = universeg_weights(settings.weights)
    how = InContextSettings(seed=cell.seed, ensemble=settings.ensemble)
    content = {"cell": asdict(cell), "overrides": {}, "supports": [case["case"] for case in train]}
    with whole_file(folder / "cell.json") as temporary:
        temporary.write_text(json.dumps(content | {"in_context": asdict(how)}, indent=2) + "\n", encoding="utf-8")
    values, modality = settings.resolved("label_values"), settings.resolved("modality")
    plan = support_plan(train, label_values=values, modality=modality)
    segmenter = InContextSegmenter(path, train, how, plan=plan, device=device or "cpu")
    read = label_reader(plan.label_values)
    for name, cases in scored.items():
        if (folder / "scores" / f"{name}_summary.json").is_file():
            continue  # of a run that was stopped
        rows = []
        for case in tqdm(cases, desc=name, disable=None):
            truth = apply(read, {"label": case["label"]})["label"]
            mask = segmenter.segment(case).mask.as_tensor()
            if tuple(truth.shape) != tuple(mask.shape):
                raise UserError(
                    case["label"],
                    f"wanted a label of the size of its image, {tuple(mask.shape[1:])}, got {tuple(truth.shape[1:])}; "
                    "draw it on the image itself",
                )
            source = str(truth.meta.get("filename_or_obj", case["label"]))
            group = str(case.get("group") or case["case"])
            rows += score_case(
                mask,
                truth.as_tensor(),
                segmenter.plan.classes,
                native_spacing(truth, source),
                case=case["case"],
                group=group,
            )
        write_scores(folder / "scores" / f"{name}.csv", rows)
        with whole_file(folder / "scores" / f"{name}_summary.json") as temporary:
            temporary.write_text(json.dumps(summarise(rows), indent=2) + "\n", encoding="utf-8")
