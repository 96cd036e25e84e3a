"""The stand-in for torchvision in MONAI Label's environment."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="module")
def utils(repository: Path) -> ModuleType:
    """Its module, under another name: nothing here may import torchvision."""
    path = repository / "tools" / "torchvision_stand_in" / "torchvision" / "utils.py"
    spec = importlib.util.spec_from_file_location("stand_in_utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_images_lie_side_by_side_with_a_margin(utils: ModuleType) -> None:
    images = torch.stack([torch.full((1, 4, 5), value) for value in (0.0, 1.0, 2.0)])
    grid = utils.make_grid(images, nrow=2, padding=1, normalize=True, pad_value=9)
    assert grid.shape == (3, 2 * 5 + 1, 2 * 6 + 1)
    assert [float(grid[0, y, x]) for y, x in ((1, 1), (1, 7), (6, 1), (0, 0), (6, 7))] == [0, 0.5, 1, 9, 9]


def test_a_single_image_stays_as_it_is(utils: ModuleType) -> None:
    image = torch.rand(3, 4, 5)
    torch.testing.assert_close(utils.make_grid(image), image)


def test_an_image_is_saved(utils: ModuleType, tmp_path: Path) -> None:
    utils.save_image(torch.tensor([[0.0, 0.5, 1.0]]), str(tmp_path / "a.png"))
    assert np.asarray(Image.open(tmp_path / "a.png"))[..., 0].tolist() == [[0, 128, 255]]
