from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from genseg_monai.errors import UserError
from genseg_monai.networks.discriminator import PatchDiscriminator
from tests.networks.base import ScriptedNetworkTests, Shape
from tests.networks.base import pytest_generate_tests as pytest_generate_tests


class TestPatchDiscriminator(ScriptedNetworkTests):
    shapes: ClassVar[list[Shape]] = [(2, 3, 2, (64, 50)), (2, 1, 4, (24, 24)), (3, 1, 3, (32, 24, 27))]

    def make(self, dims: int, inputs: int, outputs: int, size: tuple[int, ...]) -> nn.Module:
        return PatchDiscriminator(dims, inputs, outputs, width=4)

    def inputs(self, shape: Shape, batch: int = 2) -> tuple[Tensor, ...]:
        return torch.rand(batch, shape[1], *shape[3]), torch.rand(batch, shape[2], *shape[3])

    def expected(self, shape: Shape) -> tuple[int, ...]:
        return 1, *(side // 8 - 2 for side in shape[3])


def test_mask_matters() -> None:
    discriminator = PatchDiscriminator(2, 1, 2, width=4)
    image, masks = torch.rand(1, 1, 32, 32), torch.rand(1, 2, 32, 32)
    assert not torch.allclose(discriminator(image, masks), discriminator(image, 1 - masks))


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_smallest_image(layers: int) -> None:
    discriminator = PatchDiscriminator(2, 1, 2, width=2, layers=layers)
    side = discriminator.smallest
    assert discriminator(torch.rand(1, 1, side, side), torch.rand(1, 2, side, side)).shape == (1, 1, 1, 1)


def test_too_small_image_or_too_few_layers() -> None:
    with pytest.raises(ValueError, match=r"wanted images whose sides are at least 24, got \[1, 1, 16, 64\]"):
        PatchDiscriminator(2, 1, 2, width=2)(torch.rand(1, 1, 16, 64), torch.rand(1, 2, 16, 64))
    with pytest.raises(UserError, match="discriminator layers: wanted at least 1, got 0"):
        PatchDiscriminator(2, 1, 2, layers=0)
