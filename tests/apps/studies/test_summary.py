"""The summary of made-up scores against numbers worked out another way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from genseg_monai.apps.studies.results import results_table
from genseg_monai.apps.studies.summary import Row, summarise_study

CASES = [f"c{i:02d}" for i in range(20)]
LIFT = {"plain": 0.0, "augment": 0.05, "genseg": 0.1}


def rows(sizes: tuple[int, ...] = (10, 20, 40), seeds: tuple[int, ...] = (0, 1), data: str = "feet") -> list[Row]:
    random = np.random.default_rng(0)
    base = {case: random.uniform(0.3, 0.6) for case in CASES}
    return [
        Row(data, arm, "unet", size, seed, case, case[:2], name, dice, dice / (2 - dice), 5.0, 0.5, "pixel", empty)
        for arm, lift in LIFT.items()
        for size in sizes
        for seed in seeds
        for case in CASES
        for name in ("ulcer", "edge")
        if (dice := base[case] + lift + 0.1 * np.log2(size / 10) + 0.02 * random.normal()) is not None
        and (empty := "both" if case == "c00" and name == "edge" else "neither")
    ]


def one(summary: dict, arm: str, size: int) -> dict:
    [found] = [r for r in summary["results"] if (r["arm"], r["size"]) == (arm, size)]
    return found


def test_means_and_tests_against_numpy_and_scipy() -> None:
    held = rows()
    summary = summarise_study(held, "unet")
    table = {
        arm: np.array([np.mean([r.dice for r in held if (r.arm, r.size, r.case) == (arm, 40, case)]) for case in CASES])
        for arm in LIFT
    }
    for arm in LIFT:
        found = one(summary, arm, 40)
        assert found["dice"]["mean"] == pytest.approx(table[arm].mean())
        assert found["dice"]["low"] < found["dice"]["mean"] < found["dice"]["high"]
        assert (found["cases"], found["groups"], found["seeds"]) == (20, 2, [0, 1])
        assert found["empty"] == {"both": 2, "prediction": 0, "truth": 0}
        assert set(found["classes"]) == {"ulcer", "edge"}
        assert np.mean(list(found["dice_by_seed"].values())) == pytest.approx(found["dice"]["mean"], abs=1e-5)
    assert one(summary, "augment", 40)["versus_augment"] is None
    against = one(summary, "genseg", 40)["versus_augment"]
    assert against["difference"]["mean"] == pytest.approx((table["genseg"] - table["augment"]).mean())
    assert json.loads(json.dumps(summary)) == summary


def test_the_test_pairs_patients_and_is_corrected() -> None:
    held = [Row(**{**vars(r), "group": r.case}) for r in rows(sizes=(40,))]  # every case a patient: twenty pairs
    summary = summarise_study(held, "unet")
    mean = {arm: [np.mean([r.dice for r in held if (r.arm, r.case) == (arm, case)]) for case in CASES] for arm in LIFT}
    p = {arm: stats.wilcoxon(mean[arm], mean["augment"]).pvalue for arm in ("plain", "genseg")}
    smaller, larger = sorted(p, key=p.__getitem__)
    for arm, wanted in ((smaller, min(1, 2 * p[smaller])), (larger, max(2 * p[smaller], p[larger]))):
        found = one(summary, arm, 40)["versus_augment"]
        assert found["p"] == pytest.approx(p[arm])
        assert found["p_holm"] == pytest.approx(wanted)
    genseg = one(summary, "genseg", 40)["versus_augment"]
    assert (genseg["wins"], genseg["losses"]) == (20, 0)
    assert one(summary, "plain", 40)["versus_augment"]["losses"] == 20


def test_only_common_seeds_are_paired() -> None:
    held = [r for r in rows(sizes=(40,)) if not (r.arm == "genseg" and r.seed == 1)]
    against = one(summarise_study(held, "unet"), "genseg", 40)["versus_augment"]
    both = {arm: np.mean([r.dice for r in held if r.arm == arm and r.seed == 0]) for arm in ("genseg", "augment")}
    assert against["difference"]["mean"] == pytest.approx(both["genseg"] - both["augment"])
    alone = [r for r in held if not (r.arm == "augment" and r.seed == 0)]
    assert one(summarise_study(alone, "unet"), "genseg", 40)["versus_augment"] is None


def test_cases_needed() -> None:
    summary = summarise_study(rows(), "unet")
    need = {(n["arm"], n["reference"]): n for n in summary["cases_needed"]}
    genseg = need["genseg", "plain"]
    # Dice rises by 0.1 a doubling and GenSeg starts 0.1 higher: half the cases do
    assert genseg["at"] == 40
    assert genseg["cases"] == pytest.approx(20, rel=0.08)
    assert genseg["times_fewer"] == pytest.approx(2, rel=0.08)
    assert need["plain", "augment"]["reached"] == "never"
    assert need["plain", "augment"]["times_fewer"] is None
    assert need["augment", "augment"]["cases"] == pytest.approx(40)
    assert summarise_study(rows(sizes=(40,)), "unet")["cases_needed"] == []


def test_an_arm_with_its_own_segmenter_joins_the_family_of_the_first() -> None:
    held = rows(sizes=(40,))
    held += [Row(**{**vars(r), "arm": "nnunet_style", "segmenter": "dynunet_deep"}) for r in held if r.arm == "plain"]
    summary = summarise_study(held, "unet")
    found = one(summary, "nnunet_style", 40)["versus_augment"]
    assert found["difference"] == one(summary, "plain", 40)["versus_augment"]["difference"]
    assert found["p_holm"] >= found["p"]


def test_table() -> None:
    text = results_table(summarise_study(rows(), "unet"))
    assert "feet  40" in text
    assert text.count("genseg") == 3 + 2
    assert results_table(summarise_study([], "unet")) == "no cell is done yet"
