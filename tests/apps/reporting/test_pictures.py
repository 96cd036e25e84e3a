"""Pictures of cases: the right plane, the right colours, small files."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image

from genseg_monai.apps.reporting.pictures import CLASSES, FOUND, TRUTH, data_uri, mask_tile, outlined, plane, tile


def test_of_a_volume_the_plane_with_most_of_the_mask_front_up() -> None:
    volume = np.zeros((1, 4, 6, 5), dtype=np.float32)
    mask = np.zeros((4, 6, 5), dtype=np.int64)
    mask[0, :, 1] = 1
    mask[0, 5, 3] = 1
    volume[0, 1, 5, 1] = 1.0  # the far end of the second axis: up
    shown = plane(volume, mask)
    assert shown.shape == (1, 6, 4)
    assert shown[0, 0, 1] == 1.0
    assert plane(volume).max() == 0  # the middle plane
    picture = np.zeros((3, 4, 5))
    assert plane(picture, np.ones((4, 5))) is picture


def test_outlines_lie_on_the_edges_of_the_masks() -> None:
    image = np.full((1, 64, 64), 0.5, dtype=np.float32)
    truth, found = np.zeros((2, 64, 64), dtype=np.int64)
    truth[10:30, 10:30] = 1
    found[40:60, 40:60] = 1
    pixels = outlined(image, truth, found, 64)
    assert (pixels[10, 10:30] == TRUTH).all()
    assert (pixels[20, 20] == 128).all()  # inside nothing changes
    dashes = (pixels[40, 40:60] == FOUND).all(-1)
    assert 0 < dashes.sum() < 20
    assert (pixels[:5] == 128).all()


def test_masks_have_a_colour_a_class() -> None:
    pixels = mask_tile(torch.tensor([[0, 1], [2, len(CLASSES)]]), 2)
    assert [tuple(p) for p in pixels.reshape(-1, 3)] == [tuple(CLASSES[i]) for i in (0, 1, 2, 1)]


def test_images_of_any_channels() -> None:
    for channels in (1, 2, 3, 4):
        assert tile(np.linspace(-1, 2, channels * 20 * 30).reshape(channels, 20, 30), 60).shape == (40, 60, 3)


def test_a_data_uri_holds_the_picture() -> None:
    pixels = mask_tile(np.eye(32, dtype=np.int64))
    kind, _, content = data_uri(pixels).partition(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), pixels)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    assert data_uri(noise).startswith("data:image/jpeg;base64,")
