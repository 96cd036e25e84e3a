"""How far two small sets of images are apart as distributions, with the error of that number.

The kernel distance of Bińkowski et al., "Demystifying MMD GANs", ICLR 2018 (there on features of an Inception network,
KID): unbiased at any number of images, where a Fréchet distance (FID) needs thousands. Here the features say how bright
each part of an image is and how much detail it has at each scale; blur and checkerboards count, and nothing has to be
downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["KINDS", "SMALLEST", "KernelDistance", "kernel_distance", "texture_features"]

_SCALES = 3
KINDS = 1 + _SCALES
"""Kinds of features: brightness, and detail at each scale."""
SMALLEST = 2**_SCALES
"""Shortest side of an image that has features."""
_GRID = 4
_LEAST = 0.1  # of the usual spread: what hardly varies, as a black border does, is not blown up


def texture_features(images: Tensor) -> Tensor:
    """Return brightness and detail of every part of images, float64.

    Args:
        images: B C H W [D], sides of 8 or more.

    Returns:
        B F: means over a grid of 4 parts along each axis, of the image and of what each halving of its size loses
        (absolute values: a Laplacian pyramid of three levels).

    Raises:
        ValueError: an image is too small.

    Example:
        >>> texture_features(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 192])
    """
    if min(images.shape[2:]) < SMALLEST:
        raise ValueError(f"wanted sides of {SMALLEST} or more, got {tuple(images.shape[2:])}")
    flat = images.ndim == 4
    pool, mode = (F.adaptive_avg_pool2d, "bilinear") if flat else (F.adaptive_avg_pool3d, "trilinear")
    halve = F.avg_pool2d if flat else F.avg_pool3d
    here = images.double()
    parts = [pool(here, _GRID)]
    for _ in range(_SCALES):
        smaller = halve(here, 2)
        lost = here - F.interpolate(smaller, size=here.shape[2:], mode=mode, align_corners=False)
        parts.append(pool(lost.abs(), _GRID))
        here = smaller
    return torch.cat([part.flatten(1) for part in parts], dim=1)


@dataclass(frozen=True)
class KernelDistance:
    """A squared distance between two distributions, estimated from samples.

    Attributes:
        value: about 0 for equal distributions; it may be negative.
        error: its standard error.

    Example:
        >>> str(KernelDistance(0.123, 0.04))
        '0.12 (0.04)'
    """

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:z.2f} ({self.error:.2f})"


def kernel_distance(left: Tensor, right: Tensor, reference: Tensor | None = None, *, kinds: int = 1) -> KernelDistance:
    """Estimate the squared maximum mean discrepancy between two distributions, without bias.

    The kernel is (x y / F + 1)^3 on features less their mean, divided by their spread, or by a tenth of what is usual
    for their kind (root mean square) where theirs is less; the error is the jackknife's.

    Args:
        left: N F, such as `texture_features` gives; N of 3 or more.
        right: M F; M of 3 or more.
        reference: L F, whose mean and spread are taken; by default ``right``. Numbers of one reference can be compared.
        kinds: how many kinds of features there are, one after the other and as many of each.

    Raises:
        ValueError: too few items, or features that do not fit.

    Example:
        >>> random = torch.Generator().manual_seed(0)
        >>> one, other = (torch.randn(40, 5, generator=random) for _ in range(2))
        >>> kernel_distance(one, other).value < 0.2 < kernel_distance(one + 1, other).value
        True
    """
    if min(len(left), len(right)) < 3 or left.shape[1:] != right.shape[1:]:
        raise ValueError(f"wanted 3 items or more of equal features, got {tuple(left.shape)} and {tuple(right.shape)}")
    usual = (right if reference is None else reference).double()
    centre, spread = usual.mean(0), usual.std(0)
    usually = spread.reshape(kinds, -1).square().mean(1, keepdim=True).sqrt()
    spread = torch.maximum(spread, (_LEAST * usually).expand(kinds, len(spread) // kinds).flatten()).clamp(min=1e-6)
    x, y = (left.double() - centre) / spread, (right.double() - centre) / spread

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return (one @ other.T / one.shape[1] + 1) ** 3

    n, m = len(x), len(y)
    xx, yy, xy = (kernel(*pair) for pair in ((x, x), (y, y), (x, y)))
    xx, yy = xx - xx.diag().diag(), yy - yy.diag().diag()
    # MMD^2 = sum_{i != j} k(x_i, x_j) / n(n-1) + sum_{i != j} k(y_i, y_j) / m(m-1) - 2 sum k(x_i, y_j) / nm
    value = xx.sum() / (n * (n - 1)) + yy.sum() / (m * (m - 1)) - 2 * xy.mean()
    # the same without each item in turn
    less_x = (xx.sum() - 2 * xx.sum(1)) / ((n - 1) * (n - 2)) - 2 * (xy.sum() - xy.sum(1)) / ((n - 1) * m)
    less_y = (yy.sum() - 2 * yy.sum(1)) / ((m - 1) * (m - 2)) - 2 * (xy.sum() - xy.sum(0)) / (n * (m - 1))
    variance = sum((len(less) - 1) * less.var(correction=0) for less in (less_x, less_y))
    return KernelDistance(float(value), float(torch.as_tensor(variance).sqrt()))
