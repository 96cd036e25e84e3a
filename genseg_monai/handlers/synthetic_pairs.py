"""Ready synthetic pairs for the final fit: those of a WGAN-GP trained when the run starts, the paper's baseline."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from genseg_monai.data.resident import ResidentCases, ResidentLoader
from genseg_monai.engines.state import load_file, save_file
from genseg_monai.engines.wasserstein import draw_pairs, train_pairs
from genseg_monai.errors import UserError
from genseg_monai.handlers.panel import draw_panel

__all__ = ["WassersteinPairs"]

logger = logging.getLogger(__name__)


class WassersteinPairs:
    """Train a generator of pairs on the training cases and let the final fit draw from its pairs.

    Put it before `Resume`. Writes ``models/pairs/pairs.pt`` (images, labels) and ``pictures/panel_pairs.png``; a run
    that is continued reads the pairs, or goes on training where it was.

    Args:
        output_dir: the run's folder.
        steps: of the generator.
        count: pairs to draw.
        width: of the networks.
        seed: of every draw.
    """

    def __init__(self, output_dir: str | Path, steps: int, *, count: int = 256, width: int = 32, seed: int = 0) -> None:
        self.root, self.steps, self.count, self.width, self.seed = Path(output_dir), steps, count, width, seed

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`, before `Resume`."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Give the trainer its pairs.

        Raises:
            UserError: the training sees patches, not whole images.
        """
        if not isinstance(engine.loader.cases, ResidentCases):
            raise UserError("pair_steps", "wanted whole images at a working size, got patches; leave patch_size out")
        path = self.root / "models" / "pairs" / "pairs.pt"
        device = engine.state.device
        if path.is_file():
            held = load_file(path, device)
            names = [f"synthetic {i}" for i in range(len(held["images"]))]
            pairs = ResidentCases(held["images"], held["labels"], names)
        else:
            logger.info("training a WGAN-GP of image and mask for %d steps", self.steps)
            checkpoint = self.root / "checkpoints" / "pairs.pt"
            generator = train_pairs(
                engine.loader.cases, engine.classes, self.steps, width=self.width, seed=self.seed, checkpoint=checkpoint
            )
            pairs = draw_pairs(generator, self.count, seed=self.seed)
            masks = engine.to_masks(pairs.labels[:4])
            titles = ["synthetic", "its mask"]
            draw_panel([pairs.images[:4], masks], titles, self.root / "pictures" / "panel_pairs.png")
            save_file({"images": pairs.images, "labels": pairs.labels}, path)
            checkpoint.unlink(missing_ok=True)
        engine.pairs = ResidentLoader(pairs, batch_size=engine.batch_size, seed=self.seed)
