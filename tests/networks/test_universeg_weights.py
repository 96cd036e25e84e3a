"""Weights of UniverSeg from files of other people, and what is said of files that hold none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genseg_monai.errors import UserError
from genseg_monai.networks.universeg import UniverSeg
from genseg_monai.networks.universeg_weights import load_universeg, read_universeg


def official() -> dict[str, Tensor]:
    """Return numbers under the names and in the shapes of the official checkpoint, as its file lists them."""
    weights = {}
    for group, channels in (("enc_blocks", (3, 128, 128, 128)), ("dec_blocks", (256, 256, 256))):
        for index, width in enumerate(channels):
            block = f"{group}.{index}"
            weights[f"{block}.cross.cross_conv.weight"] = torch.randn(64, width, 3, 3)
            weights[f"{block}.cross.cross_conv.bias"] = torch.randn(64)
            for stream in ("target", "support"):
                weights[f"{block}.{stream}.vmapped.conv.weight"] = torch.randn(64, 64, 3, 3)
                weights[f"{block}.{stream}.vmapped.conv.bias"] = torch.randn(64)
    return weights | {"out_conv.conv.weight": torch.randn(1, 64, 1, 1), "out_conv.conv.bias": torch.randn(1)}


def saved(path: Path, held: Any) -> Path:
    torch.save(held, path)
    return path


def test_the_official_checkpoint_is_taken_as_it_is(tmp_path):
    weights = official()
    network = load_universeg(saved(tmp_path / "official.pt", weights), support_chunk=4, recompute=True)
    assert (network.support_chunk, network.recompute, network.cross_activation) == (4, True, False)
    held = network.state_dict()
    assert len(weights) == 44
    assert held.keys() == weights.keys()
    assert all(torch.equal(held[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    "settings",
    [
        {"features": (4, 6, 8)},
        {"features": (4, 4), "spatial_dims": 3, "in_channels": 2, "out_channels": 3},
        {"features": (5,), "cross_activation": True},
    ],
)
def test_shapes_tell_the_network(tmp_path, settings):
    network = UniverSeg(**settings)
    path = saved(tmp_path / "model.pt", network.state_dict())
    again = load_universeg(path, cross_activation=settings.get("cross_activation", False))
    size = (8, 8, 8)[: network.spatial_dims]
    images = torch.rand(1, 3, network.in_channels, *size)
    inputs = images[:, 0], images, torch.ones(1, 3, 1, *size)
    torch.testing.assert_close(again(*inputs), network(*inputs), rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.network."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_wrapped_and_prefixed(tmp_path, prefix, key):
    weights = UniverSeg(features=(4, 4)).state_dict()
    given: dict[str, Any] = {prefix + name: value for name, value in weights.items()}
    held = given if key is None else {"epoch": 3, key: given}
    read = read_universeg(saved(tmp_path / "model.pt", held))
    assert read.keys() == weights.keys()


def test_differences_are_a_table(tmp_path):
    weights = official()
    del weights["enc_blocks.2.target.vmapped.conv.bias"]
    weights["dec_blocks.0.cross.cross_conv.weight"] = torch.zeros(64, 128, 3, 3)
    weights["extra.weight"] = torch.zeros(2)
    wanted = (
        r"wanted 44 weights of UniverSeg, 3 differ: name \| expected \| got; "
        r"enc_blocks.2.target.vmapped.conv.bias \| 64 \| none; "
        r"dec_blocks.0.cross.cross_conv.weight \| 64 256 3 3 \| 64 128 3 3; extra.weight \| none \| 2$"
    )
    with pytest.raises(UserError, match=wanted):
        load_universeg(saved(tmp_path / "model.pt", weights))


def test_a_long_table_is_cut(tmp_path):
    weights = {name: value for name, value in official().items() if "cross_conv.bias" not in name}
    weights |= {f"more.{index}": torch.zeros(1) for index in range(3)}
    with pytest.raises(UserError, match=r"10 differ: .*; and 2 more$"):
        load_universeg(saved(tmp_path / "model.pt", weights))


def test_files_without_such_weights(tmp_path):
    with pytest.raises(UserError, match="there is no such file; correct the path"):
        read_universeg(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("weights", encoding="utf-8")
    with pytest.raises(UserError, match="wanted weights, cannot read them"):
        read_universeg(tmp_path / "text.pt")
    with pytest.raises(UserError, match="out_conv.conv.weight among them, got weight, bias; give others"):
        read_universeg(saved(tmp_path / "other.pt", torch.nn.Linear(2, 2).state_dict()))
    with pytest.raises(UserError, match="got list; give others"):
        read_universeg(saved(tmp_path / "list.pt", [torch.zeros(1)]))
    with pytest.raises(UserError, match="and no first block; give others"):
        load_universeg(saved(tmp_path / "half.pt", {"out_conv.conv.weight": torch.zeros(1, 4, 1, 1)}))


def test_a_file_with_code_is_refused(tmp_path):
    with pytest.raises(UserError, match="wanted weights, cannot read them"):
        read_universeg(saved(tmp_path / "module.pt", torch.nn.Linear(2, 2)))
