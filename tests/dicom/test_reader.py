"""The MONAI reader: affines and values as MONAI's transforms see them, refusals as errors of `LoadImage`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImage, LoadImaged, Orientationd

from genseg_monai.dicom.reader import SeriesReader
from genseg_monai.dicom.series import SeriesError, SeriesFault, find_series, read_series
from tests.dicom.slices import make_slices, write_slices
from tests.dicom.study import write_study


@pytest.mark.parametrize("oblique", [False, True])
def test_load_image(oblique: bool, tmp_path: Path) -> None:
    study = write_study(tmp_path, oblique=oblique, seg=False, rtstruct=False, phi=False)
    loaded = LoadImage(reader=SeriesReader, image_only=True)(study.images[0].parent)
    assert loaded.dtype.is_floating_point
    np.testing.assert_array_equal(loaded.numpy(), study.volume)
    np.testing.assert_allclose(loaded.affine.numpy(), study.affine, atol=1e-5)


def test_dictionary_transforms_follow_the_affine(tmp_path: Path) -> None:
    study = write_study(tmp_path, seg=False, rtstruct=False, phi=False)
    data = LoadImaged("image", reader=SeriesReader, ensure_channel_first=True)({"image": study.images[0].parent})
    assert data["image"].shape == (1, *study.volume.shape)
    turned = Orientationd("image", "RAS", labels=None)(data)["image"]
    np.testing.assert_array_equal(turned[0].numpy(), study.volume[::-1, ::-1])


def test_a_list_of_files_and_a_found_series(tmp_path: Path) -> None:
    write_slices(tmp_path / "a", make_slices())
    write_slices(tmp_path / "b", make_slices(series=2))
    reader = SeriesReader()
    for entry in find_series(tmp_path):
        for source in (list(entry.files), entry):
            assert reader.get_data(reader.read(source))[0].shape == (16, 12, 20)


def test_refused_series_do_not_fall_through_to_other_readers(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, make_slices(step=(0, 0.6, 2.5)))
    with pytest.raises(SeriesError) as caught:
        LoadImage(reader=SeriesReader, image_only=True)(folder)
    assert caught.value.reason is SeriesFault.GANTRY_TILT
    sheared = LoadImage(reader=SeriesReader(tilt="shear"), image_only=True)(folder)
    np.testing.assert_allclose(sheared.affine.numpy(), read_series(folder, tilt="shear").affine)
