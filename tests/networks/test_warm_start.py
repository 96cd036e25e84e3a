"""Starting from weights of another network."""

from __future__ import annotations

import logging

import pytest
import torch

from genseg_monai.networks import make_segmenter, warm_startable
from genseg_monai.networks.warm_start import misfits


def _network(dims: int = 2, classes: int = 2) -> torch.nn.Module:
    settings = {"spatial_dims": dims, "in_channels": 1, "out_channels": classes, "features": (4,) * 6}
    return make_segmenter("unet_small", **settings)


def test_equal_weights_are_taken_whole() -> None:
    given = _network().state_dict()
    network = warm_startable(_network())
    assert network.load_state_dict(given, strict=True).missing_keys == []
    assert all(torch.equal(value, given[name]) for name, value in network.state_dict().items())


def test_another_number_of_classes_costs_the_last_layer_alone(caplog: pytest.LogCaptureFixture) -> None:
    given, network = _network(classes=2).state_dict(), warm_startable(_network(classes=3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="genseg_monai"):
        left = network.load_state_dict(given, strict=False)
    assert set(left.missing_keys) == {"final_conv.weight", "final_conv.bias"}
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] if name in left.missing_keys else given[name])
    assert f"{len(before) - 2} of {len(before)} fit" in caplog.text


def test_of_a_network_for_pictures_nothing_is_taken_for_volumes() -> None:
    network = warm_startable(_network(3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(_network(2).state_dict(), strict=False)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_strict_loading_is_refused_as_ever() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        warm_startable(_network(3)).load_state_dict(_network(2).state_dict())


def test_misfits() -> None:
    assert misfits(_network(), _network().state_dict()) == []
    assert misfits(_network(), _network(classes=3).state_dict()) == ["final_conv.bias", "final_conv.weight"]
    assert "extra" in misfits(_network(), {**_network().state_dict(), "extra": torch.zeros(1)})
