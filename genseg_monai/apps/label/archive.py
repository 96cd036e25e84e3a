"""Images from a DICOM archive by DICOMweb, labels back to it as DICOM SEG."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
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

from genseg_monai._outcome import one_line
from genseg_monai.apps.label.patients import UNKNOWN, patient_key
from genseg_monai.apps.label.segments import is_name, segment_attributes, segment_names, value_of_segments
from genseg_monai.dicom.uids import Key

__all__ = ["Archive", "open_archive"]

logger = logging.getLogger(__name__)

_FRESH = 2.0  # seconds for which an answer of the archive is taken again; one request asks several times
_SERIES, _REFERENCED = "0020000E", "00081115"
_MADE = ("00080023", "00080033")  # date and time of the content, which every SEG has


def open_archive(url: str, modalities: Sequence[str], classes: Callable[[], Sequence[str]], home: Path) -> Archive:
    """Connect to an archive, with what MONAI Label's settings say of it.

    Args:
        url: of its DICOMweb service.
        modalities: of the series to offer.
        classes: returns the names of the classes of the training, the background first; none before it.
        home: folder of the server, for the key of the pseudonyms of patients.
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
    return Archive(client, modalities, classes, settings.MONAI_LABEL_DICOMWEB_CACHE_PATH, patient_key(home))


