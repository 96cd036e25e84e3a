"""The spline of smooth displacements against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from genseg_monai.transforms._spline import spline_basis, spline_field


@pytest.mark.parametrize(("voxels", "points"), [(7, 4), (16, 5), (33, 9)])
def test_basis_against_scipy(voxels: int, points: int) -> None:
    intervals = points - 3
    knots = np.arange(points + 4) - 3.0  # control point i is the middle of knots i - 3 ... i + 1
    centres = (np.arange(voxels) + 0.5) / voxels * intervals
    reference = BSpline.design_matrix(centres, knots, 3).toarray()
    ours = spline_basis(voxels, points, torch.zeros(1, dtype=torch.float64))
    np.testing.assert_allclose(ours.numpy(), reference, atol=1e-12)


@pytest.mark.parametrize("size", [(5, 9), (5, 6, 7)])
def test_field_is_the_product_over_the_axes(size: tuple[int, ...]) -> None:
    control = torch.randn(2, 3, *(5,) * len(size), dtype=torch.float64)
    bases = [spline_basis(n, 5, control) for n in size]
    letters = "abc"[: len(size)], "xyz"[: len(size)]
    pairs = ",".join(f"{out}{source}" for source, out in zip(*letters, strict=True))
    reference = torch.einsum(f"BC{letters[0]},{pairs}->BC{letters[1]}", control, *bases)
    torch.testing.assert_close(spline_field(control, size), reference)


def test_a_line_of_control_points_gives_a_line() -> None:
    control = torch.arange(6, dtype=torch.float64).reshape(1, 1, 6, 1).expand(1, 1, 6, 6)
    field = spline_field(control, (10, 3))[0, 0, :, 0]
    torch.testing.assert_close(field, (torch.arange(10, dtype=torch.float64) + 0.5) / 10 * 3 + 1)
