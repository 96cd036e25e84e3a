from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from genseg_monai.inferers.in_context_segmenter import Segmented
from genseg_monai.inferers.ranking import RankedCase, compare, disagreement, rank, write_ranking


def test_disagreement_is_one_less_the_mean_dice() -> None:
    one = torch.tensor([[[0, 1, 1, 2, 2, 2]]])
    other = torch.tensor([[[1, 1, 1, 2, 0, 0]]])
    assert disagreement(one, other, 3) == pytest.approx(1 - (4 / 5 + 2 / 4) / 2)
    assert disagreement(one, one, 4) == 0, "class 3 is in neither"
    assert disagreement(one, torch.zeros_like(one), 3) == 1
    assert disagreement(one, torch.where(one == 2, 0, one), 3) == 0.5


def test_order() -> None:
    cases = [RankedCase("b", 0.5, 0.2), RankedCase("a", 0.5, 0.2), RankedCase("c", 0.5, 0.4), RankedCase("d", 0.9, 0)]
    assert [(case.case, case.rank) for case in rank(cases)] == [("d", 1), ("c", 2), ("a", 3), ("b", 4)]


def test_two_segmenters_and_a_file(tmp_path: Path) -> None:
    def found(mask: list[int], doubt: float) -> Segmented:
        return Segmented(MetaTensor(torch.zeros(2, 1, 4)), MetaTensor(torch.tensor([[mask]])), doubt)

    def one(case: Mapping[str, Any]) -> Segmented:
        return found([0, 1, 1, 0], 0.2)

    def other(case: Mapping[str, Any]) -> Segmented:
        return found([0, 1, 1, 0] if case["case"] == "easy" else [1, 0, 1, 0], 0.6)

    ranked = rank(compare({"case": name}, one, other, 2) for name in ("easy", "hard"))
    assert [(case.case, case.disagreement) for case in ranked] == [("hard", 0.5), ("easy", 0.0)]
    assert ranked[0].uncertainty == pytest.approx(0.4)
    write_ranking(tmp_path / "r.csv", ranked)
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert lines == ["case,disagreement,uncertainty,rank", "hard,0.500000,0.400000,1", "easy,0.000000,0.400000,2"]
