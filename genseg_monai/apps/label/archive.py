"""Images from a DICOM archive by DICOMweb, labels back to it as DICOM SEG."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX, DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.convert import dicom_seg_to_itk_image
from monailabel.datastore.utils.dicom import dicom_web_download_series
from monailabel.interfaces.datastore import DefaultLabelTag

from genseg_monai.dicom.codes import colour_of, meaning_of

__all__ = ["Archive", "open_archive", "segment_attributes"]

logger = logging.getLogger(__name__)

_FRESH = 2.0  # seconds for which an answer of the archive is taken again; one request asks several times
_SERIES, _REFERENCED = "0020000E", "00081115"


def open_archive(url: str, modalities: Sequence[str], classes: Callable[[], Sequence[str]]) -> Archive:
    """Connect to an archive, with what MONAI Label's settings say of it.

    Args:
        url: of its DICOMweb service.
        modalities: of the series to offer.
        classes: returns the names of the classes, the background first; for labels that come without names.
    """
    from dicomweb_client.session_utils import create_session_from_user_pass

    user, word = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    client = DICOMwebClientX(
        url=url,
        session=create_session_from_user_pass(user, word) if user and word else None,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )
    return Archive(client, modalities, classes, settings.MONAI_LABEL_DICOMWEB_CACHE_PATH)


class Archive(DICOMWebDatastore):
    """MONAI Label's datastore of an archive, for several modalities and with labels seen as soon as they are stored.

    Args:
        client: of the DICOMweb service.
        modalities: of the series to offer.
        classes: returns the names of the classes, the background first.
        folder: for what has been fetched.
    """

    def __init__(
        self, client: Any, modalities: Sequence[str], classes: Callable[[], Sequence[str]], folder: str
    ) -> None:
        self._modalities, self._classes = [name.strip() for name in modalities if name.strip()], classes
        self._answers: dict[str, tuple[float, list[str]]] = {}
        self._segmented: dict[str, str | None] = {}  # a SEG series -> the series it segments; neither ever changes
        super().__init__(client, {"Modality": self._modalities[0]}, folder)

    def list_images(self) -> list[str]:
        """Return the series of all modalities."""

        def ask() -> list[str]:
            found: dict[str, None] = {}
            for modality in self._modalities:
                found |= dict.fromkeys(map(_series, self._search(modality)))
            return list(found)

        return self._fresh("images", ask)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the series that a SEG in the archive refers to."""

        def ask() -> list[str]:
            offered = set(self.list_images())
            found = (self._segmented_by(answer) for answer in self._search("SEG"))
            return sorted({series for series in found if series in offered and series is not None})

        return self._fresh("labelled", ask)

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the series without a SEG."""
        labelled = set(self.get_labeled_images())
        return [series for series in self.list_images() if series not in labelled]

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Return the file of a label on the grid of its image; a SEG that others have stored is fetched.

        Args:
            label_id: the series of the SEG, or of the image where the label has been fetched or saved here.
            label_tag: final, or the name of a model's own masks.
            image_id: the series of the image, where `label_id` is a SEG.
        """
        file = Path(self._datastore.label_path(label_tag)) / f"{image_id or label_id}.nii.gz"
        if label_tag != DefaultLabelTag.FINAL:
            return str(LocalDatastore.get_label_uri(self, label_id, label_tag))
        if file.is_file():
            return str(file.resolve())
        if not image_id:
            return ""
        with tempfile.TemporaryDirectory() as folder:
            dicom_web_download_series(None, label_id, folder, self._client)
            fetched, there = dicom_seg_to_itk_image(folder), Path(folder) / "label.nii.gz"
            _bring_to_grid(fetched, self.get_image_uri(image_id), there)
            os.unlink(fetched)
            LocalDatastore.save_label(self, image_id, str(there), label_tag, self._dicom_info(label_id))
        return str(file.resolve())

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Keep a label, and store a final one in the archive as DICOM SEG.

        Raises:
            HTTPException: it has no voxel, which DICOM SEG cannot express.
        """
        info = dict(label_info or {})
        if label_tag == DefaultLabelTag.FINAL:
            values = _values(label_filename)
            if not values:
                raise HTTPException(400, f"{image_id}: wanted a label with a voxel at least, it is empty")
            info["label_info"] = segment_attributes(values, info.get("label_info") or (), self._classes())
        saved: str = super().save_label(image_id, label_filename, label_tag, info, label_id)
        self._answers.clear()
        return saved

    def _search(self, modality: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client.search_for_series(search_filters={"Modality": modality})
        return found

    def _segmented_by(self, answer: dict[str, Any]) -> str | None:
        """Return the series that a SEG series segments, None where it does not say."""
        series = _series(answer)
        if series not in self._segmented:
            study = str(answer["0020000D"]["Value"][0])
            [first, *_] = self._client.retrieve_series_metadata(study, series)
            said = first.get(_REFERENCED, {}).get("Value") or [{}]
            self._segmented[series] = _series(said[0]) if _SERIES in said[0] else None
        return self._segmented[series]

    def _fresh(self, name: str, ask: Callable[[], list[str]]) -> list[str]:
        now = time.monotonic()
        if name not in self._answers or now - self._answers[name][0] > _FRESH:
            self._answers[name] = (now, ask())
        return list(self._answers[name][1])


def segment_attributes(
    values: Sequence[int], told: Sequence[dict[str, Any]], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what MONAI Label hands on to dcmqi for each value of a label: name, codes and colour of the segment.

    Args:
        values: that occur in the label, ascending, without 0.
        told: what the client says of the values, each with ``name`` and perhaps ``idx``, the value, and ``color``;
            without ``idx`` the first is that of value 1.
        classes: names of the classes, the background first, for what the client does not tell.

    Example:
        >>> [one] = segment_attributes([2], [], ["background", "liver", "spleen"])
        >>> one["name"], one["segmentAttribute"]["SegmentedPropertyTypeCodeSequence"]["CodeMeaning"]
        ('spleen', 'Spleen')
    """
    by_value = {int(one.get("idx", i)): one for i, one in enumerate(told, 1)}
    found = []
    for value in values:
        one = by_value.get(value, {})
        known = classes[value] if value < len(classes) else f"class {value}"
        name = str(one.get("name") or known)
        meaning = meaning_of(name)
        colour = [int(part) for part in one.get("color") or colour_of(value)][:3]
        attribute = {
            "labelID": int(value),
            "SegmentLabel": name[:64],
            "SegmentDescription": name[:64],
            "SegmentAlgorithmType": "SEMIAUTOMATIC",
            "SegmentAlgorithmName": "GenSeg",
            "SegmentedPropertyCategoryCodeSequence": _code(meaning.category),
            "SegmentedPropertyTypeCodeSequence": _code(meaning.type),
            "recommendedDisplayRGBValue": colour,
        }
        found.append({"name": name, "color": colour, "model_name": "GenSeg", "segmentAttribute": attribute})
    return found


def _code(code: Any) -> dict[str, str]:
    return {"CodeValue": code.value, "CodingSchemeDesignator": code.scheme, "CodeMeaning": code.meaning}


def _series(answer: dict[str, Any]) -> str:
    return str(answer[_SERIES]["Value"][0])


def _bring_to_grid(label: str, image: str, out: Path) -> None:
    """Write a label on the grid of its image: a SEG may leave out slices without a segment, or have axes turned."""
    grid = SimpleITK.ReadImage(image)
    placed = SimpleITK.Resample(SimpleITK.ReadImage(label), grid, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    SimpleITK.WriteImage(SimpleITK.Cast(placed, SimpleITK.sitkUInt8), str(out))


def _values(file: str) -> list[int]:
    """Return the values in a label, ascending, without 0."""
    if file.endswith(".bin"):  # as OHIF sends it: the voxels alone
        array = np.fromfile(file, dtype=np.uint8)
    else:
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file))
    return [int(value) for value in np.unique(array) if value != 0]
