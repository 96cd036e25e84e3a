"""Stored pixels to grey values: slopes, widths, padding, byte order, MONOCHROME1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from genseg_monai.dicom.series import read_series
from tests.dicom.slices import make_slices, stored, write_slices

RIGHT = np.stack([stored(index).T for index in range(20)], axis=2) - 1024


def _set(data: Dataset, **values: object) -> Dataset:
    for name, value in values.items():
        setattr(data, name, value)
    return data


def test_slope_and_intercept_of_every_slice_count(tmp_path: Path) -> None:
    slices = make_slices()
    for k, data in enumerate(slices):
        data.RescaleSlope, data.RescaleIntercept = 1 + k / 4, -k
    series = read_series(write_slices(tmp_path, slices))
    assert series.array.dtype == np.float32
    for k in range(20):
        np.testing.assert_allclose(series.array[:, :, k], stored(k).T * (1 + k / 4) - k, rtol=1e-6)


def test_whole_slopes_stay_exact(tmp_path: Path) -> None:
    slices = make_slices()
    for k, data in enumerate(slices):
        data.RescaleSlope, data.RescaleIntercept = 2, k
    series = read_series(write_slices(tmp_path, slices))
    assert series.array.dtype == np.int16
    np.testing.assert_array_equal(series.array[:, :, 3], stored(3).T * 2 + 3)


def test_what_int16_cannot_hold_becomes_float(tmp_path: Path) -> None:
    slices = make_slices()
    slices[-1].PixelData = (stored(19) - np.int32(33500)).astype("<i2").tobytes()  # -1024 more is below -32768
    series = read_series(write_slices(tmp_path, slices))
    assert series.array.dtype == np.float32
    np.testing.assert_array_equal(series.array[:, :, :19], RIGHT[:, :, :19])
    assert series.array[0, 0, 19] == 1190 - 33500 - 1024


def test_unsigned_values_above_int16(tmp_path: Path) -> None:
    slices = make_slices()
    for data in slices:
        data.PixelRepresentation = 0
        data.PixelData = np.full((12, 16), 60000, "<u2").tobytes()
    assert read_series(write_slices(tmp_path, slices)).array.max() == 60000 - 1024


def test_padding_of_a_ct_becomes_air(tmp_path: Path) -> None:
    slices = make_slices()
    for k, data in enumerate(slices):
        pixels = stored(k)
        pixels[0, :2] = (-2000, -1990)
        data.PixelData = pixels.tobytes()
        data.add_new(0x00280120, "SS", -2000)
        data.add_new(0x00280121, "SS", -1990)
    array = read_series(write_slices(tmp_path, slices)).array
    assert (array[:2, 0] == -1024).all()
    np.testing.assert_array_equal(array[2:, 0], RIGHT[2:, 0])


def test_padding_of_another_modality_becomes_the_least_value(tmp_path: Path) -> None:
    slices = make_slices()
    for k, data in enumerate(slices):
        pixels = stored(k)
        pixels[0, 0] = 32767
        data.PixelData, data.Modality, data.RescaleIntercept = pixels.tobytes(), "MR", 0
        data.add_new(0x00280120, "SS", 32767)
    array = read_series(write_slices(tmp_path, slices)).array
    assert (array[0, 0] == 1000).all()
    assert array.max() == 1205


@pytest.mark.parametrize(("modality", "turned"), [("CT", False), ("MR", False), ("CR", True), ("DX", True)])
def test_monochrome1_turns_radiographs_only(modality: str, turned: bool, tmp_path: Path) -> None:
    data = _set(make_slices(1)[0], Modality=modality, PhotometricInterpretation="MONOCHROME1", RescaleIntercept=-5)
    _set(data, PixelRepresentation=0, BitsStored=12, HighBit=11)
    array = read_series(write_slices(tmp_path, [data])).array[:, :, 0]
    np.testing.assert_array_equal(array, (4095 - stored(0).T if turned else stored(0).T) - 5)


def test_big_endian(tmp_path: Path) -> None:
    slices = make_slices()
    for k, data in enumerate(slices):
        data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        data.PixelData = stored(k).astype(">i2").tobytes()
        data.add_new(0x00280120, "SS", -2000)
    np.testing.assert_array_equal(read_series(write_slices(tmp_path, slices)).array, RIGHT)


@pytest.mark.parametrize("meta", [True, False])
def test_implicit_and_without_preamble_or_file_meta(meta: bool, tmp_path: Path) -> None:
    for k, data in enumerate(make_slices()):
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        if not meta:
            del data.file_meta
        data.save_as(tmp_path / f"{k}", implicit_vr=True, little_endian=True, enforce_file_format=False)
    np.testing.assert_array_equal(read_series(tmp_path).array, RIGHT)


def test_eight_bits(tmp_path: Path) -> None:
    slices = make_slices()
    for k, data in enumerate(slices):
        _set(data, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0, RescaleIntercept=-3)
        data.PixelData = (stored(k) % 200).astype(np.uint8).tobytes()
    expected = np.stack([stored(k).T % 200 for k in range(20)], axis=2) - 3
    np.testing.assert_array_equal(read_series(write_slices(tmp_path, slices)).array, expected)
