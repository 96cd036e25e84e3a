"""How unsure a prediction is: a map on the grid of the image, and one number a case.

The map is the entropy of the class probabilities, divided by that of a guess among all classes: 0 where the model is
sure, 1 where any class is as likely. The number is its mean over the voxels that could be foreground, so that plain
background around a small object does not hide a doubt about the object.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from einops import rearrange
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from genseg_monai._atomic import whole_file
from genseg_monai.transforms.save import SaveMaskd

__all__ = ["SaveUncertaintyd", "Uncertaintyd", "case_uncertainty", "entropy_map"]

_POSSIBLE = 0.05
"""A voxel could be foreground from this probability on."""


def entropy_map(probabilities: Tensor) -> Tensor:
    """Return the entropy of class probabilities in [0, 1], 1 H W [D].

    Args:
        probabilities: K H W [D], summing to one over K.

    Example:
        >>> entropy_map(torch.tensor([[[0.5, 1.0]], [[0.5, 0.0]]]))
        tensor([[[1., 0.]]])
    """
    # H = - sum_k p_k log p_k / log K
    p = probabilities.clamp(0, 1)
    return torch.special.entr(p).sum(0, keepdim=True).div(math.log(len(p))).clamp(0, 1)


def case_uncertainty(probabilities: Tensor) -> float:
    """Return one number for a case, in [0, 1]: the mean entropy where there could be foreground, 0 where nowhere.

    Args:
        probabilities: K H W [D], the background first.

    Example:
        >>> case_uncertainty(torch.tensor([[[0.5, 1.0]], [[0.5, 0.0]]]))
        1.0
    """
    possible = (1 - probabilities[0]) >= _POSSIBLE
    return float(entropy_map(probabilities)[0][possible].mean()) if bool(possible.any()) else 0.0


class Uncertaintyd(MapTransform):
    """Put the map of a prediction beside it, and its number into ``result``, where MONAI Label shows it.

    Args:
        keys: probabilities, K H W [D].
        to: key of the map, 1 H W [D] in [0, 1].

    Example:
        >>> case = Uncertaintyd("pred")({"pred": torch.full((2, 1, 1), 0.5)})
        >>> case["uncertainty"], case["result"]
        (tensor([[[1.]]]), {'uncertainty': 1.0})
    """

    def __init__(self, keys: KeysCollection = "pred", to: str = "uncertainty") -> None:
        super().__init__(keys)
        self.to = to

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with map and number."""
        case = dict(data)
        for key in self.key_iterator(case):
            found = entropy_map(case[key])
            source = case[key]
            case[self.to] = MetaTensor(found, meta=source.meta) if isinstance(source, MetaTensor) else found
            number = round(case_uncertainty(torch.as_tensor(source)), 6)
            case["result"] = {**case.get("result", {}), "uncertainty": number}
        return case


class SaveUncertaintyd(SaveMaskd):
    """Write the map of a case as `STEM_uncertainty.nii.gz` (0 to 1) or `STEM_uncertainty.png` (0 to 255).

    The numbers of all cases go to ``uncertainty.csv`` in the same folder, with the columns ``case,uncertainty``.

    Args:
        keys: the map, 1 H W [D] in [0, 1].
        output_dir: folder to write to.
        image_key: the image a map belongs to.
        overwrite: whether files of an earlier run may be replaced.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> found = MetaTensor(torch.ones(1, 4, 6), meta={"filename_or_obj": "photos/foot.jpg"})
        >>> _ = SaveUncertaintyd("map", folder)({"map": found, "result": {"uncertainty": 1.0}})
        >>> sorted(file.name for file in folder.iterdir())
        ['foot_uncertainty.png', 'uncertainty.csv']
    """

    def __init__(
        self,
        keys: KeysCollection = "uncertainty",
        output_dir: str | os.PathLike[str] = "./predictions",
        image_key: str = "image",
        overwrite: bool = False,
    ) -> None:
        super().__init__(keys, output_dir, image_key, postfix="_uncertainty", overwrite=overwrite)
        self._numbers: dict[str, float] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the map and the numbers so far; return the case as it came.

        Raises:
            UserError: the map is none, is not on the grid of the image, or its file would replace another.
        """
        case = super().__call__(data)
        for key in self.key_iterator(case):
            self._numbers[self.stem(case, key)] = float(case["result"]["uncertainty"])
        with (
            whole_file(self.output_dir / "uncertainty.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerows([("case", "uncertainty"), *self._numbers.items()])
        return case

    def voxels(self, values: np.ndarray, source: str) -> np.ndarray:
        """Return the map, H W [D]."""
        return rearrange(values.astype(np.float32), "1 ... -> ...")

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """Return the map in steps of 1/255."""
        return np.rint(values * 255).astype(np.uint8)
