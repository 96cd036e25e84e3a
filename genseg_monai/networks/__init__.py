"""Generator, discriminator and segmenters, for 2D and 3D."""

from __future__ import annotations

from genseg_monai.networks.candidates import CandidateKind, CandidateSpec, SearchSpace, candidates, make_candidate
from genseg_monai.networks.collapsing import collapse, embed, live_taps, window
from genseg_monai.networks.cross_conv import CrossBlock, CrossConv
from genseg_monai.networks.deeplab import DeepLabV3Plus
from genseg_monai.networks.discriminator import PatchDiscriminator
from genseg_monai.networks.generator import DiscreteGenerator, SearchableGenerator, generator_depth
from genseg_monai.networks.genotype import Genotype
from genseg_monai.networks.in_context_network import InContextNetwork
from genseg_monai.networks.mixed_conv import MixedConv
from genseg_monai.networks.segmenters import PadToFit, Segmenter, make_segmenter
from genseg_monai.networks.shared_window import collapse_window
from genseg_monai.networks.universeg import UniverSeg
from genseg_monai.networks.universeg_weights import load_universeg
from genseg_monai.networks.warm_start import warm_startable

__all__ = [
    "CandidateKind",
    "CandidateSpec",
    "CrossBlock",
    "CrossConv",
    "DeepLabV3Plus",
    "DiscreteGenerator",
    "Genotype",
    "InContextNetwork",
    "MixedConv",
    "PadToFit",
    "PatchDiscriminator",
    "SearchSpace",
    "SearchableGenerator",
    "Segmenter",
    "UniverSeg",
    "candidates",
    "collapse",
    "collapse_window",
    "embed",
    "generator_depth",
    "live_taps",
    "load_universeg",
    "make_candidate",
    "make_segmenter",
    "warm_startable",
    "window",
]
