"""Turn masks into images with a trained generator, each mask as often as wanted, warped anew each time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.networks.utils import one_hot
from PIL import Image
from torch import Tensor, nn

from genseg_monai._atomic import whole_file
from genseg_monai.engines.conditions import Conditions, PairKind, Place, kind_of
from genseg_monai.errors import UserError
from genseg_monai.transforms.batch_augment import warp_images
from genseg_monai.transforms.mask_warp import WarpRanges, apply_warp, draw_warp
from genseg_monai.transforms.scene import hole_of, make_scene

__all__ = ["Synthesis"]

_KEPT = 64  # images that objects are put into

logger = logging.getLogger(__name__)


class Synthesis:
    """Write synthetic pairs: ``images/STEM.png`` and ``masks/STEM.png``, or ``.nii.gz`` in 3D.

    The pairs have the working size of the bundle. The first image of a mask shows the mask as it is, the further ones
    show it warped; a generator of scenes makes the object part of its own image first, then of images that came before,
    and one of styles takes the look of the same images.
    Masks are written with the label values of the data the bundle was trained on, so that the pairs
    can be put beside them; images have 8 bits in 2D and are float in [0, 1] in 3D.

    Args:
        generator: one-hot masks ``B K H W [D]``, or scenes of them -> images ``B C H W [D]`` in [0, 1].
        loader: batches of one mask, ``label`` ``1 1 H W [D]`` class indices, with ``case``; for scenes with the
            ``image`` ``1 C H W [D]`` in [0, 1].
        label_values: raw value -> class index, of the plan.
        output_dir: where ``images`` and ``masks`` go.
        count: images a mask.
        warp_ranges: how far a mask is warped.
        kind: what the generator was trained for; by default scenes, if it is given real images, else masks.
        place: where in a scene the object goes.
        seed: of the warps.
        device: where the generator lies.

    Raises:
        UserError: `count` is not above 0, or a generator that starts from real images is given none.
    """

    def __init__(
        self,
        generator: nn.Module,
        loader: Iterable[Mapping[str, Any]],
        *,
        label_values: Mapping[int, int],
        output_dir: str | Path,
        count: int = 1,
        warp_ranges: WarpRanges | None = None,
        kind: PairKind | str | None = None,
        place: Place | str = Place.OWN,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if count < 1:
            raise UserError("count", f"wanted 1 image a mask or more, got {count}")
        self.generator, self.loader, self.count, self.device = generator, loader, count, device
        self.output_dir = Path(output_dir)
        self.conditions = Conditions(kind_of(generator, kind), warp_ranges or WarpRanges(), place=place)
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.random = torch.Generator().manual_seed(seed)
        # the first raw value of each class stands for it
        first = {int(index): int(value) for value, index in reversed(list(label_values.items()))}
        self.values = np.array([first[index] for index in range(len(first))])
        self.values = self.values.astype(np.uint8 if self.values.max() < 256 else np.uint16)
        self.written: list[Path] = []

    def run(self) -> list[Path]:
        """Make all pairs.

        Returns:
            The files of the images.

        Raises:
            UserError: a file is there already.
        """
        self.written = []
        for batch in self.loader:
            label, case = batch["label"], str(batch["case"][0])
            masks = one_hot(torch.as_tensor(label).to(self.device), num_classes=len(self.values)).float()
            image = self._image(batch, case)
            for i in range(self.count):
                stem = case if self.count == 1 else f"{case}_{i:0{len(str(self.count - 1))}d}"
                given, wanted = self._as_it_is(masks, image) if i == 0 else self._moved(masks, image)
                self._write_pair(stem, given, wanted, _affine(label))
        return self.written

    def _image(self, batch: Mapping[str, Any], case: str) -> Tensor | None:
        """Return the image that belongs to a mask, where scenes are made."""
        if self.conditions.synthesis is PairKind.MASKS:
            return None
        if "image" not in batch:
            problem = "wanted its image too, since this generator starts from real images; give --images"
            raise UserError(case, problem)
        return torch.as_tensor(batch["image"]).to(self.device).float()

    def _as_it_is(self, masks: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor]:
        if image is None:
            return masks, masks
        self.seen = [*self.seen[1 - _KEPT :], (image, masks)]
        if self.conditions.synthesis is PairKind.STYLES:
            return self.conditions.scene(image, masks, image, masks, self.random)
        return make_scene(masks, image, hole_of(masks), image), masks

    def _moved(self, masks: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor]:
        if image is None:
            return self.conditions.of_synthetic(masks, masks, self.random)
        chosen = int(torch.randint(len(self.seen), (1,), generator=self.random))
        warp = draw_warp(self.conditions.warp_ranges, len(masks), masks.ndim - 2, self.random)
        moved = warp_images(image, warp), apply_warp(masks, warp)
        return self.conditions.scene(*self.seen[chosen], *moved, self.random)

    @torch.inference_mode()
    def _write_pair(self, stem: str, given: Tensor, masks: Tensor, affine: np.ndarray) -> None:
        image = self.generator(given)[0].clamp(0, 1).cpu().numpy()
        indices = masks[0].argmax(0).cpu().numpy()
        raw = self.values[indices]
        ending = ".png" if indices.ndim == 2 else ".nii.gz"
        paths = [self.output_dir / kind / f"{stem}{ending}" for kind in ("images", "masks")]
        for path, array in zip(paths, (image, raw), strict=True):
            if path.exists():
                raise UserError(path, "wanted to write here, a file is there; choose another output folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as temporary:
                _write_picture(array, temporary) if ending == ".png" else _write_volume(array, affine, temporary)
        self.written.append(paths[0])


def _write_picture(array: np.ndarray, path: str | Path) -> None:
    """Write an image ``C H W`` in [0, 1] or a mask ``H W``."""
    if array.ndim == 3:
        array = np.rint(array * 255).astype(np.uint8)
        if len(array) not in (1, 3):
            raise UserError("generate", f"wanted images of 1 or 3 channels to write pictures, got {len(array)}")
        array = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    Image.fromarray(array).save(path)


def _write_volume(array: np.ndarray, affine: np.ndarray, path: str | Path) -> None:
    """Write an image ``C X Y Z`` or a mask ``X Y Z``."""
    if array.ndim == 4:
        array = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def _affine(label: Tensor) -> np.ndarray:
    """Return the affine of a batch of one, 4 x 4."""
    affine = getattr(label, "affine", None)
    return np.eye(4) if affine is None else np.asarray(affine.cpu(), dtype=np.float64).reshape(-1, 4, 4)[0]
