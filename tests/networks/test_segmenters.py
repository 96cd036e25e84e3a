from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from genseg_monai.errors import UserError
from genseg_monai.networks.segmenters import PadToFit, Segmenter, make_segmenter
from tests.networks.base import ExportedNetworkTests, Shape
from tests.networks.base import pytest_generate_tests as pytest_generate_tests


class SegmenterTests(ExportedNetworkTests):
    name: ClassVar[str]
    settings: ClassVar[dict] = {}

    def make(self, dims: int, inputs: int, outputs: int, size: tuple[int, ...]) -> nn.Module:
        return make_segmenter(
            self.name, spatial_dims=dims, in_channels=inputs, out_channels=outputs, image_size=size, **self.settings
        )


class TestUNet(SegmenterTests):
    name = "unet"
    settings: ClassVar[dict] = {"features": (4, 4, 8, 8, 8, 4)}  # the paper's widths are counted below
    shapes: ClassVar[list[Shape]] = [(2, 3, 2, (47, 33)), (3, 1, 3, (32, 33, 32))]


class TestUNetSmall(SegmenterTests):
    name = "unet_small"
    shapes: ClassVar[list[Shape]] = [(3, 2, 2, (32, 32, 32)), (2, 1, 4, (32, 45))]


class TestDeepLab(SegmenterTests):
    name = "deeplab"
    settings: ClassVar[dict] = {"backbone": "resnet10", "width": 16, "fine_width": 8}
    shapes: ClassVar[list[Shape]] = [(2, 3, 2, (47, 33)), (3, 1, 3, (17, 16, 21))]


class TestSwinUNETR(SegmenterTests):
    name = "swin_unetr"
    settings: ClassVar[dict] = {"feature_size": 12, "depths": (1, 1, 1, 1)}
    scriptable = False  # MONAI's own is not
    shapes: ClassVar[list[Shape]] = [(2, 1, 2, (40, 33))]


class TestSegResNet(SegmenterTests):
    name = "segresnet"
    settings: ClassVar[dict] = {"init_filters": 8}
    shapes: ClassVar[list[Shape]] = [(2, 3, 2, (47, 33)), (3, 1, 3, (17, 16, 21))]


class TestDynUNet(SegmenterTests):
    name = "dynunet"
    settings: ClassVar[dict] = {"filters": [4] * 8}  # takes as many as there are levels
    shapes: ClassVar[list[Shape]] = [(2, 3, 2, (47, 33)), (3, 1, 3, (17, 16, 21))]


class TestDynUNetDeep(SegmenterTests):
    name = "dynunet_deep"
    scriptable = False  # MONAI's own is not, once it is supervised at several depths
    settings: ClassVar[dict] = {"filters": [4] * 8}
    shapes: ClassVar[list[Shape]] = [(2, 3, 2, (47, 33))]


def dynunet_strides(dims: int, size: tuple[int, ...]) -> list[int]:
    """Return the strides that the factory chooses, one a level."""
    network = make_segmenter("dynunet", spatial_dims=dims, in_channels=1, out_channels=2, image_size=size)
    return network.network.strides  # type: ignore[union-attr,return-value]


def count(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize(("dims", "millions"), [(2, 31.1), (3, 90.5)])
def test_the_papers_unet(dims: int, millions: float) -> None:
    with torch.device("meta"):
        network = make_segmenter("unet", spatial_dims=dims, in_channels=3, out_channels=2)
    assert count(network) == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("dims", [2, 3])
def test_small_unet_stays_small(dims: int) -> None:
    assert count(make_segmenter("unet_small", spatial_dims=dims, in_channels=3, out_channels=4)) < 6


@pytest.mark.parametrize("name", list(Segmenter))
def test_nothing_kinked_in_place_or_with_running_statistics(name: Segmenter) -> None:
    with torch.device("meta") if name != "swin_unetr" else torch.device("cpu"):
        network = make_segmenter(name, spatial_dims=2, in_channels=1, out_channels=2, image_size=(64, 64))
    for module in network.modules():
        assert not getattr(module, "inplace", False)
        assert not isinstance(module, (nn.ReLU, nn.LeakyReLU, nn.modules.batchnorm._BatchNorm))


@pytest.mark.parametrize("name", ["unet", "deeplab", "segresnet", "dynunet", "swin_unetr"])
def test_activation_can_be_chosen(name: str) -> None:
    with torch.device("meta") if name != "swin_unetr" else torch.device("cpu"):
        network = make_segmenter(name, spatial_dims=2, in_channels=1, out_channels=2, act="relu")
    kinds = {type(module) for module in network.modules()}
    assert nn.ReLU in kinds
    assert nn.SiLU not in kinds


@pytest.mark.parametrize(("side", "levels"), [(16, 3), (32, 4), (64, 5), (128, 6), (512, 8), (2048, 8)])
def test_depth_of_dynunet_follows_the_image(side: int, levels: int) -> None:
    assert len(dynunet_strides(2, (side, 2 * side))) == levels


def test_padding_leaves_fitting_images_alone() -> None:
    class Shape(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[2:] == (32, 16)
            return x

    x = torch.rand(1, 1, 32, 16)
    assert torch.equal(PadToFit(Shape(), multiple=16, smallest=16)(x), x)
    small = torch.rand(1, 1, 17, 3)
    assert torch.equal(PadToFit(Shape(), multiple=16, smallest=16)(small), small)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vnet"}, "segmenter: wanted one of unet, unet_small, deeplab, .*, got 'vnet'"),
        ({"spatial_dims": 1}, "wanted spatial_dims 2 or 3, got 1"),
        ({"image_size": (16, 64)}, r"segmenter unet_small: wanted 2 sides of at least 32, got \(16, 64\)"),
        ({"image_size": (64, 64, 64)}, "wanted 2 sides"),
        (
            {"width": 3},
            "segmenter unet_small: wanted settings that its class has, .*unexpected keyword argument 'width'",
        ),
        ({"name": "universeg"}, "segmenter universeg: wanted the image_size of its supports, got none"),
        ({"name": "universeg", "image_size": (32, 32), "act": "relu"}, "unexpected keyword argument 'act'"),
        ({"name": "deeplab", "backbone": "vgg"}, "deeplab backbone: wanted one of resnet10, .*, got 'vgg'"),
    ],
)
def test_wrong_use(arguments: dict, message: str) -> None:
    right = {"name": "unet_small", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    with pytest.raises(UserError, match=message):
        make_segmenter(**right | arguments)
