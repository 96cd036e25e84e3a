from __future__ import annotations

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from genseg_monai.transforms.colour_axis import colour_axis, project
from genseg_monai.transforms.one_channel import luminance


def _wounds(count: int = 4, size: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures in any light with an object redder than the rest and of the same luminance."""
    random = torch.Generator().manual_seed(0)
    masks = torch.zeros(count, 1, size, size, dtype=torch.bool)
    masks[:, :, 6:16, 5:14] = True
    red = torch.tensor([0.15, -0.15 * 0.299 / 0.587, 0.0])[None, :, None, None]
    light = 0.3 + 0.4 * torch.rand(count, 1, 1, 1, generator=random)
    noise = 0.03 * torch.randn(count, 3, size, size, generator=random)
    return (light + red * masks + noise).clamp(0, 1), masks


def test_an_object_that_luminance_hides() -> None:
    images, masks = _wounds()
    grey, ours = luminance(images), project(images, colour_axis(images, masks))
    for picture, least, most in ((grey, 0.0, 0.05), (ours, 0.4, 1.0)):
        apart = (picture[masks].mean() - picture[~masks].mean()).abs() / picture.max()
        assert least <= apart <= most
    assert ours[masks].mean() > ours[~masks].mean(), "the object is the brighter"
    assert ours.min() == 0
    assert ours.max() == 1


def test_as_scikit_learn_has_it() -> None:
    images, masks = _wounds()
    centred = images - images.flatten(2).median(2).values[..., None, None]
    points, inside = centred.permute(0, 2, 3, 1).reshape(-1, 3).numpy(), masks.reshape(-1).numpy()
    # even priors: both spreads count alike
    even = np.concatenate([points[inside], points[~inside][: inside.sum()]])
    fitted = LinearDiscriminantAnalysis(solver="lsqr").fit(even, np.repeat([1, 0], inside.sum())).coef_[0]
    ours = colour_axis(images, masks).numpy()
    cosine = ours @ fitted / np.linalg.norm(ours) / np.linalg.norm(fitted)
    assert cosine > 0.995


def test_labels_that_tell_nothing() -> None:
    images = torch.rand(2, 3, 8, 8)
    for masks in (torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)):
        torch.testing.assert_close(colour_axis(images, masks), torch.full((3,), 1 / 3))
    flat = torch.full((1, 3, 8, 8), 0.4)
    half = torch.zeros(1, 1, 8, 8)
    half[:, :, :4] = 1
    assert project(flat, colour_axis(flat, half)).isfinite().all()
