"""`genseg rank`: which of the unlabelled cases to annotate next."""

from __future__ import annotations

import logging
from pathlib import Path

from genseg_monai.apps.incontext import check_numbers, universeg_weights
from genseg_monai.apps.workflow import check_weights, checked_device
from genseg_monai.errors import UserError

__all__ = ["rank"]

logger = logging.getLogger(__name__)


def rank(
    *,
    bundle: str,
    support: str,
    input: str,
    output: str,
    support_size: int = 40,
    ensemble: int = 8,
    size: int = 128,
    weights: str | None = None,
    label_dir: str | None = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
) -> str:
    """Order unlabelled cases by how much a label of each would tell: where the trained segmenter and UniverSeg differ.

    The trained segmenter has learned from the labelled cases, UniverSeg is shown them; the disagreement is 1 less the
    mean Dice between their masks. The CSV has the columns case, disagreement, uncertainty, rank; annotate the first
    cases next. An image that cannot be read is reported and left out; the exit code is then 1.

    Args:
        bundle: the folder of what a training left
        support: the labelled cases: a data set in any layout `train` reads; its training split, where it has one
        input: a folder of images or of DICOM series; those that are supports are left out
        output: the CSV file
        support_size: labelled images (of volumes: planes) shown in a pass; fewer are faster
        ensemble: passes averaged; 1 is fastest
        size: pixels on a side that UniverSeg sees; 64 takes a quarter of the time
        weights: the weights of UniverSeg; those the package ships
        label_dir: the folder of masks of the labelled data set, where there are several
        seed: of the draws
        device: cpu, cuda or cuda:N; the GPU if there is one
        overwrite: replace a CSV file that is there already

    Returns:
        What was done, and the case to annotate first.

    Raises:
        UserError: nothing to do it with or to, classes that differ, or the CSV is there already.
        RunFailed: some images could not be read.

    Example:
        genseg rank --bundle runs/feet --support feet --input unlabelled --output next.csv
    """
    check_weights(bundle)
    check_numbers(support_size, ensemble, size)
    path = universeg_weights(weights)
    if not Path(input).exists():
        raise UserError(input, "wanted images, there is no such file or folder")
    if Path(output).exists() and not overwrite:
        raise UserError(output, "wanted to write the ranking, a file is there; choose another or give --overwrite")
    import torch
    from tqdm import tqdm

    from genseg_monai._outcome import RunFailed, one_line
    from genseg_monai.data.cases import find_images
    from genseg_monai.data.training_cases import training_cases
    from genseg_monai.inferers import ranking
    from genseg_monai.inferers.in_context import InContextSettings
    from genseg_monai.inferers.in_context_segmenter import InContextSegmenter
    from genseg_monai.inferers.support_cases import support_plan
    from genseg_monai.inferers.trained_segmenter import TrainedSegmenter

    name = checked_device(device) if device else "cuda" if torch.cuda.is_available() else "cpu"
    trained = TrainedSegmenter(bundle, name)
    supports = training_cases(support, label_dir)
    plan = support_plan(supports, label_values=trained.plan.label_values, modality=trained.plan.modality)
    settings = InContextSettings(support_size=support_size, ensemble=ensemble, seed=seed)
    shown = InContextSegmenter(path, supports, settings, plan=plan, size=size, device=name)
    used = {str(case["image"]) for case in supports}
    cases = [case for case in find_images(input) if str(case["image"]) not in used]
    if not cases:
        raise UserError(input, "wanted unlabelled images, got supports alone; give others")
    compared, failed = [], 0
    for case in tqdm(cases, desc="rank", disable=None):
        try:
            compared.append(ranking.compare(case, shown.segment, trained.segment, len(plan.classes)))
        except Exception as error:  # a foreign file can make a reader fail in any way
            logger.error("genseg: %s", one_line(error))
            logger.debug("where:", exc_info=True)
            failed += 1
    ranked = ranking.rank(compared)
    if ranked:
        ranking.write_ranking(output, ranked)
    if failed:
        raise RunFailed("rank", f"{failed} of {len(cases)} inputs failed, each told above")
    first = ranked[0]
    return (
        f"{len(ranked)} cases ranked in {output}; annotate {first.case} first (disagreement {first.disagreement:.3f})"
    )
