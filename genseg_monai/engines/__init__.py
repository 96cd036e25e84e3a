"""The three-stage loop: schedule, stages, trainer, exact state, cost estimate, bundle folder."""

from __future__ import annotations

from genseg_monai.engines.acceleration import Acceleration, Precision
from genseg_monai.engines.bundle_folder import locate_bundle, merged_config, write_bundle
from genseg_monai.engines.bundle_segmenter import BundleSegmenter, current_plan
from genseg_monai.engines.communication import Communication
from genseg_monai.engines.estimate import Estimate, measure
from genseg_monai.engines.events import StageEvents
from genseg_monai.engines.schedule import Phase, Schedule, Shares
from genseg_monai.engines.settings import LoopSettings
from genseg_monai.engines.state import load_state, take_state
from genseg_monai.engines.trainer import GenSegTrainer

__all__ = [
    "Acceleration",
    "BundleSegmenter",
    "Communication",
    "Estimate",
    "GenSegTrainer",
    "LoopSettings",
    "Phase",
    "Precision",
    "Schedule",
    "Shares",
    "StageEvents",
    "current_plan",
    "load_state",
    "locate_bundle",
    "measure",
    "merged_config",
    "take_state",
    "write_bundle",
]
