"""Handlers of the trainer: everything that is not the algorithm."""

from __future__ import annotations

from genseg_monai.handlers.architecture_log import ArchitectureLog
from genseg_monai.handlers.artefacts import BundleWriter, Forecast, RunRecord
from genseg_monai.handlers.calibration import CalibrationWriter
from genseg_monai.handlers.case_scores import CaseScores
from genseg_monai.handlers.checkpoint import Checkpointer, Resume, StopOnDivergence, TrainingDiverged
from genseg_monai.handlers.early_stop import EarlyStopSearch
from genseg_monai.handlers.final_scores import FinalScores, run_summary
from genseg_monai.handlers.history import History
from genseg_monai.handlers.lazy_writer import LazyWriter
from genseg_monai.handlers.of_this_process import of_this_process
from genseg_monai.handlers.output import scalars
from genseg_monai.handlers.panel import SamplePanel
from genseg_monai.handlers.progress import Progress
from genseg_monai.handlers.run_log import RunLog
from genseg_monai.handlers.snapshots import Snapshots
from genseg_monai.handlers.supports import Supports
from genseg_monai.handlers.synthetic_pairs import WassersteinPairs
from genseg_monai.handlers.tracking import Track, Tracking, make_writer

__all__ = [
    "ArchitectureLog",
    "BundleWriter",
    "CalibrationWriter",
    "CaseScores",
    "Checkpointer",
    "EarlyStopSearch",
    "FinalScores",
    "Forecast",
    "History",
    "LazyWriter",
    "Progress",
    "Resume",
    "RunLog",
    "RunRecord",
    "SamplePanel",
    "Snapshots",
    "StopOnDivergence",
    "Supports",
    "Track",
    "Tracking",
    "TrainingDiverged",
    "WassersteinPairs",
    "make_writer",
    "of_this_process",
    "run_summary",
    "scalars",
]
