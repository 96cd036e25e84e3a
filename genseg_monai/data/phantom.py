"""Draw data sets that look like medical images, for tests, demonstrations and a first run without any download.

2D is an ultrasound of an organ with a lesion: speckle, layers of skin and fat, bright and dark lesions with lobed
borders, vessels that look like them, shadows and uneven gain. 3D is a CT in HU: body, spine, an organ (class 1) with
lesions (class 2), neighbours of nearly its density. No two cases have the same look, so that a small network that saw
16 of them is right about most of a lesion and wrong about its rim: there is something left to gain.

The same arguments draw the same bytes.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

__all__ = ["draw_phantom"]

_Float = npt.NDArray[np.float64]
_Random = np.random.Generator
_SPACING = (2.5, 2.5, 5.0)  # mm of the 3D phantom at 64 voxels


def draw_phantom(folder: str | Path, *, spatial_dims: int = 2, cases: int = 24, size: int = 64, seed: int = 0) -> Path:
    """Draw a data set with ``splits.json`` (two thirds train, the rest val and test).

    Args:
        folder: made if it is not there.
        spatial_dims: 2 writes ``images/`` and ``masks/`` (PNG, lesion 255); 3 writes the layout of the Medical
            Segmentation Decathlon (NIfTI in HU, organ 1, lesion 2).
        cases: how many, at least 3.
        size: pixels on a side; in 3D of the first two axes, with half as many slices.
        seed: another one draws other cases.

    Returns:
        The folder.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import tempfile
        >>> folder = draw_phantom(tempfile.mkdtemp(), cases=3, size=32)
        >>> sorted(path.name for path in (folder / "masks").iterdir())
        ['case_000.png', 'case_001.png', 'case_002.png']
    """
    if spatial_dims not in {2, 3}:
        raise ValueError(f"spatial_dims: wanted 2 or 3, got {spatial_dims}")
    if cases < 3 or size < 32:
        raise ValueError(f"wanted at least 3 cases of at least 32 pixels, got {cases} of {size}")
    folder = Path(folder)
    names = [f"case_{i:03d}" for i in range(cases)]
    write: Callable[[Path, str, int, _Random], None] = _write_picture if spatial_dims == 2 else _write_volume
    for kind in ("images", "masks") if spatial_dims == 2 else ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        write(
            folder, name, size, np.random.default_rng([seed, spatial_dims, size, i])
        )  # a case does not hang on others
    held = max(1, cases // 6)
    splits = {"train": names[: -2 * held], "val": names[-2 * held : -held], "test": names[-held:]}
    (folder / "splits.json").write_text(json.dumps(splits, indent=1) + "\n", encoding="utf-8")
    if spatial_dims == 3:
        (folder / "dataset.json").write_text(json.dumps(_dataset(names), indent=1) + "\n", encoding="utf-8")
    return folder


def _write_picture(folder: Path, name: str, size: int, random: _Random) -> None:
    image, mask = _ultrasound(size, random)
    Image.fromarray(image).save(folder / "images" / f"{name}.png", compress_level=6)
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png", compress_level=6)


def _write_volume(folder: Path, name: str, size: int, random: _Random) -> None:
    image, label = _ct(size, random)
    affine = np.diag([*(s * 64 / size for s in _SPACING), 1.0])
    for kind, array in (("imagesTr", image), ("labelsTr", label)):
        volume = nibabel.Nifti1Image(array, affine)  # type: ignore[no-untyped-call]
        data = gzip.compress(volume.to_bytes(), compresslevel=6, mtime=0)
        (folder / kind / f"{name}.nii.gz").write_bytes(data)


def _dataset(names: list[str]) -> dict[str, object]:
    return {
        "name": "phantom",
        "description": "drawn, of no patient",
        "licence": "CC0-1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "organ", "2": "lesion"},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": [],
    }


def _ultrasound(size: int, random: _Random) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return image and mask, both ``size`` x ``size``, uint8."""
    shape = (size, size)
    y, x = _grid(shape)
    # echogenicity: skin, fat, a bright fascia, then the tissue of the organ, each with a wavy border
    depth = y + 0.05 * _smooth(shape, random, 0.25)
    skin, fascia = random.uniform(-0.92, -0.85), random.uniform(-0.62, -0.45)
    tissue = random.uniform(0.36, 0.5)
    echo = np.full(shape, tissue)
    echo[depth < fascia] = random.uniform(0.16, 0.26)
    echo[depth < skin] = 0.7
    echo += random.uniform(0.25, 0.5) * np.exp(-(((depth - fascia) / 0.035) ** 2))
    echo *= 1 + 0.16 * _smooth(shape, random, 0.25) + 0.08 * _smooth(shape, random, 0.08)
    # vessels and fat lobules: dark or bright as lesions are, but smaller, smooth and not labelled
    for _ in range(random.integers(1, 4)):
        at = _place(random, fascia + 0.1)
        inside = _blob((y, x), at, random.uniform(0.07, 0.15), random, lobes=0.04, flat=random.uniform(0.5, 1))
        echo = _blend(echo, inside, tissue * random.choice([0.3, 0.45, 1.5]), 0.15)
    # the lesion: most are darker than the tissue, some nearly as bright, a few brighter
    centre, radius = _place(random, fascia + 0.25), random.uniform(0.2, 0.42)
    lesion = _blob((y, x), centre, radius, random, lobes=random.uniform(0.08, 0.2), flat=random.uniform(0.65, 1.0))
    contrast = random.choice([0.25, 0.4, 0.52, 0.62, 1.65], p=[0.25, 0.3, 0.2, 0.1, 0.15])
    echo = _blend(echo, lesion, tissue * contrast * (1 + 0.2 * _smooth(shape, random, 0.1)), random.uniform(0.1, 0.3))
    # what sound is left: a lesion swallows it or lets it pass, gas and ribs throw shadows, depth takes its share
    through = np.ones(shape)
    if random.random() < 0.6:
        below = np.exp(-(((x - centre[1]) / (0.7 * radius)) ** 4)) * np.clip((y - centre[0]) / radius, 0, 1)
        through *= 1 + random.choice([-0.5, 0.4]) * below
    for _ in range(random.integers(0, 3)):
        middle, width = random.uniform(-1, 1), random.uniform(0.05, 0.14)
        shadow = np.exp(-(((x - middle) / (width * (1 + 0.3 * y))) ** 4)) * (depth > fascia)
        through *= 1 - random.uniform(0.3, 0.65) * shadow
    through *= np.exp(-random.uniform(0.0, 0.5) * (y + 1))
    image = echo * through * _speckle(shape, random)
    # log compression with the gain and range somebody set
    reach = random.uniform(20, 45)
    image = np.log1p(reach * np.clip(image, 0, None)) / np.log1p(reach)
    image = np.clip(random.uniform(0.85, 1.1) * image - 0.12 + 0.015 * random.standard_normal(shape), 0, 1)
    return np.rint(255 * image).astype(np.uint8), np.where(lesion > 0, 255, 0).astype(np.uint8)


