"""GenSeg for clinical imaging pipelines: segmentation from few labelled cases, as a MONAI bundle.

A generator of image-mask pairs and the segmenter that learns from them are trained together, so that the generator
makes the images the segmenter needs (Zhang et al., "Generative AI enables medical image segmentation in ultra
low-data regimes", Nature Communications 2025, https://doi.org/10.1038/s41467-025-61754-6).

Importing this package is light: it imports neither torch nor MONAI. The parts are imported by name, for example
``from genseg_monai.networks import SearchableGenerator``.
"""

from __future__ import annotations

from genseg_monai.errors import UserError

__all__ = ["UserError", "__version__"]

__version__ = "0.1.0"
