"""Segment an image of any size in windows; the memory beside image and mask does not grow with the image.

Overlapping windows are blended as MONAI's `sliding_window_inference` blends them (Gaussian weights, scores averaged),
but that one holds the scores of all K classes of the whole image, as 32-bit numbers, with or without its buffer: 1.3 GB
for 3 classes of a CT of 512 x 512 x 400. Here the windows go along the longest axis, and as soon as no later window
reaches a slab its classes are taken, one byte a voxel. What has to be held is K scores for the length of a window; if
that is more than ``budget``, the other axes are cut into blocks that are done one after the other (windows on their
borders are then computed twice).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.errors import UserError

__all__ = ["SlabInferer", "inferer_of", "segment_in_slabs", "windows_of"]

Window = tuple[slice, ...]

_PLANES = 4


class SlabInferer(Inferer):
    """Segment in windows, slab by slab.

    Args:
        roi_size: of a window, multiples of what the network wants.
        overlap: of neighbouring windows, in [0, 1), as a share of their size.
        mode: weights of a window's voxels, ``gaussian`` or ``constant``.
        batch: windows the network sees at once.
        budget: bytes that the scores may take.

    Shape:
        Images `B C H W [D]` to class indices `B 1 H W [D]`, uint8 (no logits), on the device of the images.

    Raises:
        ValueError: a setting means nothing.

    Example:
        >>> network = torch.nn.Conv2d(1, 3, 3, padding=1)
        >>> SlabInferer((16, 16))(torch.rand(1, 1, 50, 37), network).shape
        torch.Size([1, 1, 50, 37])
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        overlap: float = 0.25,
        mode: str = "gaussian",
        batch: int = 1,
        budget: int = 2**28,
    ) -> None:
        super().__init__()
        if not 0 <= overlap < 1 or batch < 1 or min(roi_size) < 1:
            raise ValueError(
                "wanted windows of 1 voxel or more, an overlap in [0, 1) and a batch of 1 or more, got "
                f"{tuple(roi_size)}, {overlap}, {batch}"
            )
        self.roi_size, self.overlap, self.mode = tuple(int(n) for n in roi_size), overlap, mode
        self.batch, self.budget = batch, budget

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Return class indices."""
        return segment_in_slabs(
            inputs,
            lambda images: network(images, *args, **kwargs),
            self.roi_size,
            overlap=self.overlap,
            mode=self.mode,
            batch=self.batch,
            budget=self.budget,
        )


def windows_of(plan: Mapping[str, Any], roi_size: Sequence[int] | None = None) -> tuple[int, ...] | None:
    """Return the window in which a plan's images are seen, None if they are brought to a working size.

    Args:
        plan: of the bundle.
        roi_size: another window than the patch of the training.

    Raises:
        UserError: the window does not suit the plan.
    """
    if not plan.get("native"):
        if roi_size is not None:
            raise UserError("roi_size", "wanted a model of native patches (train with --patch_size), got one of a size")
        return None
    size = tuple(int(n) for n in roi_size or plan["size"])
    if len(size) != int(plan["spatial_dims"]) or any(n < 16 or n % 16 for n in size):
        raise UserError("roi_size", f"wanted {plan['spatial_dims']} multiples of 16, got {list(size)}")
    return size


def inferer_of(plan: Mapping[str, Any], roi_size: Sequence[int] | None = None) -> Inferer:
    """Return how the images of a plan are segmented: in windows to classes, or whole to logits."""
    windows = windows_of(plan, roi_size)
    return SimpleInferer() if windows is None else SlabInferer(windows)


def segment_in_slabs(
    images: Tensor,
    network: Callable[[Tensor], Tensor],
    roi_size: Sequence[int],
    *,
    overlap: float = 0.25,
    mode: str = "gaussian",
    batch: int = 1,
    budget: int = 2**28,
) -> Tensor:
    """Return class indices `B 1 H W [D]`, uint8, of images `B C H W [D]`; the arguments are those of `SlabInferer`.

    Raises:
        ValueError: the image has other axes than the window, or the network more than 256 classes.
    """
    if isinstance(images, MetaTensor):  # whose items are copies
        images = images.as_tensor()
    native = images.shape[2:]
    if len(native) != len(roi_size):
        raise ValueError(f"wanted images of {len(roi_size)} axes, as the windows have, got {tuple(images.shape)}")
    missing = [max(0, roi - n) for n, roi in zip(native, roi_size, strict=True)]
    if any(missing):  # as MONAI pads
        before = [n // 2 for n in missing]
        widths = [[b, n - b] for b, n in zip(before, missing, strict=True)]
        images = F.pad(images, [w for pair in reversed(widths) for w in pair])
        inside = tuple(slice(b, b + n) for b, n in zip(before, native, strict=True))
        return segment_in_slabs(
            images, network, roi_size, overlap=overlap, mode=mode, batch=batch, budget=budget
        )[(slice(None), slice(None), *inside)]  # fmt: skip
    size = tuple(images.shape[2:])
    found = torch.zeros((len(images), 1, *size), dtype=torch.uint8, device=images.device)
    weights = compute_importance_map(tuple(roi_size), mode=mode, device=images.device).to(torch.float32)
    step = [max(1, int(roi * (1 - overlap))) if roi < n else roi for n, roi in zip(size, roi_size, strict=True)]
    along = max(range(len(size)), key=lambda axis: size[axis])
    places = [
        [w[0] for w in dense_patch_slices((n,), (r,), (s,))] for n, r, s in zip(size, roi_size, step, strict=True)
    ]
    with torch.no_grad():
        classes = _scores(network, images[:1], [tuple(axis[0] for axis in places)]).shape[1]
        if classes > 256:
            raise ValueError(f"wanted at most 256 classes, got {classes}")
        for item, mask in zip(images, found, strict=True):
            for block in _blocks(size, along, 4 * classes * roi_size[along], budget):
                _segment_block(item[None], mask[0], network, places, weights, block, along, classes, batch)
    return found


def _blocks(size: tuple[int, ...], along: int, bytes_each: int, budget: int) -> Iterator[Window]:
    """Yield parts of the image, whole along one axis, whose scores fit the budget."""
    cuts = [1] * len(size)
    while math.prod(-(-n // c) for a, (n, c) in enumerate(zip(size, cuts, strict=True)) if a != along) > max(
        1, budget // bytes_each
    ):
        cuts[max((a for a in range(len(size)) if a != along), key=lambda a: size[a] / cuts[a])] += 1
    edges = [[round(n * i / c) for i in range(c + 1)] for n, c in zip(size, cuts, strict=True)]
    yield from itertools.product(*([slice(*pair) for pair in itertools.pairwise(axis)] for axis in edges))


def _segment_block(
    image: Tensor,
    mask: Tensor,
    network: Callable[[Tensor], Tensor],
    places: Sequence[Sequence[slice]],
    weights: Tensor,
    block: Window,
    along: int,
    classes: int,
    batch: int,
) -> None:
    """Write the classes of a block of an image `1 C H W [D]` into its mask `H W [D]`."""
    reach = [[w for w in axis if w.start < b.stop and b.start < w.stop] for axis, b in zip(places, block, strict=True)]
    shape = [b.stop - b.start for b in block]
    shape[along] = length = weights.shape[along]
    scores = weights.new_zeros((classes, *shape))
    starts = [window.start for window in reach[along]]
    for number, window in enumerate(reach[along]):
        across = [[window] if axis == along else reach[axis] for axis in range(len(reach))]
        windows = list(itertools.product(*across))
        for first in range(0, len(windows), batch):
            some = windows[first : first + batch]
            for one, score in zip(some, _scores(network, image, some), strict=True):
                # the part of the window that lies in the block
                inner = [slice(max(w.start, b.start), min(w.stop, b.stop)) for w, b in zip(one, block, strict=True)]
                inner[along] = window
                here = tuple(slice(i.start - w.start, i.stop - w.start) for i, w in zip(inner, one, strict=True))
                shift = [window.start if axis == along else b.start for axis, b in enumerate(block)]
                there = tuple(slice(i.start - s, i.stop - s) for i, s in zip(inner, shift, strict=True))
                scores[(slice(None), *there)].addcmul_(score[(slice(None), *here)].to(scores.dtype), weights[here])
        # what no later window reaches is done
        done = length if number + 1 == len(starts) else min(length, starts[number + 1] - window.start)
        for first in range(0, done, _PLANES):  # a few planes at a time: argmax answers in 64 bits
            count, target = min(_PLANES, done - first), list(block)
            target[along] = slice(window.start + first, window.start + first + count)
            mask[tuple(target)] = scores.narrow(along + 1, first, count).argmax(0).to(torch.uint8)
        for first in range(0, length - done, done):  # what is left moves up, in pieces that do not overlap
            count = min(done, length - done - first)
            scores.narrow(along + 1, first, count).copy_(scores.narrow(along + 1, first + done, count))
        scores.narrow(along + 1, length - done, done).zero_()


def _scores(network: Callable[[Tensor], Tensor], image: Tensor, windows: Sequence[Window]) -> Tensor:
    """Return what the network says of some windows of an image `1 C H W [D]`."""
    seen = torch.cat([image[(slice(None), slice(None), *window)] for window in windows])
    return network(seen.as_tensor() if hasattr(seen, "as_tensor") else seen)
