"""Several segmenters as one: whose probabilities are averaged, and what is mirrored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn

from genseg_monai.errors import UserError
from genseg_monai.inferers.ensemble import EnsembleInferer, Member, find_members, make_inferer, mirror_axis
from genseg_monai.inferers.temperature import read_temperature
from genseg_monai.transforms import BatchAugment, NnUNetAugment, WarpRanges


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Conv2d(1, 3, 3, padding=1).eval()


def saved(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.pt"
    torch.save(network(seed).state_dict(), path)
    return path


IMAGES = torch.rand(2, 1, 6, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_mean_of_tempered_probabilities(tmp_path: Path) -> None:
    members = [Member(None, 2.0), Member(saved(tmp_path, 1), 0.5), Member(saved(tmp_path, 2))]
    inferer = EnsembleInferer(members)
    wanted = sum((network(i)(IMAGES) / t).softmax(1) for i, t in enumerate((2.0, 0.5, 1.0))) / 3
    for _ in range(2):  # the second call uses what the first has loaded
        torch.testing.assert_close(inferer(IMAGES, network()).softmax(1), wanted)


@torch.no_grad()
def test_the_mirrored_image_is_mirrored_back() -> None:
    wanted = (network()(IMAGES).softmax(1) + network()(IMAGES.flip(3)).softmax(1).flip(3)) / 2
    torch.testing.assert_close(EnsembleInferer([Member(None)], flip_axis=1)(IMAGES, network()).exp(), wanted)
    mirrored = EnsembleInferer([Member(None)], flip_axis=1)(IMAGES.flip(3), network()).flip(3)
    torch.testing.assert_close(mirrored.exp(), wanted)


@torch.no_grad()
def test_a_network_that_is_sure_stays_finite() -> None:
    sure = network()
    sure.weight.mul_(1e6)
    assert bool(EnsembleInferer([Member(None)])(IMAGES, sure).isfinite().all())


def bundle(folder: Path, temperature: float | None = None, **traits: object) -> Path:
    """Write what `find_members` looks at."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.yaml").write_text(
        json.dumps({"plan": {"size": [8, 8]}, "segmenter": "u"} | traits)
    )
    (folder / "models" / "model.pt").write_bytes(b"")
    if temperature is not None:
        (folder / "models" / "calibration").mkdir()
        (folder / "models" / "calibration" / "temperature.json").write_text(json.dumps({"temperature": temperature}))
    return folder


def test_the_members_of_one_bundle_are_its_snapshots(tmp_path: Path) -> None:
    one = bundle(tmp_path / "a", 1.5)
    assert find_members(one) == [Member(None, 1.5)]
    (one / "models" / "snapshots").mkdir()
    paths = [one / "models" / "snapshots" / name for name in ("step_000060.pt", "step_000080.pt")]
    for path in paths:
        path.write_bytes(b"")
    assert find_members(one) == [Member(None, 1.5), *(Member(path, 1.5) for path in paths)]


def test_several_bundles_each_with_its_temperature(tmp_path: Path) -> None:
    one, two = bundle(tmp_path / "a", 1.5), bundle(tmp_path / "b")
    wanted = [Member(None, 1.5), Member(two / "models" / "model.pt", 1.0)]
    assert find_members(one, [str(two)]) == find_members(one, f"{two}") == wanted
    three = bundle(tmp_path / "c", 3.0)
    assert [member.temperature for member in find_members(one, f"{two}, {three}")] == [1.5, 1.0, 3.0]


def test_bundles_that_do_not_belong_together(tmp_path: Path) -> None:
    one = bundle(tmp_path / "a")
    for name, other, told in [
        ("b", {"segmenter": "v"}, "wanted the segmenter of"),
        ("c", {"plan": {"size": [9, 9]}}, "wanted the plan of"),
        ("d", {"plan": {}, "segmenter": "v"}, "wanted the plan and the segmenter of"),
    ]:
        with pytest.raises(UserError, match=told):
            find_members(one, [str(bundle(tmp_path / name, **other))])
    with pytest.raises(UserError, match=r"has no models/model\.pt"):
        find_members(one, [str(tmp_path / "nowhere")])


def test_weights_of_another_network_are_told(tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x\.pt: wanted weights of the same segmenter"):
        EnsembleInferer([Member(tmp_path / "x.pt")])(IMAGES, network())
    with pytest.raises(UserError, match="got none"):
        EnsembleInferer([])


def test_without_uncertainty_the_network_is_called() -> None:
    assert type(make_inferer("anything")) is SimpleInferer


def test_the_axis_that_the_training_mirrors() -> None:
    """None where left is not right, whatever augments the real pairs."""
    assert mirror_axis(BatchAugment(warp=WarpRanges(flip_axis=0)), 2) == 0
    assert mirror_axis(BatchAugment(warp=WarpRanges(flip=0.0)), 2) is None
    assert mirror_axis(NnUNetAugment(), 3) == 0
    assert mirror_axis(NnUNetAugment(mirror=0.0), 3) is None
    assert mirror_axis(None, 2) is None


@pytest.mark.parametrize("text", ["", "{}", '{"temperature": null}', '{"temperature": -1}', '{"temperature": NaN}'])
def test_a_damaged_temperature_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "models" / "calibration").mkdir(parents=True)
    (tmp_path / "models" / "calibration" / "temperature.json").write_text(text)
    with pytest.raises(UserError, match=r"temperature\.json: wanted a temperature"):
        read_temperature(tmp_path)
