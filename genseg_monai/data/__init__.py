"""Find, check, split, read and describe the cases of a data set."""

from __future__ import annotations

from genseg_monai.data.cases import find_cases, find_images
from genseg_monai.data.fingerprint import Fingerprint, take_fingerprint
from genseg_monai.data.phantom import draw_phantom
from genseg_monai.data.plan import Plan, propose_plan
from genseg_monai.data.read import CaseReader, LabelReader
from genseg_monai.data.shards import share_of
from genseg_monai.data.splits import Splits, read_splits, search_split

__all__ = [
    "CaseReader",
    "Fingerprint",
    "LabelReader",
    "Plan",
    "Splits",
    "draw_phantom",
    "find_cases",
    "find_images",
    "propose_plan",
    "read_splits",
    "search_split",
    "share_of",
    "take_fingerprint",
]
