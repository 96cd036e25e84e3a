"""What a data set is like: sizes, spacing, intensities, classes and their share.

The idea, and the intensities taken from inside the foreground, are those of nnU-Net (Isensee et al., Nature Methods 18,
2021, https://doi.org/10.1038/s41592-020-01008-z).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import nibabel
import numpy as np

from genseg_monai.data.facts import CaseFacts
from genseg_monai.errors import UserError

__all__ = ["Fingerprint", "Spread", "take_fingerprint"]

_QUANTILES = (0.0, 0.5, 50.0, 99.5, 100.0)


@dataclass(frozen=True)
class Spread:
    """Lowest, middle and highest of a number for each axis."""

    low: tuple[float, ...]
    median: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Fingerprint:
    """A data set in numbers.

    Attributes:
        cases: how many could be read.
        spatial_dims: 2 or 3.
        channels: number of channels -> cases that have so many.
        sizes: of the images, voxels; the axes of a volume in the order right, front, head.
        spacing: mm, in the same order; None for pictures.
        extents: of the images, mm, in the same order; None for pictures.
        directions: axes, as ``RAS`` -> cases; empty for pictures.
        dtypes: stored type -> cases.
        modality: what most files say, or empty.
        intensities: minimum, percentiles 0.5, 50 and 99.5 and maximum, over all cases.
        foreground: the same where a label is not background; empty without.
        values: label value -> share of all voxels.
        cases_with: label value -> cases that have it.
        whole: whether all label values are whole numbers from 0 on.
        lossy: whether labels are stored in a format that changes values.
        pictures: whether these are photographs or the like, with no place in space.
    """

    cases: int
    spatial_dims: int
    channels: Mapping[int, int]
    sizes: Spread
    spacing: Spread | None
    extents: Spread | None
    directions: Mapping[str, int]
    dtypes: Mapping[str, int]
    modality: str
    intensities: tuple[float, ...]
    foreground: tuple[float, ...]
    values: Mapping[float, float]
    cases_with: Mapping[float, int]
    whole: bool
    lossy: bool
    pictures: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and dictionaries."""
        return asdict(self)


def take_fingerprint(facts: Sequence[CaseFacts]) -> Fingerprint:
    """Sum up what was seen; images that could not be read do not count.

    Raises:
        UserError: no image could be read, or pictures and volumes are mixed.

    Example:
        >>> from genseg_monai.data import find_cases
        >>> from genseg_monai.data.facts import look_at_all
        >>> taken = take_fingerprint(look_at_all(find_cases("phantom://2d?cases=6&size=32")))
        >>> taken.spatial_dims, taken.sizes.median, list(taken.values)
        (2, (32.0, 32.0), [0.0, 255.0])
    """
    seen = [case for case in facts if case.size]
    if not seen:
        problem = "wanted images, none of them can be read; see what `genseg check` says of each"
        raise next((e for case in facts for e in case.errors), None) or UserError("data set", problem)
    dims = Counter(len(case.size) for case in seen)
    if len(dims) > 1:
        rare = min(dims, key=lambda d: dims[d])
        odd = next(case for case in seen if len(case.size) == rare)
        raise UserError(
            odd.image, f"wanted pictures or volumes, got {dims[2]} pictures and {dims[3]} volumes; use one kind"
        )
    pictures = all(case.is_picture for case in seen)
    voxels: Counter[float] = Counter()
    with_value: Counter[float] = Counter()
    for case in seen:
        voxels.update(case.values)
        with_value.update(list(case.values))
    total = sum(voxels.values())
    values = sorted(voxels)
    said = Counter(case.modality for case in seen if case.modality)
    foreground = np.concatenate([case.foreground for case in seen])
    return Fingerprint(
        cases=len(seen),
        spatial_dims=next(iter(dims)),
        channels=dict(sorted(Counter(case.channels for case in seen).items())),
        sizes=_spread([case.ras_size for case in seen]),
        spacing=None if pictures else _spread([case.ras_spacing for case in seen]),
        extents=None if pictures else _spread([_extent(case) for case in seen]),
        directions={} if pictures else dict(Counter(_directions(case) for case in seen).most_common()),
        dtypes=dict(Counter(case.dtype for case in seen).most_common()),
        modality=said.most_common(1)[0][0] if said else "",
        intensities=_quantiles(seen),
        foreground=tuple(float(v) for v in np.percentile(foreground, _QUANTILES)) if foreground.size else (),
        values={value: voxels[value] / total for value in values},
        cases_with={value: with_value[value] for value in values},
        whole=all(value == int(value) and value >= 0 for value in values),
        lossy=any(case.lossy for case in seen),
        pictures=pictures,
    )


def _spread(rows: Sequence[Sequence[float]]) -> Spread:
    low, median, high = np.min(rows, axis=0), np.median(rows, axis=0), np.max(rows, axis=0)
    return Spread(*(tuple(round(float(v), 4) for v in line) for line in (low, median, high)))


def _extent(case: CaseFacts) -> list[float]:
    return [n * s for n, s in zip(case.ras_size, case.ras_spacing, strict=True)]


def _quantiles(seen: Sequence[CaseFacts]) -> tuple[float, ...]:
    sample = np.concatenate([case.intensities for case in seen])
    if not sample.size:
        return (0.0,) * len(_QUANTILES)
    middle = [float(v) for v in np.percentile(sample, _QUANTILES[1:-1])]
    return (min(case.bounds[0] for case in seen), *middle, max(case.bounds[1] for case in seen))


def _directions(case: CaseFacts) -> str:
    if len(case.size) == 2:
        return "plane"
    return "".join(nibabel.aff2axcodes(case.affine))  # type: ignore[no-untyped-call]
