from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from genseg_monai.errors import UserError
from genseg_monai.handlers.case_scores import CaseScores


def _mask(rows: slice, source: str = "a.nii.gz", spacing: float = 2.0) -> MetaTensor:
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[:, rows, 2:6] = 1
    affine = torch.diag(torch.tensor([spacing, spacing, 1.0, 1.0], dtype=torch.float64))
    return MetaTensor(mask, affine=affine, meta={"filename_or_obj": source})


def _run(handler: CaseScores, outputs: list[dict[str, Any]]) -> Engine:
    def step(engine: Engine, i: int) -> list[dict[str, Any]]:
        engine.state.batch = [{"case": f"case_{i}", "group": "one"}]
        return [outputs[i]]

    engine = Engine(step)
    handler.attach(engine)
    engine.run(range(len(outputs)))
    return engine


def test_scores_files_and_metrics(tmp_path: Path) -> None:
    truth = _mask(slice(2, 6))
    handler = CaseScores(tmp_path, ("background", "lesion"), name="val")
    engine = _run(handler, [{"pred": truth, "label": truth}, {"pred": _mask(slice(3, 7)), "label": truth}])
    assert [(row.case, row.group, row.dice, row.hd95, row.unit) for row in handler.rows] == [
        ("case_0", "one", 1.0, 0.0, "mm"),
        ("case_1", "one", 0.75, 2.0, "mm"),
    ]
    assert engine.state.metrics["mean_dice"] == pytest.approx(0.875)
    assert (tmp_path / "val.csv").read_text().count("\n") == 3
    assert json.loads((tmp_path / "val_summary.json").read_text())["cases"] == 2
    assert "0.875" in handler.table()


def test_a_picture_is_measured_in_pixels(tmp_path: Path) -> None:
    handler = CaseScores(tmp_path, ("background", "lesion"))
    _run(handler, [{"pred": _mask(slice(3, 7), "a.png"), "label": _mask(slice(2, 6), "a.png")}])
    assert (handler.rows[0].hd95, handler.rows[0].unit) == (1.0, "pixel")


def test_a_second_run_starts_anew(tmp_path: Path) -> None:
    handler = CaseScores(tmp_path, ("background", "lesion"))
    for _ in range(2):
        _run(handler, [{"pred": _mask(slice(2, 6)), "label": _mask(slice(2, 6))}])
    assert len(handler.rows) == 1


def test_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.nii.gz: wanted a mask of the image's size 4 x 8, got 8 x 8"):
        _run(
            CaseScores(tmp_path, ("background", "lesion")),
            [{"pred": torch.zeros(1, 4, 8), "label": _mask(slice(2, 6))}],
        )


def test_no_case(tmp_path: Path) -> None:
    handler = CaseScores(tmp_path, ("background", "lesion"))
    assert handler.table() == "no case was scored"
    engine = Engine(lambda *_: None)
    handler.attach(engine)
    handler._finish(engine)
    assert not list(tmp_path.iterdir())
