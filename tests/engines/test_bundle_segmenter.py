"""A segmenter that follows its bundle, as a server that lives through a training in place needs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from genseg_monai.data.bundle_files import write_block
from genseg_monai.engines import current_plan
from genseg_monai.errors import UserError
from tests.bundle.tiny import PLAN_2D, PLAN_3D, make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def _parser(bundle: Path) -> ConfigParser:
    """Read a bundle as MONAI Label does, once."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.yaml"))
    parser["bundle_root"] = str(bundle)
    return parser


def _train_in_place(bundle: Path, tmp_path: Path) -> dict[str, torch.Tensor]:
    """Do to the files what a training on volumes does."""
    other = make_bundle(tmp_path / "other", PLAN_3D)
    for part in ("configs", "models"):
        shutil.copytree(other / part, bundle / part, dirs_exist_ok=True)
    return torch.load(bundle / "models" / "model.pt", weights_only=True)


def test_weights_have_the_names_they_have_without_it(bundle: Path) -> None:
    network = _parser(bundle).get_parsed_content("network_def")
    assert list(network.state_dict()) == list(torch.load(bundle / "models" / "model.pt", weights_only=True))


def test_it_is_built_anew_for_weights_of_another_plan(bundle: Path, tmp_path: Path) -> None:
    network = _parser(bundle).get_parsed_content("network_def").eval()
    weights = _train_in_place(bundle, tmp_path)
    network.load_state_dict(weights, strict=False)
    assert not network.network.training
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert network(torch.zeros(1, 1, 32, 32, 32)).shape == (1, 3, 32, 32, 32)


def test_weights_of_another_network_are_refused_even_where_that_is_not_asked_for(bundle: Path) -> None:
    network = _parser(bundle).get_parsed_content("network_def")
    with pytest.raises(UserError, match=r"wanted weights of the segmenter.*train again"):
        network.load_state_dict({"weight": torch.zeros(1)}, strict=False)


def test_preprocessing_follows_when_the_config_is_parsed_again(bundle: Path, tmp_path: Path) -> None:
    parser = _parser(bundle)
    assert parser.get_parsed_content("current") == PLAN_2D
    _train_in_place(bundle, tmp_path)
    parser.parse()  # what MONAI Label does before each image of a bundle that has displayable_configs
    assert parser.get_parsed_content("current") == PLAN_3D


def test_where_the_bundle_is_not_known_the_plan_is_as_it_was_read(bundle: Path, monkeypatch) -> None:
    monkeypatch.chdir(bundle)
    assert current_plan(".", {"size": [16]}) == {"size": [16]}
    write_block(bundle / "configs" / "inference.yaml", "plan", {"size": [48]})
    assert current_plan(bundle, {"size": [16]}) == {"size": [48]}
