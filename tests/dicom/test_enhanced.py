"""Enhanced multi-frame objects come out like the slices they were made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, RLELossless

from genseg_monai.dicom.annotation import label_map
from genseg_monai.dicom.segmentation import write_seg
from genseg_monai.dicom.series import SeriesError, SeriesFault, read_series
from tests.dicom.enhanced import make_enhanced
from tests.dicom.slices import make_slices, write_slices

ORDER = [3, 0, 7, 1, 2, 6, 5, 4]


@pytest.mark.parametrize("packed", [False, True])
def test_frames_in_any_order(packed: bool, tmp_path: Path) -> None:
    slices = make_slices(8)
    for index, data in enumerate(slices):
        data.RescaleIntercept = -1024 - index
    single = read_series(write_slices(tmp_path / "single", slices))
    data = make_enhanced(slices, ORDER)
    if packed:
        data.compress(RLELossless, generate_instance_uid=False)
    multi = read_series(write_slices(tmp_path / "multi", [data]))
    np.testing.assert_array_equal(multi.array, single.array)
    np.testing.assert_allclose(multi.affine, single.affine)
    assert multi.frames == tuple(ORDER.index(index) for index in range(8))
    assert len(set(multi.sop_instances)) == 1


def test_a_frame_left_out_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(SeriesError) as caught:
        read_series(write_slices(tmp_path, [make_enhanced(make_slices(8), [0, 1, 2, 4, 5, 6, 7])]))
    assert caught.value.reason is SeriesFault.MISSING_SLICE


def test_frames_without_a_position(tmp_path: Path) -> None:
    with pytest.raises(SeriesError) as caught:
        read_series(write_slices(tmp_path, [make_enhanced(make_slices(8), ORDER, per_frame=False)]))
    assert caught.value.reason is SeriesFault.NO_POSITION


def test_fewer_groups_than_frames(tmp_path: Path) -> None:
    data = make_enhanced(make_slices(8), ORDER)
    del data.PerFrameFunctionalGroupsSequence[0]
    with pytest.raises(SeriesError) as caught:
        read_series(write_slices(tmp_path, [data]))
    assert caught.value.reason is SeriesFault.UNREADABLE


def test_segmentation_of_a_multi_frame_image(tmp_path: Path) -> None:
    data = make_enhanced(make_slices(8), ORDER)
    data.DimensionOrganizationSequence, data.DimensionIndexSequence = [], []
    series = read_series(write_slices(tmp_path / "images", [data]))
    mask = np.zeros(series.array.shape, np.uint8)
    mask[2:5, 3:9, 1:3] = 1
    path = write_seg(mask, series, ("background", "liver"), tmp_path / "seg.dcm")
    np.testing.assert_array_equal(label_map([path], series, {"liver": 1})[0], mask)


def _oblique_mr() -> list[Dataset]:
    """Return eight MR slices, tilted by 30 degrees, each with a slope and an intercept of its own."""
    cosine, sine = np.cos(np.radians(30)), np.sin(np.radians(30))
    slices = make_slices(8)
    for index, data in enumerate(slices):
        data.Modality, data.SOPClassUID = "MR", MRImageStorage
        data.ImageOrientationPatient = [1, 0, 0, 0, float(cosine), float(sine)]
        place = np.array([-10, -20, 30]) + 2.5 * index * np.array([0, -sine, cosine])
        data.ImagePositionPatient = [f"{value:.10g}" for value in place]
        data.RescaleSlope, data.RescaleIntercept = f"{0.5 + 0.25 * index:g}", f"{index:g}"
    return slices


@pytest.mark.parametrize("shared", [False, True])
def test_oblique_mr_with_groups_of_each_frame(shared: bool, tmp_path: Path) -> None:
    """Position, orientation, spacing and rescale of every frame; checked by hand and by highdicom."""
    import highdicom

    slices = _oblique_mr()
    data = make_enhanced(slices, ORDER, shared_groups=shared)
    data.SOPClassUID, data.Modality = EnhancedMRImageStorage, "MR"
    folder = write_slices(tmp_path / "multi", [data])
    series = read_series(folder)
    assert series.array.dtype == np.float32
    for index in range(8):
        expected = (1000 + 10 * index + np.arange(16)) * (0.5 + 0.25 * index) + index
        np.testing.assert_allclose(series.array[:, :, index], np.repeat(expected[:, None], 12, 1))
    single = read_series(write_slices(tmp_path / "single", slices))
    np.testing.assert_allclose(series.affine, single.affine)
    np.testing.assert_array_equal(series.array, single.array)
    volume = highdicom.imread(next(folder.iterdir())).get_volume()
    theirs = np.diag([-1.0, -1, 1, 1]) @ volume.affine  # LPS to RAS
    at = np.round(np.linalg.inv(theirs) @ series.affine @ np.array([[3, 5, 2, 1], [15, 0, 7, 1], [0, 11, 0, 1]]).T)
    np.testing.assert_allclose(theirs @ at, series.affine @ np.array([[3, 5, 2, 1], [15, 0, 7, 1], [0, 11, 0, 1]]).T)
    for (x, y, z), (i, j, k) in zip([(3, 5, 2), (15, 0, 7), (0, 11, 0)], at[:3].T.astype(int), strict=True):
        assert series.array[x, y, z] == pytest.approx(volume.array[i, j, k])


def test_no_functional_groups_at_all(tmp_path: Path) -> None:
    """Eight frames without a word on where they lie are refused with that reason, not stacked one millimetre apart."""
    data = make_enhanced(make_slices(8), ORDER)
    del data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence
    with pytest.raises(SeriesError, match="position, orientation and spacing of all 8") as caught:
        read_series(write_slices(tmp_path, [data]))
    assert caught.value.reason is SeriesFault.NO_POSITION
