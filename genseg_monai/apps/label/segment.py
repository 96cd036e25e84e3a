"""The two models as MONAI Label asks for them."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monai.data import MetaTensor
from monai.transforms import KeepLargestConnectedComponent
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.transform.writer import Writer
from monailabel.utils.others.generic import device_list, name_to_device

from genseg_monai._outcome import user_error
from genseg_monai.apps.label.models import QUICK, Models
from genseg_monai.apps.label.options import switch
from genseg_monai.errors import UserError
from genseg_monai.inferers.in_context import InContextSettings
from genseg_monai.inferers.in_context_segmenter import Segmented
from genseg_monai.transforms.save import SaveMaskd

__all__ = ["GenSegTask", "UniverSegTask", "told_to_client"]

logger = logging.getLogger(__name__)


@contextmanager
def told_to_client() -> Iterator[None]:
    """Answer a request that cannot be met with status 400 and the reason, in place of an "Internal Server Error"."""
    try:
        yield
    except Exception as error:
        told = user_error(error)
        if told is None:
            raise
        logger.warning("%s", told)
        raise HTTPException(status_code=400, detail=str(told)) from error


class SegmentTask(InferTask):
    """Segment one image and write its mask on the image's grid.

    Args:
        models: where the segmenters come from.
        description: for the client.
        options: further options of a request and their defaults.
    """

    def __init__(self, models: Models, description: str, options: dict[str, Any] | None = None) -> None:
        config = {"device": device_list(), "largest_part": False, **(options or {})}
        super().__init__(InferType.SEGMENTATION, None, 3, description, config)
        self.models = models

    @abstractmethod
    def segment(self, request: dict[str, Any], device: str) -> Segmented:
        """Return what is found in ``request["image"]``, a path."""

    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, the background first; none where they are not known yet."""

    def is_valid(self) -> bool:
        """Say that it can be asked; what is missing is told when it is."""
        return True

    def info(self) -> dict[str, Any]:
        """Return what the client shows, with the classes as they are now."""
        try:
            names = self.classes()
        except UserError:
            names = ()
        self.labels = {name: index for index, name in enumerate(names) if index > 0}
        told: dict[str, Any] = super().info()
        return told

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment an image.

        Args:
            request: ``image``, a path, and the options.

        Returns:
            The file of the mask, and what is told beside it: ``label_names``, ``uncertainty``, ``latencies``.
        """
        begun = time.perf_counter()
        with told_to_client():
            found = self.segment(request, name_to_device(request.get("device")))
            mask = found.mask
            if switch(request.get("largest_part", False), "largest_part"):
                classes = list(range(1, len(found.probabilities)))
                mask = KeepLargestConnectedComponent(applied_labels=classes, is_onehot=False)(mask)
            file = _write(mask, request)
        seconds = round(time.perf_counter() - begun, 2)
        names = {name: index for index, name in enumerate(self.classes()) if index > 0}
        told = {"label_names": names, "uncertainty": found.uncertainty, "latencies": {"total": seconds}}
        return file, told


class GenSegTask(SegmentTask):
    """The segmenter of the bundle, as its newest training left it."""

    def __init__(self, models: Models) -> None:
        super().__init__(models, "GenSeg: the segmenter that was trained on the labelled cases")

    def segment(self, request: dict[str, Any], device: str) -> Segmented:
        """Return what is found in ``request["image"]``, a path."""
        return self.models.trained(device).segment(request["image"])

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, the background first."""
        return self.models.trained_plan().classes


class UniverSegTask(SegmentTask):
    """UniverSeg with the labelled cases as examples: no training, and of use from the first label on."""

    def __init__(self, models: Models) -> None:
        options = dict(QUICK) if device_list() == ["cpu"] else {"size": 128, "support_size": 40, "ensemble": 8}
        super().__init__(models, "UniverSeg: segments by the cases labelled so far, without a training", options)

    def segment(self, request: dict[str, Any], device: str) -> Segmented:
        """Return what is found in ``request["image"]``, a path; its own label is no support."""
        given: dict[str, Any] = {name: request.get(name, self.config()[name]) for name in QUICK}
        try:
            size, shown, passes = (int(given[name]) for name in ("size", "support_size", "ensemble"))
            settings = InContextSettings(support_size=shown, ensemble=passes)
        except (TypeError, ValueError) as error:
            raise UserError("universeg", f"wanted whole numbers from 1 on, got {given}; correct them") from error
        if size < 16 or size % 16:
            raise UserError("universeg", f"wanted a size that 16 divides, got {size}; 64 and 128 are usual")
        image = request["image"]
        return self.models.shown(device, settings, size=size, without=image).segment(image)

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, the background first."""
        return self.models.support_plan().classes


def _write(mask: MetaTensor, request: dict[str, Any]) -> str:
    """Write a mask to a file of its own, which MONAI Label removes when it has sent it."""
    extension = request.get("result_extension") or ""
    if extension not in ("", ".nii.gz"):  # 3D Slicer and OHIF ask for .nrrd
        answer: dict[str, Any] = {"pred": mask[0], "image_path": request["image"]}
        answer |= {name: request[name] for name in ("result_extension", "result_compress") if name in request}
        file, _ = Writer(label="pred")(answer)
        return str(file)
    with tempfile.TemporaryDirectory() as folder:
        mask.meta["filename_or_obj"] = str(request["image"])
        SaveMaskd("pred", folder)({"pred": mask})
        [written] = Path(folder).iterdir()
        suffix = ".png" if written.suffix == ".png" else ".nii.gz"
        with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as handle:
            shutil.move(written, handle.name)
    return handle.name