class Archive(DICOMWebDatastore):
    """MONAI Label's datastore of an archive, for several modalities and with labels seen as soon as they are stored.

    Of several SEG of an image the newest is its label, by the date of its content. A segment gets the value that its
    name has in the training, or else in the labels that are there already, whatever its number.

    Args:
        client: of the DICOMweb service.
        modalities: of the series to offer.
        classes: returns the names of the classes of the training, the background first; none before it.
        folder: for what has been fetched.
        key: of the pseudonyms of patients.
    """

    def __init__(
        self, client: Any, modalities: Sequence[str], classes: Callable[[], Sequence[str]], folder: str, key: Key
    ) -> None:
        self._key = key
        self._modalities, self._classes = [name.strip() for name in modalities if name.strip()], classes
        self._answers: dict[str, tuple[float, Any]] = {}
        self._segmented: dict[str, tuple[str, str]] = {}  # a SEG series -> the series it segments, and its date
        self._unreadable: set[str] = set()  # SEG series
        super().__init__(client, {"Modality": self._modalities[0]}, folder)

    def list_images(self) -> list[str]:
        """Return the series of all modalities."""

        def ask() -> list[str]:
            found: dict[str, None] = {}
            for modality in self._modalities:
                found |= dict.fromkeys(map(_series, self._search(modality)))
            return list(found)

        return list(self._fresh("images", ask))

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the series that a SEG in the archive refers to."""
        return sorted(self._newest())

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the series without a SEG."""
        labelled = self._newest()
        return [series for series in self.list_images() if series not in labelled]

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Return the file of a label on the grid of its image; a SEG that others have stored is fetched.

        Args:
            label_id: the series of the SEG, or of the image where the label has been fetched or saved here.
            label_tag: final, or the name of a model's own masks.
            image_id: the series of the image, where `label_id` is a SEG.
        """
        if label_tag != DefaultLabelTag.FINAL:
            return str(LocalDatastore.get_label_uri(self, label_id, label_tag))
        file = Path(self._datastore.label_path(label_tag)) / f"{image_id or label_id}.nii.gz"
        if file.is_file() and (not image_id or self._held(image_id) == label_id):
            return str(file.resolve())
        if not image_id:
            return ""
        with tempfile.TemporaryDirectory() as folder:
            dicom_web_download_series(None, label_id, folder, self._client)
            segments = segment_names(Path(folder))
            values = value_of_segments(segments, self._names())
            fetched, there = dicom_seg_to_itk_image(folder), Path(folder) / "label.nii.gz"
            _bring_to_grid(fetched, self.get_image_uri(image_id), there, values)
            os.unlink(fetched)
            named = {name: values[number] for number, name in segments.items()}
            info = {**self._dicom_info(label_id), "segments": named}
            LocalDatastore.save_label(self, image_id, str(there), label_tag, info)
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
            info["label_info"] = segment_attributes(
                values, info.get("label_info") or (), self._class_names(max(values))
            )
            named = zip(info["label_info"], values, strict=True)
            info["segments"] = {one["name"]: value for one, value in named}
        saved: str = super().save_label(image_id, label_filename, label_tag, info, label_id)
        self._answers.clear()
        return saved

    def _search(self, modality: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client.search_for_series(search_filters={"Modality": modality})
        return found

    def _dicom_info(self, series_id: str) -> dict[str, str]:
        """Return what MONAI Label keeps, logs and tells of a series; the patient under a pseudonym."""
        info: dict[str, str] = super()._dicom_info(series_id)
        patient = info["PatientID"]
        return info if patient in ("", UNKNOWN) else {**info, "PatientID": self._key.patient(patient)}

    def _newest(self) -> dict[str, str]:
        """Return the newest SEG series of each image that has one."""

        def ask() -> dict[str, str]:
            offered, found = set(self.list_images()), dict[str, tuple[str, bool, str]]()
            for answer in self._search("SEG"):
                image, when = self._segmented_by(answer)
                if image in offered:
                    # of two of one moment the one that came from here
                    one = (when, self._held(image) == _series(answer), _series(answer))
                    found[image] = max(one, found.get(image, one))
            return {image: series for image, (_, _, series) in found.items()}

        return dict(self._fresh("labels", ask))

    def _segmented_by(self, answer: dict[str, Any]) -> tuple[str, str]:
        """Return the series that a SEG series segments, empty where it does not say, and when it was made."""
        series = _series(answer)
        if series not in self._segmented:
            study = str(answer["0020000D"]["Value"][0])
            [first, *_] = self._client.retrieve_series_metadata(study, series)
            said = first.get(_REFERENCED, {}).get("Value") or [{}]
            when = "".join(str((first.get(tag, {}).get("Value") or [""])[0]) for tag in _MADE)
            self._segmented[series] = _series(said[0]) if _SERIES in said[0] else "", when
        return self._segmented[series]

    def _held(self, image: str) -> str:
        """Return the SEG series that the label kept here was, empty where there is none."""
        return str(LocalDatastore.get_label_info(self, image, DefaultLabelTag.FINAL).get("SeriesInstanceUID", ""))

    def _names(self) -> dict[str, int]:
        """Return the values of the classes by name: of the labels kept here, and of the training, which goes before."""
        found: dict[str, int] = {}
        for image in sorted(self._datastore.objects, reverse=True):
            found |= LocalDatastore.get_label_info(self, image, DefaultLabelTag.FINAL).get("segments", {})
        found |= {name: value for value, name in enumerate(self._classes()) if value > 0}
        return {name: value for name, value in found.items() if is_name(name)}

    def _class_names(self, highest: int) -> list[str]:
        """Return a name for each value from 0 to the highest."""
        named = {value: name for name, value in self._names().items()}
        named = {**dict(enumerate(self._classes())), **named}
        return [named.get(value, f"class_{value}") for value in range(highest + 1)]

    def _download_labeled_data(self) -> None:
        """Fetch the newest SEG of each image that is not here yet; MONAI Label calls it for its list of cases."""
        newest = self._newest()
        for image in set(LocalDatastore.get_labeled_images(self)) - set(newest):
            self.remove_label(image, DefaultLabelTag.FINAL)
        for image, series in newest.items():
            if series in self._unreadable:
                continue
            try:
                self.get_image_uri(image)
                self.get_label_uri(series, DefaultLabelTag.FINAL, image)
            except OSError:  # the archive cannot be reached: not the label's fault
                raise
            except Exception as error:  # what others have stored can make a reader fail in any way
                logger.warning("label %s of %s left out: %s", series, image, one_line(error))
                self._unreadable.add(series)
                self.remove_label(image, DefaultLabelTag.FINAL)  # one of before is outdated

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove the file of a label that is kept here; the archive keeps its own."""
        super().remove_label(label_id, label_tag)
        self.refresh()

    def _fresh(self, name: str, ask: Callable[[], Any]) -> Any:
        now = time.monotonic()
        if name not in self._answers or now - self._answers[name][0] > _FRESH:
            self._answers[name] = (now, ask())
        return self._answers[name][1]


def _series(answer: dict[str, Any]) -> str:
    return str(answer[_SERIES]["Value"][0])


def _bring_to_grid(label: str, image: str, out: Path, values: Mapping[int, int]) -> None:
    """Write a label on the grid of its image: a SEG may leave out slices without a segment, or have axes turned.

    Args:
        label: a file with the numbers of the segments.
        image: its image.
        out: the file to write.
        values: number -> value in `out`.
    """
    grid = SimpleITK.ReadImage(image)
    placed = SimpleITK.Resample(SimpleITK.ReadImage(label), grid, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    valued = SimpleITK.ChangeLabel(SimpleITK.Cast(placed, SimpleITK.sitkUInt8), changeMap=dict(values))
    SimpleITK.WriteImage(valued, str(out))


def _values(file: str) -> list[int]:
    """Return the values in a label, ascending, without 0."""
    if file.endswith(".bin"):  # as OHIF sends it: the voxels alone
        array = np.fromfile(file, dtype=np.uint8)
    else:
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file))
    return [int(value) for value in np.unique(array) if value != 0]
