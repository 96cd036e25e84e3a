"""The temperature that makes the trained segmenter's probabilities honest, fitted on the validation cases."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer, SimpleInferer
from monai.networks.utils import eval_mode
from monai.utils.enums import CommonKeys as Keys

from genseg_monai._atomic import whole_file
from genseg_monai.metrics.calibration import calibrate, fit_temperature, sample_voxels

__all__ = ["CalibrationWriter"]

logger = logging.getLogger(__name__)

_VOXELS = 5000  # an image; 10 images bring 50 000, far more than one number needs


class CalibrationWriter:
    """Write ``models/calibration/temperature.json`` when the training has ended.

    The temperature, and how well the probabilities fit before and after it, on voxels of the validation cases at the
    working size of the bundle. Prediction divides the logits by it wherever it gives out probabilities.

    Args:
        output_dir: the run's folder.
        loader: batches of the validation cases, ``image`` and ``label``; None where there are none: a temperature of an
            earlier training is then removed.
        inferer: how the network is called.
    """

    def __init__(
        self,
        output_dir: str | Path,
        loader: Iterable[Mapping[str, Any]] | None,
        inferer: Inferer | None = None,
    ) -> None:
        self.path = Path(output_dir) / "models" / "calibration" / "temperature.json"
        self.loader, self.inferer = loader, inferer or SimpleInferer()

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Fit, measure, write."""
        if self.loader is None:
            self.path.unlink(missing_ok=True)
            return
        device, random, cases = engine.state.device, torch.Generator().manual_seed(0), 0
        drawn = []
        with eval_mode(engine.network):
            for batch in self.loader:
                images, labels = (torch.as_tensor(batch[key]).to(device) for key in (Keys.IMAGE, Keys.LABEL))
                logits = torch.as_tensor(self.inferer(images, engine.network)).float()
                drawn.append(sample_voxels(logits, labels, _VOXELS, random))
                cases += len(images)
        logits, labels = (torch.cat(parts).cpu() for parts in zip(*drawn, strict=True))
        temperature = round(fit_temperature(logits, labels), 4)
        before, after = (calibrate((logits / t).softmax(1), labels) for t in (1.0, temperature))
        told = {
            "temperature": temperature,
            "cases": cases,
            "voxels": len(labels),
            "before": before.as_dict(),
            "after": after.as_dict(),
        }
        with whole_file(self.path) as temporary:
            temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        logger.info(
            "temperature %.2f from %d validation cases (expected calibration error %.3f, %.3f without it)",
            temperature, cases, after.ece, before.ece,
        )  # fmt: skip
