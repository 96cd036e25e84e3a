"""The report on a study: its results as `genseg study` left them, and one of its trainings in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genseg_monai.apps.reporting import parts, study_parts
from genseg_monai.apps.reporting.compare import Answer, ArmResult, Comparison, Verdict, judge
from genseg_monai.apps.reporting.page import Page, Section, Text, Tile
from genseg_monai.apps.reporting.run_report import seen_sections
from genseg_monai.apps.reporting.sources import (
    CaseResult,
    Run,
    arm_style,
    arm_title,
    read_case_scores,
    read_json,
    read_rows,
    read_run,
)
from genseg_monai.apps.reporting.study_parts import Key
from genseg_monai.apps.studies.cells import OWN_SEGMENTER
from genseg_monai.apps.studies.run_cell import study_cases
from genseg_monai.apps.studies.settings import StudySettings, data_name
from genseg_monai.errors import UserError
from genseg_monai.metrics.statistics import Interval, PairedTest

__all__ = ["comparisons", "study_page"]

_SCORES = ("dice", "jaccard", "hd95", "surface_dice")


def study_page(folder: Path, *, data: str | None = None, device: str = "cpu", pictures: bool = True) -> Page:
    """Return the page on a study.

    Args:
        folder: of the study.
        data: its data set, where that has moved.
        device: for looking at cases.
        pictures: whether the data are looked at.

    Raises:
        UserError: no cell of the study has ended.
    """
    summary = read_json(folder / "summary.json")
    if not summary.get("results"):
        raise UserError(folder, "wanted a study with a finished cell, there is none yet; let `genseg study` go on")
    segmenter = summary["settings"]["segmenters"][0]
    all_of_them = comparisons(summary["results"], segmenter)
    largest = _largest(all_of_them)
    first = _first(largest, summary)
    key = next(key for key, one in largest.items() if one is first)
    rows = read_rows(folder / "scores.csv")
    ours = _judged(first)
    verdict = judge(first, ours)
    waiting = [cell for cell in summary["cells"] if cell["state"] != "done"]
    if waiting and verdict.answer is not Answer.OPEN:
        told = f"{verdict.sentence[:-1]}; {len(waiting)} of {len(summary['cells'])} cells are not done yet."
        verdict = Verdict(verdict.answer, told)
    about = study_parts.beside_the_verdict(first, [one for one in largest.values() if one is not first], ours)
    scored = parts.results(first, _case_results(rows, key, segmenter), ours=ours)
    sections = [Section("Results", [*about, *scored, *study_parts.seeds_apart(first, summary, key)])]
    for other, compared in largest.items():
        if other != key:
            title = f"Results on {compared.name}" + (f", {other[1]}" if len({k[1] for k in largest}) > 1 else "")
            scored = parts.results(compared, _case_results(rows, other, segmenter), ours=ours, note=False)
            sections.append(Section(title, [*scored, *study_parts.seeds_apart(compared, summary, other)]))
    sections.append(Section("How many cases it takes", study_parts.sample_efficiency(all_of_them, summary)))
    detail, run = _detail(folder, summary, key, ours, _case_results(rows, key, segmenter), data, device, pictures)
    sections += [
        *detail,
        Section("Training curves", study_parts.study_curves(folder, summary, key)),
        Section("The generator found", parts.generator(run) if run is not None else []),
        Section("Cost", study_parts.study_cost(folder, summary)),
        Section("To repeat it", study_parts.study_repeat(folder, summary, run)),
    ]
    return Page(
        title=folder.resolve().name,
        answer=str(verdict.answer),
        verdict=verdict.sentence,
        tiles=_tiles(first, ours, summary, key),
        sections=sections,
        kind="study",
    )


def comparisons(results: Sequence[Mapping[str, Any]], first_segmenter: str) -> dict[Key, Comparison]:
    """Return the arms of each data set, segmenter and number of training cases.

    Args:
        results: of ``summary.json``.
        first_segmenter: beside whose arms those stand that have a segmenter of their own.
    """
    grouped: dict[Key, list[Mapping[str, Any]]] = {}
    for one in results:
        grouped.setdefault(_place(one, first_segmenter), []).append(one)
    return {
        key: Comparison(
            key[0],
            tuple(sorted((_arm(one) for one in mine), key=lambda arm: arm_style(arm.arm))),
            "augment",
            int(mine[0]["cases"]),
            int(mine[0]["groups"]),
            key[2],
            str(mine[0]["unit"]),
        )
        for key, mine in grouped.items()
    }


def _place(one: Mapping[str, Any], first_segmenter: str) -> Key:
    segmenter = first_segmenter if one["arm"] in OWN_SEGMENTER else one["segmenter"]
    return one["data"], segmenter, int(one["size"])


def _arm(one: Mapping[str, Any]) -> ArmResult:
    against = one.get("versus_augment")
    test = None
    if against:
        test = PairedTest(
            Interval(**against["difference"]), against["p"], against["wins"], against["losses"], against["ties"]
        )
    intervals = {
        score: Interval(**one[score]) for score in _SCORES if one.get(score) and one[score]["mean"] is not None
    }
    return ArmResult(one["arm"], intervals, test, against.get("p_holm") if against else None, one["dice_by_seed"])


def _largest(found: Mapping[Key, Comparison]) -> dict[Key, Comparison]:
    """Return the comparisons with the most training cases."""
    most = {key[:2]: max(k[2] for k in found if k[:2] == key[:2]) for key in found}
    return {key: one for key, one in found.items() if key[2] == most[key[:2]]}


def _judged(first: Comparison) -> str:
    """Return the arm the verdict is about: GenSeg, or what there is of it."""
    return next((arm for arm in ("genseg", *study_parts.SYNTHETIC) if first.arm(arm) is not None), "genseg")


def _first(found: Mapping[Key, Comparison], summary: Mapping[str, Any]) -> Comparison:
    """Return the comparison the verdict is about: the study's own data set, its first segmenter, with GenSeg."""
    segmenter = summary["settings"]["segmenters"][0]
    own = data_name(summary["settings"]["data"])

    def rank(item: tuple[Key, Comparison]) -> tuple[bool, bool, bool]:
        (name, kind, _), one = item
        return one.arm("genseg") is None, kind != segmenter, name != own

    return min(found.items(), key=rank)[1]


