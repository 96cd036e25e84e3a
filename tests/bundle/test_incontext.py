"""The config of segmenting by examples, as MONAI runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from genseg_monai._outcome import one_line
from genseg_monai.networks.universeg import UniverSeg
from tests.bundle.tiny import SHIPPED
from tests.data.sets import pictures


def _workflow(tmp_path: Path, **overrides: Any) -> ConfigWorkflow:
    torch.save(UniverSeg(features=(2, 2)).state_dict(), tmp_path / "weights.pt")
    return ConfigWorkflow(
        str(SHIPPED / "configs" / "incontext.yaml"),
        workflow_type="infer",
        logging_file=False,
        device="cpu",
        size=32,
        support_dir=str(pictures(tmp_path / "d")),
        dataset_dir=str(tmp_path / "d" / "images"),
        output_dir=str(tmp_path / "out"),
        **{"weights": str(tmp_path / "weights.pt"), **overrides},
    )


@pytest.mark.parametrize("run_id", ["run", "segmenting", ""])
def test_it_runs(tmp_path: Path, run_id: str) -> None:
    workflow = _workflow(tmp_path, run_id=run_id, **{"settings#ensemble": 2})
    workflow.initialize()
    assert not (tmp_path / "out").exists(), "nothing is done before run"
    workflow.run()
    masks = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in masks] == [f"c{i}.png" for i in range(6)]
    assert np.asarray(Image.open(masks[0])).shape == (20, 24)
    assert workflow.parser.get_parsed_content("settings").ensemble == 2


def test_weights_that_are_missing(tmp_path: Path) -> None:
    workflow = _workflow(tmp_path, weights=str(tmp_path / "none.pt"))
    workflow.initialize()
    with pytest.raises(RuntimeError, match="load_universeg") as caught:
        workflow.run()
    assert one_line(caught.value) == (
        f"{tmp_path / 'none.pt'}: wanted weights of UniverSeg, there is no such file; correct the path"
    )
