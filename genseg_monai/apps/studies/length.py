"""How long a study is: settled once, kept, and the same for every cell."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genseg_monai.apps.studies.budget import Costs, measure_costs, updates_within
from genseg_monai.apps.studies.ledger import Ledger
from genseg_monai.apps.studies.settings import StudySettings, joined, read_study, write_study
from genseg_monai.errors import UserError

__all__ = ["rounded_updates", "settle"]

logger = logging.getLogger(__name__)

_UPDATES = 2000
_EPOCH = 20


def settle(
    folder: Path,
    settings: StudySettings,
    *,
    budget: str | None = None,
    updates: int | None = None,
    devices: Sequence[str] = ("cpu",),
    keep: bool = True,
) -> tuple[StudySettings, Costs]:
    """Return the settings with the number of updates of every cell, and what an update costs where it was measured.

    A study that is there keeps its length, whatever the machine does today; it may get more arms, seeds and sizes.

    Args:
        folder: of the study.
        settings: as asked for.
        budget: wall-clock time of the whole study, such as ``60m``.
        updates: of the segmenter in every cell, instead.
        devices: one process works on each.
        keep: write ``study.json``.

    Raises:
        UserError: both are given, or another length or another study than the one that is there.
    """
    from genseg_monai.engines.estimate import parse_budget

    if budget is not None and updates is not None:
        raise UserError("--updates", "wanted either --budget or --updates, got both; leave one out")
    seconds = parse_budget(budget) if budget is not None else None
    with Ledger(folder).locked("study"):
        held = read_study(folder)
        if held is not None:
            kept, facts = joined(held[0], settings, folder), held[1]
            same = updates is None or rounded_updates(updates)[0] == kept.updates
            if not same or budget not in (None, facts["budget"]):
                raise UserError(
                    folder, f"wanted the study that is there, of {kept.updates} updates a cell (--budget "
                    f"{facts['budget']}), got another length; leave it out, or give another --out",
                )  # fmt: skip
            _tell_of_new_defaults(facts.get("config", {}), _plain_values(kept))
            if keep:
                write_study(folder, kept, facts)
            return kept, facts["costs"]
        count, epoch = rounded_updates(_UPDATES if updates is None else updates)
        settings, costs = replace(settings, updates=count, epoch=epoch), Costs()
        if seconds is not None:
            logger.info("rehearsing the arms, to turn the budget into a number of updates")
            costs = measure_costs(settings, devices[0])
            settings = replace(settings, updates=updates_within(settings, costs, seconds, len(devices)))
        if keep:
            facts = {"budget": budget, "costs": costs, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            write_study(folder, settings, facts | {"command": sys.argv, "config": _plain_values(settings)})
    return settings, costs


def _plain_values(settings: StudySettings) -> dict[str, Any]:
    """Return the entries of the configuration that are numbers, words or switches."""
    return {
        name: value
        for name, value in settings.config().items()
        if isinstance(value, int | float | str) and not str(value).startswith(("$", "@"))
    }


def _tell_of_new_defaults(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warn where the cells to come would be trained otherwise than those that are there."""
    changed = [f"{name} {value} then, {now[name]} now" for name, value in then.items() if now.get(name, value) != value]
    if changed:
        logger.warning(
            "defaults have changed since this study began (%s): its old cells cannot be compared with new ones; "
            "give another --out", "; ".join(changed),
        )  # fmt: skip


def rounded_updates(updates: int) -> tuple[int, int]:
    """Return the number of updates as a multiple of the iterations an epoch, and those.

    Raises:
        UserError: there are fewer than two.

    Example:
        >>> rounded_updates(1010), rounded_updates(12)
        ((1000, 20), (12, 2))
    """
    if updates < 2:
        raise UserError("--updates", f"wanted 2 or more, got {updates}")
    epoch = _EPOCH if updates >= 5 * _EPOCH else max(1, updates // 5)
    return updates // epoch * epoch, epoch