def _case_results(rows: Sequence[Mapping[str, str]], key: Key, first_segmenter: str) -> dict[str, list[CaseResult]]:
    """Return scores by arm, each case the mean over its seeds."""
    mine = [row for row in rows if _place(row, first_segmenter) == key]
    arms = sorted({row["arm"] for row in mine}, key=arm_style)
    return {arm: read_case_scores([dict(row) for row in mine if row["arm"] == arm]) for arm in arms}


def _detail(
    folder: Path, summary: Mapping[str, Any], key: Key, ours: str, arms: dict[str, list[CaseResult]],
    data: str | None, device: str, pictures: bool,
) -> tuple[list[Section], Run | None]:  # fmt: skip
    """Return one training of an arm in detail: that of the seed in the middle, of two the one with less Dice."""
    cells = [
        cell
        for cell in summary["cells"]
        if (cell["segmenter"], int(cell["size"])) == key[1:] and cell["purpose"] == "score" and cell["state"] == "done"
    ]
    own = sorted((cell for cell in cells if cell["arm"] == ours), key=lambda cell: cell["dice"].get(key[0], 0))
    if not own:
        return [], None
    chosen = own[(len(own) - 1) // 2]
    run = replace(read_run(folder / chosen["folder"]), arms=arms, own=ours)
    rival = next((c for c in cells if c["arm"] == "augment" and c["seed"] == chosen["seed"]), None)
    judge_run = read_run(folder / rival["folder"]) if rival is not None else None
    scored = _scored(summary, key[0], data) if pictures else None
    if pictures and scored is None:
        pictures = False
    sections = seen_sections(run, data=data, device=device, pictures=pictures, scored=scored, judge_run=judge_run)
    note = Text(
        f"In detail: the training {chosen['id']}, of the seed whose Dice lies in the middle (of two, the lower). The "
        "Dice of a case is the mean over all seeds; outlines are those of this training.",
        small=True,
    )
    return [Section(one.title, [note, *one.blocks] if i == 0 else one.blocks) for i, one in enumerate(sections)], run


def _scored(summary: Mapping[str, Any], name: str, data: str | None) -> list[dict[str, Any]] | None:
    """Return the cases that were scored, None where the data are gone."""
    held: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in summary["settings"].items()}
    try:
        _, scored = study_cases(StudySettings(**{**held, "data": data or held["data"]}))
    except (UserError, OSError):
        return None
    return scored.get(name) or next((cases for known, cases in scored.items() if known != "val"), None)


def _tiles(first: Comparison, ours: str, summary: Mapping[str, Any], key: Key) -> list[Tile]:
    found = []
    for arm in (ours, first.reference):
        if (one := first.arm(arm)) is not None:
            d = one.intervals["dice"]
            found.append(Tile(f"Dice, {arm_title(arm)}", f"{d.mean:.3f}", f"95 % {d.low:.3f} to {d.high:.3f}"))
    seeds = max(1, len(first.gains_by_seed(ours)))
    found.append(Tile("Training cases", str(first.size), f"{seeds} seed{'s' if seeds > 1 else ''}, "
                      f"{first.cases} test cases"))  # fmt: skip
    wanted = (*key[:2], ours, "plain")
    saved = [n for n in summary.get("cases_needed", ())
             if (n["data"], n["segmenter"], n["arm"], n["reference"]) == wanted]  # fmt: skip
    if saved:
        times = saved[0]["times_fewer"]
        least = "at least " if saved[0]["reached"] == "smallest" else ""
        told = "none" if times is None else f"{least}{times:.1f} times"
        found.append(Tile("Fewer cases than plain", told, "for the Dice of plain"))
    return found
