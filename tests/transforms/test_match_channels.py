from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from genseg_monai.errors import UserError
from genseg_monai.transforms.match_channels import MatchChannelsd


def _match(image: torch.Tensor, channels: int, spatial_dims: int = 2) -> torch.Tensor:
    return MatchChannelsd("image", channels, spatial_dims)({"image": image})["image"]


def test_what_fits_stays() -> None:
    image = torch.rand(4, 5, 6, 7)
    assert _match(image, 4, 3) is image


def test_grey_becomes_three_equal_channels() -> None:
    image = torch.rand(1, 5, 6)
    assert torch.equal(_match(image, 3), torch.cat([image] * 3))


def test_equal_channels_become_one() -> None:
    image = torch.rand(1, 5, 6)
    assert torch.equal(_match(torch.cat([image] * 3), 1), image)


def test_the_affine_stays() -> None:
    image = MetaTensor(torch.rand(1, 5, 6), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    matched = _match(image, 3)
    assert isinstance(matched, MetaTensor)
    assert torch.equal(matched.affine, image.affine)


@pytest.mark.parametrize(
    ("shape", "channels", "dims", "told"),
    [
        ((3, 5, 6), 1, 2, r"scan.png: wanted 1 channel\(s\), got 3"),
        ((2, 5, 6), 3, 2, r"wanted 3 channel\(s\), got 2"),
        ((1, 5, 6, 7), 1, 2, "wanted 2D images, got 3D of size 5 x 6 x 7"),
        ((1, 5, 6), 1, 3, "wanted 3D images, got 2D of size 5 x 6"),
    ],
)
def test_the_rest_is_refused(shape: tuple[int, ...], channels: int, dims: int, told: str) -> None:
    image = MetaTensor(torch.rand(shape), meta={"filename_or_obj": "scan.png"})
    with pytest.raises(UserError, match=told):
        _match(image, channels, dims)
