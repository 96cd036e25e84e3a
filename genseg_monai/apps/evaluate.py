"""`genseg evaluate`: scores of a trained bundle on held-out cases."""

from __future__ import annotations

import logging
from pathlib import Path

from genseg_monai.apps.workflow import check_weights, open_workflow

__all__ = ["evaluate"]


def evaluate(
    *,
    bundle: str,
    data: str,
    output: str,
    split: str | None = None,
    seed: int | None = None,
    label_dir: str | None = None,
    device: str | None = None,
) -> str:
    """Score held-out cases at their own size: Dice, Jaccard and the 95 % Hausdorff distance.

    Writes one CSV row a case and class, and a JSON summary with 95 % intervals; prints the summary.

    Args:
        bundle: the folder of a bundle, such as what a training left
        data: the data set, in any layout the training reads
        output: the folder for the scores
        split: test, val or train; test if the data set has one, else val
        seed: the seed of the training, where the data set brings no splits.json
        label_dir: the folder of masks, where there are several
        device: cpu, cuda or cuda:N; the GPU if there is one

    Returns:
        The summary as a table.

    Raises:
        UserError: no bundle, no such split, or masks that do not fit.
        RunFailed: some cases could not be read.

    Example:
        genseg evaluate --bundle runs/feet --data feet --output scores
    """
    check_weights(bundle)
    workflow = open_workflow(
        bundle,
        "evaluate",
        dataset_dir=data if "://" in data else str(Path(data).resolve()),
        output_dir=str(Path(output).resolve()),
        split=split,
        seed=seed,
        label_dir=label_dir,
        device=device,
    )
    logging.getLogger("genseg_monai.handlers.case_scores").setLevel(logging.WARNING)  # the table is printed below
    workflow.run()
    scores = workflow.parser.get_parsed_content("scores")
    return f"{scores.table()}\nwritten to {scores.files[0]} and {scores.files[1].name}"
