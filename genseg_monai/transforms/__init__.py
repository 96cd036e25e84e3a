"""Transforms of images and masks: warps, intensity changes, the working grid."""

from __future__ import annotations

from genseg_monai.transforms.batch_augment import BatchAugment, warp_images
from genseg_monai.transforms.grid_fit import GridFit, GridMode, fit_grid, resize, resize_label
from genseg_monai.transforms.intensity import Intensity, IntensityRanges, apply_intensity, draw_intensity
from genseg_monai.transforms.mask_warp import Warp, WarpRanges, apply_warp, draw_warp, identity_warp, sampling_grid
from genseg_monai.transforms.nnunet_augment import NnUNetAugment
from genseg_monai.transforms.normalise import MapLabel, MapLabeld, Normalisation, Normalise, Normalised
from genseg_monai.transforms.save import SaveMaskd, stem_of
from genseg_monai.transforms.working_grid import ToWorkingGrid, ToWorkingGridd

__all__ = [
    "BatchAugment",
    "GridFit",
    "GridMode",
    "Intensity",
    "IntensityRanges",
    "MapLabel",
    "MapLabeld",
    "NnUNetAugment",
    "Normalisation",
    "Normalise",
    "Normalised",
    "SaveMaskd",
    "ToWorkingGrid",
    "ToWorkingGridd",
    "Warp",
    "WarpRanges",
    "apply_intensity",
    "apply_warp",
    "draw_intensity",
    "draw_warp",
    "fit_grid",
    "identity_warp",
    "resize",
    "resize_label",
    "sampling_grid",
    "stem_of",
    "warp_images",
]
