from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from monai.data import MetaTensor, decollate_batch
from monai.data.utils import list_data_collate
from monai.transforms import Flip

from genseg_monai._outcome import RunFailed
from genseg_monai.data.tolerant import TolerantLoader
from genseg_monai.errors import UserError


class Cases:
    """Cases of which some cannot be read."""

    def __init__(self, broken: set[int]) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i in self.broken:
            raise UserError(f"{i}.png", "wanted an image, it is cut off")
        return {"image": torch.full((1, 2, 2), float(i)), "label": None, "case": str(i)}


def test_all_cases_come_in_batches_of_one() -> None:
    loader = TolerantLoader(Cases(set()))
    batches = list(loader)
    assert [batch["case"] for batch in batches] == [["0"], ["1"], ["2"], ["3"]]
    assert batches[2]["image"].shape == (1, 1, 2, 2)
    assert "label" not in batches[0]
    loader.raise_failures()


def test_broken_cases_are_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    loader = TolerantLoader(Cases({1, 3}), "predict")
    with caplog.at_level(logging.ERROR):
        assert [batch["case"][0] for batch in loader] == ["0", "2"]
    assert caplog.messages == [f"genseg: {i}.png: wanted an image, it is cut off" for i in (1, 3)]
    with pytest.raises(RunFailed, match="^predict: 2 of 4 inputs failed"):
        loader.raise_failures()


def test_a_batch_is_what_monai_makes_of_a_case_without_a_copy() -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    flip = Flip(1)
    image = flip(MetaTensor(torch.rand(1, 3, 4, 5), affine=affine, meta={"filename_or_obj": "a.nii"}))
    case = {"image": image, "score": torch.tensor(0.5), "plain": torch.rand(2, 3), "case": "a"}
    [batch], wanted = list(TolerantLoader([case])), list_data_collate([case])
    assert batch.keys() == wanted.keys()
    for key in ("image", "score", "plain"):
        assert torch.equal(batch[key], wanted[key])
    got, stacked = batch["image"], wanted["image"]
    assert got.data_ptr() == image.data_ptr() != stacked.data_ptr()
    assert got.is_batch
    assert got.applied_operations == stacked.applied_operations
    assert got.meta.keys() == stacked.meta.keys()
    assert torch.equal(got.affine, stacked.affine)
    [again], [as_monai] = decollate_batch(got), decollate_batch(stacked)
    assert torch.equal(again, as_monai)
    assert again.applied_operations == as_monai.applied_operations
    assert torch.equal(flip.inverse(again), flip.inverse(as_monai))


def test_failures_are_those_of_the_last_pass() -> None:
    cases = Cases({0})
    loader = TolerantLoader(cases)
    list(loader)
    cases.broken = set()
    list(loader)
    assert loader.failures == []


def test_it_has_no_length() -> None:
    """An engine that knew one would start anew to replace the cases left out."""
    assert not hasattr(TolerantLoader(Cases(set())), "__len__")
