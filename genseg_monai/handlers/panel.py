"""A picture of what the generator draws: real image, its mask, the synthetic image of that mask and of a warped one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from ignite.engine import Engine
from PIL import Image, ImageDraw
from torch import Tensor

from genseg_monai.engines.events import StageEvents
from genseg_monai.engines.schedule import Phase

__all__ = ["SamplePanel", "draw_panel"]

COLOURS = np.array(
    [(0, 0, 0), (230, 75, 53), (77, 187, 213), (0, 160, 135), (243, 155, 127), (132, 145, 180), (220, 200, 40)]
)
"""Black for the background, then one colour a class; further classes go round."""


class SamplePanel:
    """Write ``pictures/panel_PHASE.png`` when a phase ends that has trained the generator.

    Args:
        output_dir: the run's folder.
        count: rows of the panel, one case each.
    """

    def __init__(self, output_dir: str | Path, count: int = 4) -> None:
        self.folder, self.count = Path(output_dir) / "pictures", count

    def attach(self, engine: Engine) -> None:
        """Register with a `GenSegTrainer`."""
        engine.add_event_handler(StageEvents.PHASE_COMPLETED, self._draw)

    def _draw(self, engine: Any) -> None:
        if engine.phase not in (Phase.WARM_UP, Phase.SEARCH, Phase.FINE_TUNE):
            return
        images, labels = engine.loader.cases.examples(engine.train_cases[: self.count])
        masks = engine.to_masks(labels)
        kept = engine.random.get_state()
        with torch.no_grad():
            images, masks, given = engine.conditions.of_real(images, masks, engine.random)
            other, wanted = engine.conditions.of_synthetic(images, masks, engine.random)
            drawn = [engine.generator(given), wanted, engine.generator(other)]
        engine.random.set_state(kept)
        titles = ["real", "mask", "synthetic", "warped mask", "synthetic of it"]
        draw_panel([images, masks, *drawn], titles, self.folder / f"panel_{engine.phase}.png")


def draw_panel(columns: list[Tensor], titles: list[str], path: Path, zoom_to: int = 160) -> None:
    """Write a grid of pictures, one row a case.

    Args:
        columns: images ``B C H W [D]`` in [0, 1] (1 or 3 channels, else the first) or masks ``B K H W [D]`` (titles
            that contain "mask"); of a volume the middle slice is shown.
        titles: one a column.
        path: of the PNG file.
        zoom_to: least height of a tile in pixels.
    """
    rows = [
        [_tile(entry, "mask" in title, zoom_to) for entry in column.cpu()]
        for column, title in zip(columns, titles, strict=True)
    ]
    gap, head = 4, 18
    height, width = rows[0][0].shape[:2]
    count = len(rows[0])
    canvas = Image.new("RGB", (len(rows) * (width + gap) - gap, head + count * (height + gap)), (255, 255, 255))
    pen = ImageDraw.Draw(canvas)
    for i, (column, title) in enumerate(zip(rows, titles, strict=True)):
        pen.text((i * (width + gap) + 2, 3), title, fill=(0, 0, 0))
        for j, tile in enumerate(column):
            canvas.paste(Image.fromarray(tile), (i * (width + gap), head + j * (height + gap)))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)


def _tile(entry: Tensor, is_mask: bool, zoom_to: int) -> np.ndarray:
    if entry.ndim == 4:
        # of a volume X Y Z the axial slice in the middle, anterior up
        entry = entry[..., entry.shape[-1] // 2].transpose(-1, -2).flip(-2)
    if is_mask:
        tile = (
            COLOURS[1:][(entry.argmax(0).numpy() - 1) % (len(COLOURS) - 1)] * (entry.argmax(0).numpy() > 0)[..., None]
        )
    else:
        channels = entry if entry.shape[0] == 3 else entry[:1].expand(3, -1, -1)
        tile = rearrange(channels, "C H W -> H W C").clamp(0, 1).mul(255).numpy()
    zoom = max(1, round(zoom_to / tile.shape[0]))
    return np.ascontiguousarray(tile.astype(np.uint8).repeat(zoom, axis=0).repeat(zoom, axis=1))
