"""The report on one training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from genseg_monai.apps.reporting import parts, record_parts
from genseg_monai.apps.reporting.compare import Answer, Comparison, Verdict, compare, judge
from genseg_monai.apps.reporting.look import look_at_calibration, look_at_cases, look_at_synthetic
from genseg_monai.apps.reporting.opened import Opened, find_data
from genseg_monai.apps.reporting.page import Page, Section, Text, Tile
from genseg_monai.apps.reporting.sources import Run, arm_title

__all__ = ["run_page", "seen_sections", "tiles", "time_text"]

logger = logging.getLogger(__name__)


def run_page(run: Run, *, data: str | None = None, device: str = "cpu", pictures: bool = True) -> Page:
    """Return the page on one training.

    Args:
        run: the training.
        data: its data set, where that has moved.
        device: for looking at cases.
        pictures: whether the data are looked at.
    """
    if run.arms:
        size = int(run.record.get("cases", {}).get("training", 0))
        compared = compare(run.arms, name="Held-out cases", size=size, unit=run.unit)
        verdict = judge(compared)
        held_out = "Held-out cases: the split test of the data set or, where it has none, the validation cases."
        first = [Text(held_out), *parts.results(compared, run.arms)]
    else:
        compared, first = None, [Text("No case was scored: the data set has neither test nor validation cases, or the "
                                      "training has not ended.")]  # fmt: skip
        verdict = Verdict(Answer.OPEN, "No answer: no held-out case was scored.")
    if not run.record.get("finished", True):
        verdict = Verdict(Answer.OPEN, "No answer yet: the training has not finished.")
    place = run.record.get("dataset_dir", "")
    return Page(
        title=run.root.resolve().name,
        answer=str(verdict.answer),
        verdict=verdict.sentence,
        tiles=tiles(compared, run),
        sections=[
            Section("Results", first),
            *seen_sections(run, data=data, device=device, pictures=pictures),
            Section("Training curves", parts.curves(run)),
            Section("The generator found", parts.generator(run)),
            Section("Cost", record_parts.cost(run)),
            Section("To repeat it", [
                *record_parts.repeat(run),
                Text(f"Data: {place if str(place).startswith('phantom://') else 'the data set the training read'}."),
            ]),
        ],
    )  # fmt: skip


def seen_sections(
    run: Run,
    *,
    data: str | None,
    device: str,
    pictures: bool,
    scored: Sequence[Mapping[str, Any]] | None = None,
    judge_run: Run | None = None,
) -> list[Section]:
    """Return what needs the data of a training: cases, synthetic images, calibration.

    Args:
        run: the training.
        data: its data set, where that has moved.
        device: for looking.
        pictures: whether to look at all; without it calibration on the validation cases is left.
        scored: the cases of the scores, where the training does not know them.
        judge_run: another training on the same cases, whose segmenter judges the synthetic images.
    """
    place = find_data(run, data) if pictures else None
    kept = (run.root / "configs" / "train.yaml").is_file() and (run.root / "models" / "model.pt").is_file()
    if place is None or not kept:
        why = "left out, as was asked" if not pictures else "not found where the training read it; give --data"
        if pictures and place is not None:
            why = "there, but the training has left no model yet"
        told = Text(f"Cases, synthetic images and calibration on held-out cases need the data set: {why}.")
        return [Section("Cases", [told]), Section("Calibration", parts.calibration(run, None))]
    opened = Opened(run, place, device, scored)
    judge_with = None
    if judge_run is not None and (network := Opened(judge_run, place, device).segmenter()) is not None:
        judge_with = (arm_title("augment"), network)
    held_out = opened.cases("score")
    logger.info("looking at cases and synthetic images")
    synthetic = look_at_synthetic(opened, judge_with) if run.has_generator and held_out else None
    return [
        Section("Best, median and worst case", parts.cases(look_at_cases(opened, run.arms, run.own), run.own)),
        Section("Synthetic images", parts.synthetic(synthetic)),
        Section("Calibration", parts.calibration(run, look_at_calibration(opened))),
    ]


def tiles(compared: Comparison | None, run: Run) -> list[Tile]:
    """Return the numbers that matter most."""
    found = []
    if compared is not None:
        for arm in ("genseg", compared.reference):
            if (one := compared.arm(arm)) is not None:
                dice = one.intervals["dice"]
                found.append(
                    Tile(f"Dice, {arm_title(arm)}", f"{dice.mean:.3f}", f"95 % {dice.low:.3f} to {dice.high:.3f}")
                )
    cases: dict[str, int] = run.record.get("cases", {})
    kept = cases.get("search", 0)
    how = f"{kept} of them kept for the search" if kept < cases.get("training", 0) else "all of them train throughout"
    found.append(Tile("Training cases", str(cases.get("training", "?")), how))
    spent: dict[str, Any] = run.record.get("seconds_by_phase", {})
    memory = run.record.get("peak_memory_gib", "?")
    found.append(Tile("Time", time_text(sum(spent.values())), f"{run.record.get('device', '?')}, peak {memory} GiB"))
    return found


def time_text(seconds: float) -> str:
    """Return a time for people.

    Example:
        >>> time_text(75), time_text(600), time_text(7200)
        ('75 s', '10 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
