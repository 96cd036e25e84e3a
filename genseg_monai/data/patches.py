"""Patches of cases too large to be seen whole: voxels as they are, every class in its turn.

A case is stored once, preprocessed, in a file of its own that is mapped into memory: of a patch no more is read than
its rows, so that neither the number of cases nor their size is bounded by the memory. Patches are centred, as in
nnU-Net (Isensee et al., Nature Methods 18, 2021), on a voxel of a class drawn evenly from those the case has; MONAI
chooses it.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms.utils import generate_label_classes_crop_centers, map_classes_to_indices
from monai.utils.enums import CommonKeys
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm import tqdm

from genseg_monai.data.resident import case_group, plain

__all__ = ["PatchCases"]

_CANDIDATES = 5000  # voxels of each class, evenly spread, that a patch may be centred on


class PatchCases:
    """Cases of any size, seen in patches; what `ResidentCases` is for small ones.

    Args:
        dataset: dictionaries with ``image`` ``C H W [D]`` in [0, 1] and ``label`` ``1 H W [D]``; each is read once.
        patch_size: smaller images are padded to it with 0.
        classes: number of classes, background among them.
        device: where patches go.
        folder: for the stored cases; a temporary one, gone with the process, if None.

    Attributes:
        groups: one name a case (the patient).
        drawn: that `take` needs seeds.
        dtype: of the images.

    Example:
        >>> label = torch.zeros(1, 40, 30, dtype=torch.uint8)
        >>> label[:, 3, 4] = 1
        >>> cases = PatchCases([{"image": torch.rand(2, 40, 30), "label": label}], (16, 16), classes=2)
        >>> images, labels = cases.take([0, 0], [3, 4])
        >>> images.shape, labels.shape
        (torch.Size([2, 2, 16, 16]), torch.Size([2, 1, 16, 16]))
    """

    drawn = True
    dtype = torch.float32

    def __init__(
        self,
        dataset: Dataset[Any] | Sequence[Any],
        patch_size: Sequence[int],
        *,
        classes: int,
        device: torch.device | str = "cpu",
        folder: str | Path | None = None,
    ) -> None:
        self.patch_size, self.classes, self.device = tuple(int(n) for n in patch_size), classes, torch.device(device)
        self._folder = Path(tempfile.mkdtemp(prefix="genseg_patches_", dir=folder))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._candidates: list[list[np.ndarray]] = []
        digest, groups = hashlib.sha256(), list[str]()
        count = len(dataset)  # type: ignore[arg-type]
        for i in tqdm(range(count), desc="storing cases", disable=None, leave=False):
            item = dataset[i]
            image, label = self._read(item)
            groups.append(case_group(dataset, item, i))
            np.save(self._folder / f"{i}.image.npy", image.numpy())
            np.save(self._folder / f"{i}.label.npy", label.numpy())
            digest.update(image.numpy().data)
            digest.update(label.numpy().data)
            self._candidates.append(map_classes_to_indices(label, classes, max_samples_per_class=_CANDIDATES))
        self.groups, self._digest = tuple(groups), digest.hexdigest()

    def __len__(self) -> int:
        return len(self._candidates)

    def digest(self) -> str:
        """Return a hash of all voxels."""
        return self._digest

    def take(self, chosen: Sequence[int], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a patch of each chosen case.

        Args:
            chosen: case numbers.
            seeds: of the draws of each patch; the same one draws the same patch.

        Returns:
            Images ``B C H W [D]`` and labels ``B 1 H W [D]``, uint8.
        """
        pairs = [self._patch(case, seed) for case, seed in zip(chosen, seeds, strict=True)]
        images, labels = (torch.stack(batch).to(self.device) for batch in zip(*pairs, strict=True))
        return images, labels

    def examples(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return one patch of each case to look at, always the same."""
        return self.take(chosen, list(range(len(chosen))))

    def _read(self, item: Any) -> tuple[Tensor, Tensor]:
        """Return image and label, at least of the size of a patch."""
        image, label = plain(item[CommonKeys.IMAGE]).float(), plain(item[CommonKeys.LABEL]).to(torch.uint8)
        missing = [max(0, n - have) for n, have in zip(self.patch_size, image.shape[1:], strict=True)]
        if not any(missing):
            return image.contiguous(), label.contiguous()
        widths = [w for n in reversed(missing) for w in (n // 2, n - n // 2)]
        return F.pad(image, widths), F.pad(label, widths)

    def _patch(self, case: int, seed: int) -> tuple[Tensor, Tensor]:
        random = np.random.RandomState(seed % 2**32)  # noqa: NPY002 (the kind MONAI takes)
        image, label = (np.load(self._folder / f"{case}.{kind}.npy", mmap_mode="r") for kind in ("image", "label"))
        present = [float(len(voxels) > 0) for voxels in self._candidates[case]]
        (centre,) = generate_label_classes_crop_centers(
            self.patch_size, 1, label.shape[1:], self._candidates[case], present, random, warn=False
        )
        window = tuple(
            slice(int(c) - n // 2, int(c) - n // 2 + n) for c, n in zip(centre, self.patch_size, strict=True)
        )
        patch, mask = (torch.from_numpy(np.array(array[(slice(None), *window)])) for array in (image, label))
        return patch, mask
