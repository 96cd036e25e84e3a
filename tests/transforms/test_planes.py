from __future__ import annotations

import numpy as np
import pytest
import torch

from genseg_monai.transforms.planes import PlaneGrid, Seen, best_axis, from_planes, plane_spacing, to_planes


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_and_back(axis: int) -> None:
    volume = torch.rand(2, 3, 4, 5)
    planes = to_planes(volume, axis)
    rows, columns = [n for i, n in enumerate((3, 4, 5)) if i != axis][::-1]
    assert planes.shape == (volume.shape[axis + 1], 2, rows, columns)
    torch.testing.assert_close(planes[1, :, 2, 0], volume.select(axis + 1, 1)[:, 0, 2])
    assert torch.equal(from_planes(planes, axis), volume)


def test_a_picture_is_one_plane() -> None:
    picture = torch.rand(3, 4, 5)
    assert torch.equal(to_planes(picture, None)[0], picture)
    assert torch.equal(from_planes(to_planes(picture, None), None), picture)


def test_spacing_goes_with_rows_and_columns() -> None:
    affine = np.diag([1.0, 2.0, 5.0, 1.0])[[1, 2, 0, 3]]  # the world may have its axes in any order
    for axis in range(3):
        volume = torch.zeros(1, 10, 20, 50)
        rows, columns = to_planes(volume, axis).shape[2:]
        assert plane_spacing(affine, axis) == (rows / 10, columns / 10)
    assert plane_spacing(np.eye(4), None) == (1.0, 1.0)


def test_aspect_is_kept() -> None:
    fit = PlaneGrid(64).fit((10, 20), (4.0, 1.0))  # 40 x 20 mm
    assert fit.inner == (64, 32)
    assert PlaneGrid(64, scale=0.5).fit((10, 20), (4.0, 1.0)).inner == (20, 10)


def test_a_larger_picture_than_the_scale_allows_is_shrunk() -> None:
    assert PlaneGrid(16, scale=1.0).fit((32, 64)).inner == (8, 16)


def test_to_the_grid_and_back() -> None:
    grid, planes = PlaneGrid(64), 1 + torch.rand(2, 3, 16, 32)
    fit = grid.fit((16, 32))
    on_grid = grid.images(planes, fit)
    assert on_grid.shape == (2, 3, 64, 64)
    assert (on_grid[:, :, :16] == planes.min()).all(), "beside the image"
    smooth = torch.linspace(0, 1, 32).expand(2, 1, 16, 32)
    back = grid.back(grid.images(smooth, fit)[:, 0], fit)
    torch.testing.assert_close(back[..., 2:-2], smooth[:, 0, :, 2:-2], atol=0.02, rtol=0)
    labels = torch.zeros(2, 16, 32, dtype=torch.uint8)
    labels[0, 4:8, 6:9] = 3
    there = grid.labels(labels, fit)
    assert there.dtype == torch.uint8
    assert int((there == 3).sum()) == 4 * 12
    assert torch.equal(grid.back(there.float(), fit) > 1.5, labels == 3)


def test_the_axis_with_the_finest_planes() -> None:
    assert best_axis([Seen((1.0, 1.0, 3.0), (90, 90, 2))]) == 2
    assert best_axis([Seen((3.0, 1.0, 1.0), (2, 90, 90))]) == 0
    assert best_axis([Seen((1.0, 1.0, 1.05), (5, 9, 7)), Seen((1.0, 1.0, 1.0), (5, 3, 7))]) == 2, "most labels in all"
    assert best_axis([Seen((1.0, 1.0, 1.0), (5, 5, 5))]) == 2


def test_what_is_seen_of_a_label() -> None:
    label = torch.zeros(1, 4, 5, 6)
    label[0, 1:3, 2, 3:6] = 2
    assert Seen.of(label, np.diag([1.0, 2.0, 3.0, 1.0])) == Seen((1.0, 2.0, 3.0), (2, 1, 3))
