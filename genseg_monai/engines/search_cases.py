"""Which training cases stages I and II learn from, and which stage III judges by."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from genseg_monai.data.resident import ResidentLoader
from genseg_monai.data.splits import refuse_too_few, search_split
from genseg_monai.engines.schedule import Phase, Schedule
from genseg_monai.engines.settings import LoopSettings
from genseg_monai.errors import UserError

__all__ = ["divide_cases"]

logger = logging.getLogger(__name__)


def divide_cases(
    loader: ResidentLoader, schedule: Schedule, settings: LoopSettings, given: Sequence[int] | None = None
) -> tuple[list[int], list[int]]:
    """Divide the training cases, by patient, into those of stages I and II and those of stage III.

    Args:
        loader: of the training cases.
        schedule: without a search no case is kept for stage III.
        settings: which part it keeps; with none both are all cases, and a warning tells where a batch may hold every
            patient, so that none is left to judge its update by.
        given: case numbers that stage III keeps, instead of a draw.

    Raises:
        UserError: the given numbers are no part of the cases, or there are too few cases or patients to keep some.
    """
    everyone = list(range(len(loader.cases)))
    if given is not None:
        train = [i for i in everyone if i not in set(given)]
        if not given or not train or not set(given) <= set(everyone):
            raise UserError("search_cases", f"wanted some of the {len(everyone)} case numbers, got {list(given)}")
        return train, list(given)
    searched = schedule.steps[Phase.SEARCH] > 0 and settings.outer_every > 0
    if searched and settings.search_fraction:
        cases = [{"case": str(i), "group": group} for i, group in enumerate(loader.cases.groups)]
        return search_split(cases, settings.search_fraction)
    if searched:
        refuse_too_few(loader.cases.groups)
    if searched and loader.fewest_patients <= loader.batch_size:
        logger.warning(
            "a batch of %d may hold all %d patients: stage III then judges an update by those who made it; "
            "take a smaller batch_size, or keep some apart with search_fraction",
            loader.batch_size, loader.fewest_patients,
        )  # fmt: skip
    return everyone, everyone
