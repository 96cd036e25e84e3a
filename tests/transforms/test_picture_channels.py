from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from genseg_monai.errors import UserError
from genseg_monai.transforms.picture_channels import PictureChannelsd


def test_grey_is_as_it_is() -> None:
    image = torch.rand(1, 4, 5)
    assert PictureChannelsd("image", 2)({"image": image})["image"] is image


def test_colour_as_pillow_turns_it_grey() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1).float()
    grey = PictureChannelsd("image", 2)({"image": image})["image"]
    np.testing.assert_allclose(grey[0], np.asarray(Image.fromarray(pixels).convert("L")), atol=1)


@pytest.mark.parametrize(
    ("shape", "dims", "told"),
    [
        ((1, 4, 4, 4), 2, "a.nii: wanted pictures, as the supports are, got a volume of 4 x 4 x 4; give others"),
        ((1, 4, 4), 3, "a.nii: wanted volumes, as the supports are, got a picture of 4 x 4; give others"),
        ((2, 4, 4), 2, "a.nii: wanted grey or colour, 1 or 3 channels, got 2; give one channel"),
        ((3, 4, 4, 4), 3, "a.nii: wanted grey or colour, 1 or 3 channels, got 3; give one channel"),
    ],
)
def test_refused(shape: tuple[int, ...], dims: int, told: str) -> None:
    image = MetaTensor(torch.zeros(shape), meta={"filename_or_obj": "a.nii"})
    with pytest.raises(UserError) as error:
        PictureChannelsd("image", dims)({"image": image})
    assert str(error.value) == told


def test_grey_among_colour() -> None:
    image = torch.rand(1, 4, 5)
    assert torch.equal(PictureChannelsd("image", 2, 3)({"image": image})["image"], image.expand(3, -1, -1))
    with pytest.raises(ValueError, match="channels: wanted 1 or 3, got 2"):
        PictureChannelsd("image", 2, 2)
