"""Masks on disk: what nibabel and Pillow read is what was predicted, where it was."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, SaveImaged
from PIL import Image
from scipy.spatial.transform import Rotation

from genseg_monai.errors import UserError
from genseg_monai.transforms import SaveMaskd, stem_of


def oblique() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -13, 31], degrees=True).as_matrix() @ np.diag([0.7, 0.9, 3.3])
    affine[:3, 3] = [-91.3, 17.9, 1204.7]
    return affine


def mask(size: tuple[int, ...], source: str | Path, affine: np.ndarray | None = None) -> MetaTensor:
    values = torch.randint(0, 3, (1, *size)).float()
    meta = {"filename_or_obj": str(source), "spatial_shape": np.asarray(size)}
    return MetaTensor(values, affine=None if affine is None else torch.from_numpy(affine), meta=meta)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


@pytest.mark.parametrize("size", [(5, 7, 3), (5, 7, 1), (1, 1, 1), (5, 7)])
def test_nifti_in_nifti_out(tmp_path: Path, size: tuple[int, ...]) -> None:
    source = tmp_path / "in" / "case.1.nii.gz"
    source.parent.mkdir()
    nib.save(nib.Nifti1Image(np.zeros(size, dtype=np.int16), oblique()), source)
    image = LoadImage(image_only=True, ensure_channel_first=True)(source)
    values = torch.randint(0, 3, image.shape).float()
    pred = MetaTensor(values, meta=image.meta)
    SaveMaskd("pred", tmp_path / "out")({"pred": pred, "image": image})
    written = nib.load(tmp_path / "out" / "case.1.nii.gz")
    assert written.shape == size
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), values[0].numpy())
    np.testing.assert_array_equal(written.affine, nib.load(source).affine)
    np.testing.assert_allclose(written.get_qform(), written.affine, atol=1e-4)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (1, 1)


@pytest.mark.parametrize("size", [(5, 7), (5, 7, 1)])
def test_a_slice_keeps_its_third_axis(tmp_path: Path, size: tuple[int, ...]) -> None:
    source = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.zeros(size, dtype=np.int16), oblique()), source)
    pred = mask((5, 7), source, nib.load(source).affine)  # a reader may drop it
    SaveMaskd("pred", tmp_path)({"pred": pred})
    written = nib.load(tmp_path / "a.nii.gz")
    assert written.shape == size
    np.testing.assert_array_equal(np.asarray(written.dataobj).reshape(5, 7), pred[0].numpy())
    SaveMaskd("pred", tmp_path)({"pred": mask((5, 7), "a_dicom_series", oblique())})
    assert nib.load(tmp_path / "a_dicom_series.nii.gz").shape == (5, 7, 1)


@pytest.mark.parametrize("source", ["a.png", "a.JPG", "a.tif"])
def test_pictures_in_png_out(tmp_path: Path, source: str) -> None:
    pred = mask((5, 8), source)
    SaveMaskd("pred", tmp_path)({"pred": pred})
    np.testing.assert_array_equal(read(tmp_path / "a.png"), pred[0].numpy())


def test_dicom_folder_gives_nifti_under_the_name_of_the_case(tmp_path: Path) -> None:
    pred = mask((5, 8, 3), "series/1.2.840.3", oblique())
    SaveMaskd("pred", tmp_path)({"pred": pred})
    SaveMaskd("pred", tmp_path)({"pred": pred, "case": "patient 7/b"})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.2.840.3.nii.gz", "patient 7_b.nii.gz"]


def test_the_image_tells_where_the_mask_does_not(tmp_path: Path) -> None:
    image = mask((5, 8), "photos/b.jpeg")
    SaveMaskd("pred", tmp_path, postfix="_seg")({"pred": torch.ones(1, 5, 8), "image": image})
    assert [file.name for file in tmp_path.iterdir()] == ["b_seg.png"]


def test_it_is_a_save_image_of_monai_and_hands_the_case_on(tmp_path: Path) -> None:
    save = SaveMaskd("pred", tmp_path)
    assert isinstance(save, SaveImaged)
    case = {"pred": mask((5, 8), "a.png"), "else": 1}
    assert save(case) == case


def test_two_images_of_one_stem(tmp_path: Path) -> None:
    save = SaveMaskd("pred", tmp_path, overwrite=True)
    first = mask((5, 8), "x/a.png")
    save({"pred": first})
    with pytest.raises(UserError, match=r"y/a.jpg: wanted a name of its own, x/a.png was written to .*a.png before"):
        save({"pred": mask((5, 8), "y/a.jpg")})
    np.testing.assert_array_equal(read(tmp_path / "a.png"), first[0].numpy())


def test_an_earlier_file_stays_unless_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"dear")
    case = {"pred": mask((5, 8), "a.png")}
    with pytest.raises(UserError, match=r"a.png: wanted to write the mask, a file is there; remove it"):
        SaveMaskd("pred", tmp_path)(case)
    assert (tmp_path / "a.png").read_bytes() == b"dear"
    SaveMaskd("pred", tmp_path, overwrite=True)(case)
    assert read(tmp_path / "a.png").shape == (5, 8)


def test_the_image_itself_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"dear")
    case = {"pred": mask((5, 8), tmp_path / "a.png")}
    with pytest.raises(UserError, match="the image itself is there; choose another output folder"):
        SaveMaskd("pred", tmp_path, overwrite=True)(case)
    assert (tmp_path / "a.png").read_bytes() == b"dear"


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        SaveMaskd("pred", tmp_path)({"pred": mask((5, 8), "a.png")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.rand(2, 5, 8), "wanted a mask of one channel"),
        (torch.rand(1, 5, 8), "wanted class indices 0 to 255"),
        (torch.full((1, 5, 8), 256), "wanted class indices 0 to 255"),
        (torch.full((1, 5, 8), torch.nan), "wanted class indices 0 to 255"),
        (torch.ones(1, 5, 9), r"wanted a mask of the size of the image, \(5, 8\), got \(5, 9\); invert it first"),
    ],
)
def test_what_is_no_mask(tmp_path: Path, values: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=f"a.png: {message}"):
        SaveMaskd("pred", tmp_path)({"pred": values, "image": mask((5, 8), "a.png")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "stem"),
    [("a/b.nii.gz", "b"), ("b.v2.NII", "b.v2"), ("b.tiff", "b"), ("1.2.840.113", "1.2.840.113"), ("b.dcm", "b")],
)
def test_stems(path: str, stem: str) -> None:
    assert stem_of(path) == stem
