"""Which training cases an in-context segmenter keeps, and what it starts from."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genseg_monai.data.resident import ResidentCases
from genseg_monai.engines.settings import LoopSettings
from genseg_monai.errors import UserError
from genseg_monai.handlers.supports import Supports, choose_supports
from genseg_monai.networks.in_context_network import InContextNetwork
from genseg_monai.networks.universeg import UniverSeg


def network(dims: int = 2) -> InContextNetwork:
    return InContextNetwork(
        spatial_dims=dims, in_channels=1, out_channels=3, image_size=(8,) * dims, support_size=2, features=(4, 4)
    )


def engine(iteration: int = 0) -> SimpleNamespace:
    """Return what the handler looks at of a trainer: five cases, of which stage III keeps the last."""
    labels = torch.tensor([1, 1, 2, 0, 2]).reshape(5, 1, 1, 1).expand(5, 1, 8, 8)
    cases = ResidentCases(torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 8, 8) / 5, labels.byte(), "abcde")
    state = SimpleNamespace(iteration=iteration)
    return SimpleNamespace(
        state=state,
        loader=SimpleNamespace(cases=cases),
        train_cases=[0, 1, 2, 3],
        search_cases=[4],
        settings=LoopSettings(),
    )


def weights(path: Path, dims: int = 2) -> dict[str, torch.Tensor]:
    held = UniverSeg(spatial_dims=dims, features=(4, 4)).state_dict()
    torch.save(held, path)
    return held


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_shown_before_any_is_shown_twice(seed):
    labels = torch.tensor([1, 1, 1, 1, 2, 3, 0, 2]).reshape(8, 1, 1, 1)
    chosen = choose_supports(labels, [0, 1, 2, 4, 5, 6, 7], 7, seed)
    shown = labels[chosen].flatten().tolist()
    assert sorted(shown[:3]) == [1, 2, 3]
    assert sorted(shown[3:5]) == [1, 2]
    assert sorted(chosen) == [0, 1, 2, 4, 5, 6, 7]


def test_the_choice_follows_the_seed():
    labels = torch.ones(30, 1, 1, 1)
    first = choose_supports(labels, range(30), 5, seed=1)
    assert first == choose_supports(labels, range(30), 5, seed=1)
    assert first != choose_supports(labels, range(30), 5, seed=2)


def test_network_starts_from_the_weights_and_keeps_training_cases(tmp_path, caplog):
    held, segmenter = weights(tmp_path / "model.pt"), network()
    handler = Supports(segmenter, tmp_path / "model.pt")
    for name, value in segmenter.network.state_dict().items():
        assert torch.equal(value, held[name])
    with caplog.at_level(logging.INFO):
        handler(engine())
    assert int(segmenter.support_held) == 2
    assert sorted(segmenter.support_labels.flatten(1)[:, 0].tolist()) == [1, 2]
    assert float(segmenter.support_images.max()) < 0.7, "a case of stage III"
    assert "2 training cases are kept in the model" in caplog.text
    assert "random weights" not in caplog.text
    assert "stage III may judge" not in caplog.text


def test_a_search_that_keeps_no_case_judges_by_supports_and_that_is_told(tmp_path, caplog):
    given = engine()
    given.search_cases = given.train_cases
    Supports(network(), tmp_path / "none.pt")(given)
    assert "stage III may judge by cases that the segmenter looks at" in caplog.text
    caplog.clear()
    given.settings = LoopSettings(outer_every=0)
    Supports(network(), tmp_path / "none.pt")(given)
    assert "stage III" not in caplog.text


def test_a_run_that_is_continued_has_its_supports(tmp_path):
    segmenter = network()
    Supports(segmenter, tmp_path / "none.pt")(engine(iteration=7))
    assert not segmenter.support_held


@pytest.mark.parametrize(("dims", "why"), [(None, "there is no "), (3, "of another shape")])
def test_random_weights_are_told(tmp_path, caplog, dims, why):
    if dims is not None:
        weights(tmp_path / "model.pt", dims)
    Supports(network(), tmp_path / "model.pt")(engine())
    assert "universeg starts from random weights" in caplog.text
    assert why in caplog.text


def test_wrong_use(tmp_path):
    with pytest.raises(TypeError, match="wanted an InContextNetwork, got Linear"):
        Supports(nn.Linear(1, 1), tmp_path / "model.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="wanted weights of UniverSeg"):
        Supports(network(), tmp_path / "model.pt")
