"""Every file and folder of the real DICOM data, and the affines and values of other programs beside ours."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from genseg_monai.dicom.annotation import label_map
from genseg_monai.dicom.series import Series, SeriesError, SeriesFault, find_series, read_series
from tests.dicom.real_files import ANNOTATIONS, FILES, FOLDERS, TREE
from tests.tools import needed

GOOD = [name for name, wanted in FOLDERS.items() if isinstance(wanted, tuple)]


def _outcome(source: Any) -> tuple[Any, ...] | SeriesFault:
    try:
        series = read_series(source)
    except SeriesError as error:
        return error.reason
    return series.modality, series.array.shape, (int(series.array.min()), int(series.array.max()))


def test_the_tables_are_complete(real_data: Path) -> None:
    folder = real_data / "dicom"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(FOLDERS)
    assert {path.name for path in (folder / "torture").iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FOLDERS)
def test_folder(name: str, real_data: Path) -> None:
    outcome = _outcome(real_data / "dicom" / name)
    if name == "torture":  # which of its broken files is met first does not matter
        assert outcome in set(SeriesFault)
    else:
        assert outcome == FOLDERS[name]


@pytest.mark.parametrize("name", FILES)
def test_file(name: str, real_data: Path) -> None:
    assert _outcome(real_data / "dicom" / "torture" / name) == FILES[name]


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotation(name: str, real_data: Path) -> None:
    home, labels, wanted = ANNOTATIONS[name]
    drawn, report = label_map([real_data / "dicom" / name], read_series(real_data / "dicom" / home), labels)
    if report.refused:
        assert [error.reason for error in report.refused] == [wanted]
    else:
        assert (int((drawn > 0).sum()), report.absent) == wanted


def test_tree_of_many_series(real_data: Path) -> None:
    found = find_series(real_data / "dicom" / "dicomdir_tree")
    for entry, (place, (count, wanted)) in zip(found, TREE.items(), strict=True):
        assert place in str(entry.files[0])
        outcome = _outcome(entry)
        assert len(entry.files) == count
        assert (outcome[:2] if isinstance(outcome, tuple) else outcome) == wanted


def test_all_syntaxes_of_one_image_agree(real_data: Path) -> None:
    folder = real_data / "dicom" / "torture"
    plain = read_series(folder / "CT1_UNC.dcm").array
    for name in ("CT1_JLSL", "CT1_JPLL", "CT1_RLE"):
        np.testing.assert_array_equal(read_series(folder / f"{name}.dcm").array, plain)
    for name, tolerance in (("CT1_J2KI", 30), ("CT1_JLSN", 4)):  # lossy, mean in HU; J2KI is some 40 times smaller
        assert np.abs(read_series(folder / f"{name}.dcm").array - plain).mean() < tolerance
    plain = read_series(folder / "MR_small.dcm").array
    for name in ("RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless"):
        np.testing.assert_array_equal(read_series(folder / f"MR_small_{name}.dcm").array, plain)


def _agree(series: Series, other: np.ndarray, affine: np.ndarray, affine_tolerance: float) -> None:
    """Compare values through world coordinates: another program may count from another corner."""
    shape = np.array(series.array.shape)
    random = np.random.default_rng(0)
    voxels = random.integers(0, shape, (4000, 3))
    world = voxels @ series.affine[:3, :3].T + series.affine[:3, 3]
    there = (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    assert np.abs(there - np.rint(there)).max() < affine_tolerance
    there = np.rint(there).astype(int)
    assert (there >= 0).all()
    assert (there < np.array(other.shape)).all()
    np.testing.assert_allclose(other[tuple(there.T)], series.array[tuple(voxels.T)], atol=1e-3)


@pytest.mark.parametrize("name", GOOD)
def test_agrees_with_itk(name: str, real_data: Path) -> None:
    import itk

    folder = real_data / "dicom" / name
    series = read_series(folder)
    ordered = [str(path) for path in series.files]  # ITK is told which files, in which order
    image = itk.imread(ordered)
    directions = itk.array_from_matrix(image.GetDirection()) @ np.diag(np.array(image.GetSpacing()))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions, np.array(image.GetOrigin())
    affine = np.diag([-1, -1, 1, 1]) @ affine
    np.testing.assert_allclose(series.affine, affine, atol=2e-3)
    if name not in ("ct_liver_3slice_series", "rtstruct_ct_2slice"):  # ITK leaves padding at -3024 HU
        _agree(series, itk.array_from_image(image).transpose(2, 1, 0), affine, 0.05)


@pytest.mark.parametrize("name", GOOD)
def test_agrees_with_dcm2niix(name: str, real_data: Path, tmp_path: Path) -> None:
    [program] = needed("dcm2niix")
    subprocess.run(
        [program, "-z", "n", "-b", "n", "-f", "out_%s", "-o", str(tmp_path), str(real_data / "dicom" / name)],
        check=True,
        capture_output=True,
    )
    found = sorted(tmp_path.glob("*.nii"), key=lambda path: path.stat().st_size)
    assert found, "dcm2niix made nothing of it"
    image: Any = nibabel.load(found[-1])
    series = read_series(real_data / "dicom" / name)
    assert sorted(image.shape) == sorted(series.array.shape)
    values = np.asarray(image.dataobj)
    if name in ("ct_liver_3slice_series", "rtstruct_ct_2slice"):
        values = np.maximum(values, -1024)  # it leaves padding at -3024 HU
    _agree(series, values, image.affine, 0.05)


def test_real_segmentations(real_data: Path) -> None:
    folder = real_data / "dicom"
    series = read_series(folder / "ct_liver_3slice_series")
    labels, report = label_map([folder / "ct_liver_3slice_seg" / "liver.dcm"], series, {"liver": 3})
    assert labels.sum(axis=(0, 1)).tolist() == [3 * 36233, 3 * 35645, 3 * 35220]
    assert not report.refused
    broken, report = label_map([folder / "torture" / "liver_1frame.dcm"], series, {"liver": 1})
    assert not broken.any()
    assert [error.reason for error in report.refused] == [SeriesFault.UNREADABLE]  # one frame, three descriptions
    _, report = label_map([folder / "ct_small_4slice_seg" / "seg_image_ct_binary.dcm"], series, {"x": 1})
    assert [error.reason for error in report.refused] == [SeriesFault.SEVERAL_SERIES]


def test_labels_of_another_program_lie_on_the_series(real_data: Path) -> None:
    """TotalSegmentator's labels of the torso: same grid, through the affine."""
    image: Any = nibabel.load(real_data / "dicom" / "ct_torso_j2k_labels" / "totalsegmentator_labels.nii.gz")
    series = read_series(real_data / "dicom" / "ct_torso_j2k_series")
    labels = np.asarray(image.dataobj)
    voxels = np.argwhere(labels > 0)[::97]
    world = voxels @ image.affine[:3, :3].T + image.affine[:3, 3]
    there = (world - series.affine[:3, 3]) @ np.linalg.inv(series.affine[:3, :3]).T
    assert np.abs(there - np.rint(there)).max() < 0.02
    values = series.array[tuple(np.rint(there).astype(int).T)]
    assert (values > -1000).mean() > 0.95  # organs, not air


def test_real_structures(real_data: Path) -> None:
    folder = real_data / "dicom" / "rtstruct_ct_2slice"
    series = read_series(folder)
    labels, report = label_map([folder / "rt.dcm"], series, {"ROI-1": 1})
    assert labels[:, :, 0].any()
    assert not labels[:, :, 1].any()
    assert report.absent == report.outside == 0
    for name in ("invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"):
        labels, report = label_map([folder / name], series, {f"roi-{k}": k for k in range(1, 5)})
        assert set(np.unique(labels)) <= set(range(5))
        assert report.outside == 4  # one contour of each lies 5 mm beyond the last slice
        assert report.absent == (3 if name.startswith("invalid") else 1)