def _speckle(shape: tuple[int, int], random: _Random) -> _Float:
    """Return the amplitude of many echoes in one cell (Rayleigh), of mean one, wider than deep, some looks averaged."""
    looks = random.integers(2, 5)
    wide, deep = random.uniform(0.75, 1.1), random.uniform(0.45, 0.65)
    fields = ndimage.gaussian_filter(random.standard_normal((2 * looks, *shape)), (0, deep, wide))
    power = (fields**2).mean(0)
    return np.asarray(np.sqrt(power / power.mean()))


def _ct(size: int, random: _Random) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Return a volume in HU and its label, both ``size`` x ``size`` x ``size / 2``; axes are right, front, head."""
    shape = (size, size, size // 2)
    x, y, z = _grid(shape)
    volume = np.full(shape, -1000.0)
    wide, deep = random.uniform(0.78, 0.92), random.uniform(0.58, 0.72)
    outline = 1 - np.sqrt((x / wide) ** 2 + (y / deep) ** 2 + 0.08 * z**2) + 0.015 * _smooth(shape, random, 0.2)
    fat = random.uniform(0.06, 0.16)
    soft, organ = random.uniform(35, 55), random.uniform(80, 115)
    volume[outline > 0] = -100
    volume[outline > fat] = soft
    # fat between the organs, then the neighbours: spleen and bowel as dense as the organ or nearly so
    inside = outline > fat + 0.05
    volume[inside & (_smooth(shape, random, 0.12) > 0.5)] = -85
    for at, dense in (((-0.45, -0.1), organ * random.uniform(0.85, 1.1)), ((-0.1, 0.3), random.uniform(10, 60))):
        near = _blob((x, y, z), (*_jitter(at, random, 0.08), random.uniform(-0.5, 0.5)), 0.24, random, lobes=0.12)
        volume[inside & (near > 0)] = dense
    spine = _blob((x, y, z * 0.0), (0.0, -0.36 * deep / 0.65, 0.0), 0.13, random, lobes=0.04)
    volume[(spine > 0) & (outline > fat)] = random.uniform(180, 280)
    volume[spine > 0.35] = random.uniform(120, 160)
    centre = (*_jitter((0.36, 0.08), random, 0.06), random.uniform(-0.15, 0.15))
    liver = _blob((x, y, z), centre, random.uniform(0.42, 0.5), random, lobes=0.14, flat=random.uniform(0.75, 0.95))
    is_organ = (liver > 0) & inside & (spine <= 0)
    volume[is_organ] = organ
    volume[is_organ & (np.abs(_smooth(shape, random, 0.08)) < 0.06)] = organ + random.uniform(15, 40)  # vessels
    label = is_organ.astype(np.uint8)
    for _ in range(random.integers(1, 3)):
        seat = tuple(float(c) for c in np.asarray(centre) + random.uniform(-0.18, 0.18, 3))
        lesion = _blob((x, y, z), seat, random.uniform(0.17, 0.27), random, lobes=0.1)
        where = is_organ & (lesion > 0)
        dense = random.choice([-5.0, 15.0, organ - 45, organ + 60], p=[0.4, 0.35, 0.05, 0.2])  # fluid, or tumour
        edge = np.clip(lesion / 0.2, 0, 1)
        volume[where] = (organ + (dense - organ) * (0.6 + 0.4 * edge))[where]
        label[where] = 2
    volume = ndimage.gaussian_filter(volume, (0.6, 0.6, 0.4))
    noise = ndimage.gaussian_filter(random.standard_normal(shape), (0.7, 0.7, 0.3))
    volume += random.uniform(10, 20) * noise / noise.std() + 8 * _smooth(shape, random, 0.25) * (outline > 0)
    return np.rint(np.clip(volume, -1024, 1500)).astype(np.int16), label


def _grid(shape: tuple[int, ...]) -> list[_Float]:
    """Return the coordinates of the voxels, each axis from -1 to 1."""
    axes = [(np.arange(n) + 0.5) * 2 / n - 1 for n in shape]
    return [np.asarray(axis) for axis in np.meshgrid(*axes, indexing="ij")]


def _smooth(shape: tuple[int, ...], random: _Random, scale: float) -> _Float:
    """Return a random field of standard deviation one whose lumps measure ``scale`` of the image."""
    field = ndimage.gaussian_filter(random.standard_normal(shape), [scale * n / 2 for n in shape], mode="nearest")
    return np.asarray((field - field.mean()) / (field.std() + 1e-12))


def _jitter(at: tuple[float, ...], random: _Random, by: float) -> tuple[float, ...]:
    return tuple(float(a + random.uniform(-by, by)) for a in at)


def _place(random: _Random, top: float) -> tuple[float, float]:
    return float(random.uniform(top + 0.2, 0.7)), float(random.uniform(-0.65, 0.65))


def _blob(
    grid: list[_Float] | tuple[_Float, ...],
    centre: tuple[float, ...],
    radius: float,
    random: _Random,
    *,
    lobes: float,
    flat: float = 1.0,
) -> _Float:
    """Return how deep a voxel lies in a lobed ellipsoid: 1 at its centre, 0 on its border, negative outside."""
    offsets = [(axis - c) / radius for axis, c in zip(grid, centre, strict=True)]
    angle = random.uniform(0, np.pi)
    across = np.cos(angle) * offsets[0] + np.sin(angle) * offsets[1]
    along = (np.cos(angle) * offsets[1] - np.sin(angle) * offsets[0]) / flat
    distance = np.sqrt(across**2 + along**2 + sum(o**2 for o in offsets[2:]))
    return np.asarray(1 - distance + lobes * _smooth(np.broadcast(*grid).shape, random, 0.09))


def _blend(below: _Float, depth: _Float, value: _Float | float, edge: float) -> _Float:
    """Return ``below`` with ``value`` where ``depth`` is positive, over a soft edge."""
    share = np.clip(0.5 + depth / (2 * edge), 0, 1)
    return np.asarray(below * (1 - share) + value * share)
