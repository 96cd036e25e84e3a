"""What a query and its supports must look like, and errors that say where they do not."""

from __future__ import annotations

import torch
from torch import Tensor

from genseg_monai.errors import UserError

__all__ = ["check_ranges", "check_shapes"]


def check_shapes(
    query: Tensor,
    support_images: Tensor,
    support_labels: Tensor,
    support_mask: Tensor | None,
    *,
    spatial_dims: int,
    channels: int,
) -> None:
    """Check the shapes of what an in-context network is given.

    Args:
        query: `B C H W [D]`.
        support_images: `B S C H W [D]`, S >= 1.
        support_labels: `B S 1 H W [D]`.
        support_mask: `B S`, or None.
        spatial_dims: 2 or 3.
        channels: C.

    Raises:
        UserError: with a table of what was expected against what came.

    Example:
        >>> import torch
        >>> image, label = torch.zeros(1, 4, 1, 8, 8), torch.zeros(1, 3, 1, 8, 8)
        >>> check_shapes(image[:, 0], image, label, None, spatial_dims=2, channels=1)
        Traceback (most recent call last):
            ...
        genseg_monai.errors.UserError: supports: argument | expected | got; query | B 1 H W | 1 1 8 8; \
support_images | 1 S 1 8 8, S >= 1 | 1 4 1 8 8; support_labels | 1 4 1 8 8 | 1 3 1 8 8 <- differs
    """
    batch, sides = query.shape[:1], query.shape[2:]
    size = support_images.shape[1:2]
    letters = " ".join("HWD"[:spatial_dims])
    fits = query.ndim == 2 + spatial_dims and query.shape[1] == channels
    rows = [("query", f"B {channels} {letters}", query, fits)]
    images = (*batch, *size, channels, *sides)
    fits = support_images.shape == images and support_images.numel() > 0
    wanted = f"{_spaced(batch)} S {channels} {_spaced(sides)}, S >= 1"
    rows.append(("support_images", wanted, support_images, fits))
    labels = (*batch, *size, 1, *sides)
    rows.append(("support_labels", _spaced(labels), support_labels, support_labels.shape == labels))
    if support_mask is not None:
        mask = (*batch, *size)
        rows.append(("support_mask", _spaced(mask), support_mask, support_mask.shape == mask))
    if not all(fits for *_, fits in rows):
        lines = [
            f"{name} | {wanted} | {_spaced(tensor.shape)}{'' if fits else ' <- differs'}"
            for name, wanted, tensor, fits in rows
        ]
        raise UserError("supports", "; ".join(["argument | expected | got", *lines]))


def check_ranges(**tensors: Tensor) -> None:
    """Check that all values lie in [0, 1].

    Raises:
        UserError: a value outside, or not a number.

    Example:
        >>> import torch
        >>> check_ranges(query=torch.tensor([0.0, 255.0]))
        Traceback (most recent call last):
            ...
        genseg_monai.errors.UserError: query: wanted values in [0, 1], got 0 to 255; scale images by their minimum and \
maximum, give one label as 0 and 1
    """
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bool:
            continue
        low, high = (bound.item() for bound in torch.aminmax(tensor.detach()))
        if not (low >= 0 and high <= 1):  # so that NaN fails
            remedy = "scale images by their minimum and maximum, give one label as 0 and 1"
            raise UserError(name, f"wanted values in [0, 1], got {low:g} to {high:g}; {remedy}")


def _spaced(shape: tuple[int, ...]) -> str:
    return " ".join(map(str, shape))
