"""Losses of the generator, the discriminator and the segmenter."""

from __future__ import annotations

from genseg_monai.losses.adversarial import AdversarialKind, AdversarialLoss, ReconstructionKind, charbonnier
from genseg_monai.losses.deep_supervision import DeepSupervisionLoss
from genseg_monai.losses.segmentation import SegmentationLoss

__all__ = [
    "AdversarialKind",
    "AdversarialLoss",
    "DeepSupervisionLoss",
    "ReconstructionKind",
    "SegmentationLoss",
    "charbonnier",
]
