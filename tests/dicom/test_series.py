"""Every case of a broken or odd series: the right volume, or the reason why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from genseg_monai.dicom.series import SeriesError, SeriesFault, find_series, read_series
from tests.dicom.objects import make_uid
from tests.dicom.slices import STEP, make_slices, stored, write_slices

RIGHT = np.stack([stored(index).T for index in range(20)], axis=2) - 1024


def tilted() -> list[Dataset]:
    return make_slices(step=(0, 0.6, STEP))


def without(index: int) -> list[Dataset]:
    return [data for k, data in enumerate(make_slices()) if k != index]


def changed(index: int, **values: object) -> list[Dataset]:
    slices = make_slices()
    for name, value in values.items():
        setattr(slices[index], name, value)
    return slices


REFUSED: dict[str, tuple[Callable[[], list[Dataset]], SeriesFault]] = {
    "gantry tilt": (tilted, SeriesFault.GANTRY_TILT),
    "missing middle slice": (lambda: without(9), SeriesFault.MISSING_SLICE),
    "two missing slices": (
        lambda: [d for k, d in enumerate(make_slices()) if k not in (3, 9)],
        SeriesFault.MISSING_SLICE,
    ),
    "one instance, two contents": (
        lambda: [*make_slices(), *changed(4, InstanceNumber=99)[4:5]],
        SeriesFault.DUPLICATE,
    ),
    "two slices at one position": (
        lambda: [*make_slices(), *changed(4, SOPInstanceUID="1.2.3")[4:5]],
        SeriesFault.SAME_POSITION,
    ),
    "nearly one position": (
        lambda: changed(5, ImagePositionPatient=[-10, -20, 30 + 4 * STEP + 0.001]),
        SeriesFault.SAME_POSITION,
    ),
    "one slice turned": (
        lambda: changed(4, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
        SeriesFault.MIXED_ORIENTATION,
    ),
    "one slice mirrored": (
        lambda: changed(4, ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]),
        SeriesFault.MIXED_ORIENTATION,
    ),
    "two frames of reference": (lambda: changed(4, FrameOfReferenceUID="1.2.9"), SeriesFault.MIXED_ORIENTATION),
    "two series": (lambda: make_slices() + make_slices(10, series=2), SeriesFault.SEVERAL_SERIES),
    "one slice shifted aside": (
        lambda: changed(7, ImagePositionPatient=[-7, -20, 30 + 7 * STEP]),
        SeriesFault.GEOMETRY,
    ),
    "another pixel spacing": (lambda: changed(7, PixelSpacing=[0.6, 0.7]), SeriesFault.MIXED_SIZE),
    "no position": (lambda: changed(7, ImagePositionPatient=None), SeriesFault.NO_POSITION),
    "orientation not perpendicular": (
        lambda: [_set(data, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]) for data in make_slices()],
        SeriesFault.GEOMETRY,
    ),
    "only localizers": (
        lambda: [_set(data, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]) for data in make_slices(2)],
        SeriesFault.LOCALIZER,
    ),
    "colour": (lambda: changed(0, PhotometricInterpretation="RGB", SamplesPerPixel=3), SeriesFault.COLOUR),
    "palette": (lambda: changed(0, PhotometricInterpretation="PALETTE COLOR"), SeriesFault.COLOUR),
    "look-up table": (lambda: changed(0, ModalityLUTSequence=Sequence([Dataset()])), SeriesFault.VALUES),
    "slope zero": (lambda: changed(0, RescaleSlope=0), SeriesFault.VALUES),
    "values in high bits": (lambda: changed(0, BitsStored=12, HighBit=15), SeriesFault.VALUES),
    "one slice of another size": (lambda: changed(0, Rows=6), SeriesFault.MIXED_SIZE),
    "more rows than pixels": (lambda: changed(0, Rows=13), SeriesFault.TRUNCATED),
    "no rows": (lambda: changed(0, Rows=0), SeriesFault.UNREADABLE),
}


def _set(data: Dataset, **values: object) -> Dataset:
    for name, value in values.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_with_the_reason(case: str, tmp_path: Path) -> None:
    make, reason = REFUSED[case]
    with pytest.raises(SeriesError) as caught:
        read_series(write_slices(tmp_path, make()))
    assert caught.value.reason is reason, caught.value


def _reversed() -> list[Dataset]:
    return [_set(data, InstanceNumber=20 - k) for k, data in enumerate(make_slices())]


def _with_copy() -> list[Dataset]:
    return [*make_slices(), make_slices()[4]]


def _with_localizer() -> list[Dataset]:
    scout = make_slices(1)[0]
    return [*make_slices(), _set(scout, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SOPInstanceUID="1.2.7")]


def _overlay_bits() -> list[Dataset]:
    """Twelve bits stored, an overlay in the bits above."""
    return [
        _set(d, BitsStored=12, HighBit=11, PixelRepresentation=0, PixelData=(stored(k) | 0x4000).tobytes())
        for k, d in enumerate(make_slices())
    ]


def _signed_twelve() -> list[Dataset]:
    """Twelve bits with a sign that the bits above do not repeat."""
    return [
        _set(
            data,
            BitsStored=12,
            HighBit=11,
            RescaleIntercept=0,
            PixelData=((stored(k) - 1024) & 0x0FFF).astype("<i2").tobytes(),
        )
        for k, data in enumerate(make_slices())
    ]


def _rounded() -> list[Dataset]:
    """Positions rounded to 0.01 mm, with a step of 0.8333 mm."""
    return [
        _set(data, ImagePositionPatient=[-10, -20, round(30 + k * 0.83333, 2)]) for k, data in enumerate(make_slices())
    ]


ACCEPTED: dict[str, Callable[[], list[Dataset]]] = {
    "plain": make_slices,
    "reversed instance numbers": _reversed,
    "identical copy": _with_copy,
    "localizer among the slices": _with_localizer,
    "overlay in the high bits": _overlay_bits,
    "signed, twelve bits": _signed_twelve,
    "rounded positions": _rounded,
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_reads_the_right_volume(case: str, tmp_path: Path) -> None:
    series = read_series(write_slices(tmp_path, ACCEPTED[case]()))
    assert series.array.dtype == np.int16
    np.testing.assert_array_equal(series.array, RIGHT)
    step = STEP if case != "rounded positions" else 0.83333
    np.testing.assert_allclose(
        series.affine, [[-0.7, 0, 0, 10], [0, -0.5, 0, 20], [0, 0, step, 30], [0, 0, 0, 1]], atol=1e-3
    )
    assert series.sop_instances == tuple(make_uid("slices", 1, k) for k in range(20))


def test_tilt_as_a_sheared_affine(tmp_path: Path) -> None:
    series = read_series(write_slices(tmp_path, tilted()), tilt="shear")
    np.testing.assert_array_equal(series.array, RIGHT)
    np.testing.assert_allclose(series.affine[:3, 2], [0, -0.6, STEP])


def test_tilt_resampled_keeps_values_at_their_place(tmp_path: Path) -> None:
    slices = tilted()
    for data in slices:  # a value that is the height in the patient, so that it is known everywhere
        rows = -20 + 0.6 * (data.InstanceNumber - 1) + 0.5 * np.arange(12)
        data.PixelData = np.repeat((rows * 100 + 5000)[:, None], 16, 1).round().astype("<i2").tobytes()
    series = read_series(write_slices(tmp_path, slices), tilt="resample")
    np.testing.assert_allclose(series.affine[:3, 2], [0, 0, STEP])
    y = -(series.affine @ np.stack([*np.indices((16, 12, 20)).reshape(3, -1), np.ones(3840)]))[1]
    expected = (y * 100 + 5000 - 1024).reshape(16, 12, 20)
    inside = series.array > series.array.min()
    assert inside.mean() > 0.4
    np.testing.assert_allclose(series.array[inside], expected[inside], atol=26)  # half a pixel at the border
    assert "resampled" in series.facts


def test_one_missing_slice_filled_on_request(tmp_path: Path) -> None:
    series = read_series(write_slices(tmp_path, without(9)), gaps="fill")
    np.testing.assert_array_equal(series.array, RIGHT)  # the values grow evenly, so the mean is the slice itself
    assert series.files[9] is None
    assert series.sop_instances[9] == ""
    assert any("filled" in note for note in series.notes)


def test_missing_end_slice_is_known_from_the_archive(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, without(19))
    assert read_series(folder).array.shape[2] == 19
    with pytest.raises(SeriesError) as caught:
        read_series(folder, expected=20)
    assert caught.value.reason is SeriesFault.INCOMPLETE


def test_finds_each_series_of_a_folder(tmp_path: Path) -> None:
    write_slices(tmp_path / "a", make_slices())
    write_slices(tmp_path / "b", make_slices(10, series=2))
    (tmp_path / "notes.txt").write_text("no DICOM here\n")
    assert [len(found.files) for found in find_series(tmp_path)] == [20, 10]
    assert [read_series(found).array.shape[2] for found in find_series(tmp_path)] == [20, 10]


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "TemporalPositionIdentifier", "EchoTime", "ContentTime"])
def test_phases_of_one_series_come_apart(keyword: str, tmp_path: Path) -> None:
    slices = []
    for phase in (1, 2):
        for k, data in enumerate(make_slices(6)):
            slices.append(_set(data, SOPInstanceUID=make_uid(phase, k)))
            setattr(data, keyword, str(10 * phase))
            data.PixelData = (stored(k) + 1000 * phase).astype("<i2").tobytes()
    folder = write_slices(tmp_path, slices)
    with pytest.raises(SeriesError) as caught:
        read_series(folder)
    assert caught.value.reason is SeriesFault.SAME_POSITION
    stacks = [read_series(found) for found in find_series(folder)]
    assert [stack.array.min() for stack in stacks] == [976, 1976]
    assert all(stack.array.shape == (16, 12, 6) for stack in stacks)


def test_a_broken_file_among_good_ones_is_not_passed_over(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, make_slices())
    last = folder / "019.dcm"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(SeriesError) as caught:
        read_series(folder)
    assert caught.value.reason is SeriesFault.TRUNCATED


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.2])
def test_a_series_beside_a_broken_slice_is_refused(kept: float, tmp_path: Path) -> None:
    """Cut in its pixels, its header, its first elements: where the UIDs are lost, the folder tells."""
    folder = write_slices(tmp_path / "a", make_slices())
    write_slices(tmp_path / "b", make_slices(series=2))
    last = folder / "019.dcm"
    last.write_bytes(last.read_bytes()[: int(kept * last.stat().st_size)])
    mine, other = find_series(tmp_path)
    assert mine.broken == (last,)
    with pytest.raises(SeriesError) as caught:
        read_series(mine)
    assert caught.value.reason is SeriesFault.INCOMPLETE
    assert read_series(other).array.shape[2] == 20


def test_a_spoilt_copy_takes_nothing_away(tmp_path: Path) -> None:
    folder = write_slices(tmp_path, make_slices())
    (folder / "copy.dcm").write_bytes((folder / "003.dcm").read_bytes()[:-100])
    [found] = find_series(folder)
    assert found.broken == ()
    assert read_series(found).array.shape[2] == 20


def test_a_broken_file_without_uids_among_several_series_is_noted(tmp_path: Path) -> None:
    write_slices(tmp_path, make_slices())
    for path in sorted(tmp_path.glob("*.dcm")):
        path.rename(path.with_suffix(".first"))
    folder = write_slices(tmp_path, make_slices(series=2))
    whole = (folder / "003.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[: whole.index(b"CT", 200)])
    for found in find_series(folder):
        assert read_series(found).notes == ("files beside it that cannot be read, and may be slices of it: 1",)


def test_no_identifier_in_what_is_returned_or_raised(tmp_path: Path) -> None:
    slices = [_set(d, PatientName="ZZPHI^Jane", PatientID="ZZPHI1", StudyDescription="ZZPHI") for d in make_slices()]
    series = read_series(write_slices(tmp_path, slices))
    assert "ZZPHI" not in repr({**vars(series), "array": None})
    slices[3].ImagePositionPatient = [0, 0, 0]
    slices[3]["ImagePositionPatient"]._value = "ZZPHI\\1\\2"
    with pytest.raises(SeriesError) as caught:
        read_series(write_slices(tmp_path, slices))
    assert caught.value.reason is SeriesFault.UNREADABLE
    assert "ZZPHI" not in str(caught.value)
