"""Windows blended slab by slab find the classes that MONAI finds with all scores in memory."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.networks.layers.factories import Conv
from torch import nn

from genseg_monai.inferers.slabs import SlabInferer, _blocks, segment_in_slabs


def network(dims: int, classes: int = 4) -> nn.Module:
    convolution = Conv["conv", dims]
    return nn.Sequential(convolution(2, 5, 3, padding=1), nn.Tanh(), convolution(5, classes, 3, padding=1)).double()


SIZES = [((41, 30), (16, 16)), ((30, 41), (16, 8)), ((16, 16), (16, 16)), ((9, 20), (16, 16)), ((11, 13), (16, 16))]
SIZES += [((40, 18, 12), (16, 8, 12)), ((12, 18, 40), (8, 8, 8)), ((10, 33, 20), (16, 16, 16))]


@pytest.mark.parametrize(("size", "roi"), SIZES)
@pytest.mark.parametrize(("mode", "overlap"), [("gaussian", 0.25), ("constant", 0.6)])
def test_it_is_the_argmax_of_sliding_windows(size, roi, mode, overlap):
    model, images = network(len(size)), torch.randn(2, 2, *size, dtype=torch.float64)
    with torch.no_grad():
        wanted = sliding_window_inference(images, roi, 3, model, overlap=overlap, mode=mode).argmax(1, keepdim=True)
    for batch, budget in ((1, 2**28), (3, 4 * 4 * roi[0] * 60)):
        found = SlabInferer(roi, overlap, mode, batch, budget)(images, model)
        assert found.dtype == torch.uint8
        assert float((found == wanted).double().mean()) > 0.9999, (batch, budget)  # scores are added in 32 bits


def test_blocks_cover_the_image_once_and_fit_the_budget():
    size, along, each, budget = (50, 37, 41), 0, 12, 6000
    seen = torch.zeros(size)
    for block in _blocks(size, along, each, budget):
        assert block[along] == slice(0, 50)
        assert seen[block].numel() / 50 * each <= budget
        seen[block] += 1
    assert seen.min() == seen.max() == 1


def test_the_scores_stay_within_the_budget():
    """The largest tensor beside image, mask and windows."""
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    model, image = network(3).float(), torch.rand(1, 2, 80, 60, 60)
    budget = 4 * 4 * 8 * 500
    with Watch():
        segment_in_slabs(image, model, (8, 8, 8), budget=budget)
    assert largest == image.untyped_storage().nbytes() > budget
    image = image.double()
    largest = 0
    with Watch():
        segment_in_slabs(image, model.double(), (8, 8, 8), budget=budget)
    assert 0 < largest <= budget


def test_a_record_of_history_is_not_carried_through_the_windows():
    seen: list[type] = []

    def model(images: torch.Tensor) -> torch.Tensor:
        seen.append(type(images))
        return images

    SlabInferer((8, 8))(MetaTensor(torch.rand(1, 2, 20, 20)), model)
    assert set(seen) == {torch.Tensor}


@pytest.mark.parametrize("given", [{"roi_size": (0, 8)}, {"overlap": 1.0}, {"batch": 0}])
def test_settings_that_mean_nothing_are_refused(given):
    with pytest.raises(ValueError, match="wanted windows of 1 voxel or more"):
        SlabInferer(**{"roi_size": (8, 8)} | given)


def test_an_image_of_other_axes_is_refused():
    with pytest.raises(ValueError, match="wanted images of 3 axes"):
        SlabInferer((8, 8, 8))(torch.rand(1, 1, 8, 8), nn.Identity())


def test_more_classes_than_a_byte_holds_are_refused():
    with pytest.raises(ValueError, match="wanted at most 256 classes, got 300"):
        SlabInferer((8, 8))(torch.rand(1, 1, 8, 8), nn.Conv2d(1, 300, 1))
