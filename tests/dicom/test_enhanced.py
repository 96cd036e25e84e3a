"""Enhanced multi-frame objects come out like the slices they were made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import RLELossless

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
