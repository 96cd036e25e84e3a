"""The training config of a bundle, run through MONAI for a few small steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

__all__ = ["DATA_2D", "DATA_3D", "TINY", "run", "workflow"]

DATA_2D = "phantom://2d?cases=8&size=32"
DATA_3D = "phantom://3d?cases=6&size=32"
TINY: dict[str, Any] = {
    "max_epochs": 2,
    "epoch_length": 6,
    "save_interval": 1,
    "batch_size": 2,
    "generator_width": 2,
    "discriminator_width": 4,
    "outer_after": 1,
    "outer_every": 1,
    "val_interval": 1,
    "rehearse": False,
}


def workflow(configs: Path, run_id: str = "training", **overrides: Any) -> ConfigWorkflow:
    """Return what ``python -m monai.bundle run RUN_ID --config_file configs/train.yaml ...`` runs."""
    return ConfigWorkflow(
        str(configs / "configs" / "train.yaml"),
        workflow_type="train",
        logging_file=False,
        run_id=run_id,
        **{**TINY, **overrides},
    )


def run(configs: Path, run_id: str = "training", **overrides: Any) -> None:
    started = workflow(configs, run_id, **overrides)
    started.initialize()
    started.run()
    started.finalize()
