"""Imported once in the process that the others are forked from."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot  # noqa: E402, F401
import monai.bundle  # noqa: E402, F401
import torch.utils.tensorboard  # noqa: E402, F401

import genseg_monai.apps.train  # noqa: E402, F401
import genseg_monai.engines  # noqa: E402, F401
import genseg_monai.handlers  # noqa: E402, F401
