"""From the scores of every case to means with intervals, paired tests, and cases saved: pure functions of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from genseg_monai.apps.studies.cells import OWN_SEGMENTER, Arm
from genseg_monai.metrics.cases import SCORES, Empty
from genseg_monai.metrics.statistics import bootstrap_mean, cases_needed, group_means, holm, paired_test

__all__ = ["COLUMNS", "Row", "summarise_study"]


@dataclass(frozen=True)
class Row:
    """The scores of one class in one case by one cell; the columns of ``scores.csv``.

    Example:
        >>> Row("kvasir", "plain", "unet", 40, 0, "c1", "c1", "polyp", 0.8, 0.667, 9.0, 0.5, "pixel", "neither").dice
        0.8
    """

    data: str
    arm: str
    segmenter: str
    size: int
    seed: int
    case: str
    group: str
    class_name: str
    dice: float
    jaccard: float
    hd95: float
    surface_dice: float
    unit: str
    empty: str


COLUMNS = [field.name for field in fields(Row)]

_Key = tuple[str, str, int, str]  # data, segmenter, size, arm


def summarise_study(rows: Sequence[Row], first_segmenter: str) -> dict[str, Any]:
    """Summarise the scores of a study.

    A case counts once: its scores are averaged over classes, then over seeds. Intervals draw patients (groups) with
    replacement. The Wilcoxon test pairs the cases of an arm with those of ``augment`` at the same data set, segmenter
    and size, over the seeds that both have; Holm's correction is over the arms of one such family.

    Args:
        rows: of all cells.
        first_segmenter: whose ``augment`` the arms with a segmenter of their own are compared with.

    Returns:
        ``results``: for each data set, segmenter, size and arm its ``cases``, ``groups``, ``seeds``, ``unit``,
        ``dice``, ``jaccard``, ``hd95``, ``surface_dice`` (each ``mean``, ``low``, ``high``), ``dice_by_seed``,
        ``classes`` (the same by class), ``empty`` (how often ``both``, ``prediction``, ``truth`` lacked a class, over
        all seeds) and ``versus_augment`` (``difference`` with ``mean``, ``low``, ``high``; ``p``, ``p_holm``, ``wins``,
        ``losses``, ``ties``; None for ``augment`` itself and without it).
        ``cases_needed``: for each data set, segmenter and arm and for ``reference`` ``plain`` and ``augment``: the
        ``target`` (Dice of the reference with its most cases, ``at``), the ``cases`` with which the arm reaches it
        (None: not at all), ``reached`` (``inside``, ``smallest``, ``never``) and ``times_fewer``.
    """
    by_key: dict[_Key, list[Row]] = {}
    for row in rows:
        by_key.setdefault((row.data, row.segmenter, row.size, row.arm), []).append(row)
    order = {str(arm): place for place, arm in enumerate(Arm)}
    # an arm with a segmenter of its own stands among those it is compared with
    keys = sorted(by_key, key=lambda key: (*_partner(key, first_segmenter)[:3], order[key[3]]))
    results = [_result(key, by_key[key]) for key in keys]
    tests: dict[_Key, Any] = {}
    for key in keys:
        partner = _partner(key, first_segmenter)
        if key[3] != Arm.AUGMENT and partner in by_key:
            tests[key] = _test(by_key[key], by_key[partner])
    families: dict[_Key, dict[_Key, float]] = {}
    for key, test in tests.items():
        if test is not None:
            families.setdefault(_partner(key, first_segmenter), {})[key] = test["p"]
    for family in families.values():
        for key, p in holm(family).items():
            tests[key]["p_holm"] = p
    for key, result in zip(keys, results, strict=True):
        result["versus_augment"] = tests.get(key)
    return {"results": results, "cases_needed": _all_cases_needed(results, first_segmenter)}


def _partner(key: _Key, first_segmenter: str) -> _Key:
    """Return the key of ``augment`` that an arm is compared with."""
    data, segmenter, size, arm = key
    return data, first_segmenter if Arm(arm) in OWN_SEGMENTER else segmenter, size, str(Arm.AUGMENT)


def _by_case(rows: Sequence[Row], score: str) -> tuple[list[str], list[float], list[str]]:
    """Return case names, their scores averaged over classes and seeds, and their groups."""
    groups = {row.case: row.group for row in rows}
    # every seed has every class of a case, so one mean over all rows is the mean of means
    means = group_means([getattr(row, score) for row in rows], [row.case for row in rows])
    return list(means), list(means.values()), [groups[case] for case in means]


def _scores(rows: Sequence[Row]) -> dict[str, Any]:
    found = {}
    for score in SCORES:
        _, values, groups = _by_case(rows, score)
        found[score] = asdict(bootstrap_mean(values, groups))
    return found


def _result(key: _Key, rows: Sequence[Row]) -> dict[str, Any]:
    data, segmenter, size, arm = key
    cases, _, groups = _by_case(rows, "dice")
    seeds = sorted({row.seed for row in rows})
    classes = list(dict.fromkeys(row.class_name for row in rows))
    by_seed = group_means([row.dice for row in rows], [str(row.seed) for row in rows])
    return {
        "data": data,
        "segmenter": segmenter,
        "size": size,
        "arm": arm,
        "cases": len(cases),
        "groups": len(set(groups)),
        "seeds": seeds,
        "unit": rows[0].unit if len({row.unit for row in rows}) == 1 else "mixed",
        **_scores(rows),
        "dice_by_seed": {seed: round(value, 6) for seed, value in by_seed.items()},
        "classes": {name: _scores([row for row in rows if row.class_name == name]) for name in classes},
        "empty": {str(kind): sum(row.empty == kind for row in rows) for kind in Empty if kind is not Empty.NEITHER},
    }


def _test(ours: Sequence[Row], theirs: Sequence[Row]) -> dict[str, Any] | None:
    """Compare the Dice of two arms on the cases and seeds that both have; None where there are none."""
    seeds = {row.seed for row in ours} & {row.seed for row in theirs}
    if not seeds:
        return None
    names, values, groups = _by_case([row for row in ours if row.seed in seeds], "dice")
    other_names, other_values, _ = _by_case([row for row in theirs if row.seed in seeds], "dice")
    other = dict(zip(other_names, other_values, strict=True))
    both = [i for i, name in enumerate(names) if name in other]
    if not both:
        return None
    test = paired_test([values[i] for i in both], [other[names[i]] for i in both], [groups[i] for i in both])
    return asdict(test)


def _all_cases_needed(results: Sequence[dict[str, Any]], first_segmenter: str) -> list[dict[str, Any]]:
    curves: dict[tuple[str, str, str], dict[int, float]] = {}
    for one in results:
        curves.setdefault((one["data"], one["segmenter"], one["arm"]), {})[one["size"]] = one["dice"]["mean"]
    found = []
    for (data, segmenter, arm), curve in curves.items():
        for reference in (Arm.PLAIN, Arm.AUGMENT):
            theirs = curves.get((data, first_segmenter if Arm(arm) in OWN_SEGMENTER else segmenter, str(reference)))
            if theirs is None or len(curve) < 2:
                continue
            most = max(theirs)
            sizes = sorted(curve)
            need = cases_needed(sizes, [curve[size] for size in sizes], theirs[most])
            found.append(
                {
                    "data": data,
                    "segmenter": segmenter,
                    "arm": arm,
                    "reference": str(reference),
                    "target": theirs[most],
                    "at": most,
                    "cases": need.cases,
                    "reached": str(need.reached),
                    "times_fewer": None if need.cases is None else most / need.cases,
                }
            )
    return found
