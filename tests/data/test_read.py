from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImage, LoadImaged, Orientation
from PIL import Image

from genseg_monai.data import CaseReader, LabelReader
from genseg_monai.errors import UserError
from tests.data.sets import PALETTE, picture, volume


def read(reader: CaseReader, path: Path | list[Path]) -> np.ndarray:
    return reader.get_data(reader.read(path))[0]


RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("grey.png", GREY),
        ("grey.bmp", GREY),
        ("grey.tif", GREY),
        ("deep.png", RNG.integers(0, 65536, (5, 7), dtype=np.uint16)),
        ("deep.tif", RNG.integers(0, 65536, (5, 7), dtype=np.uint16)),
        ("float.tif", RNG.normal(size=(5, 7)).astype(np.float32)),
    ],
)
def test_grey_pictures_keep_values_rows_and_columns(tmp_path: Path, name: str, array: np.ndarray) -> None:
    got = read(CaseReader(), picture(tmp_path / name, array))
    assert got.shape == (1, 5, 7)
    np.testing.assert_array_equal(got[0], array)


def test_colours_come_first_and_alpha_does_not_count(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(CaseReader(), picture(tmp_path / "c.png", COLOUR)), COLOUR.transpose(2, 0, 1))
    alpha = np.concatenate([COLOUR, np.full((5, 7, 1), 9, np.uint8)], -1)
    np.testing.assert_array_equal(read(CaseReader(), picture(tmp_path / "a.png", alpha)), COLOUR.transpose(2, 0, 1))
    Image.fromarray(GREY).convert("LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read(CaseReader(), tmp_path / "la.png")[0], GREY)


def test_channels_are_made_on_demand(tmp_path: Path) -> None:
    grey, colour = picture(tmp_path / "g.png", GREY), picture(tmp_path / "c.png", COLOUR)
    assert (read(CaseReader(channels=3), grey) == GREY).all()
    np.testing.assert_array_equal(
        read(CaseReader(channels=1), colour)[0], np.asarray(Image.fromarray(COLOUR).convert("L"))
    )
    with pytest.raises(UserError, match="wanted 2 channels, got 3"):
        read(CaseReader(channels=2), colour)


def test_a_turned_photograph_is_turned_back(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    Image.fromarray(COLOUR).save(tmp_path / "phone.png", exif=exif)
    np.testing.assert_array_equal(read(CaseReader(), tmp_path / "phone.png"), np.rot90(COLOUR, -1).transpose(2, 0, 1))


def test_label_values_survive(tmp_path: Path) -> None:
    index = np.array([[0, 1], [2, 1]], np.uint8)
    coloured = Image.fromarray(index, mode=None).convert("L")
    palette = coloured.copy()
    palette.putpalette(PALETTE)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read(LabelReader(), tmp_path / "p.png")[0], index)
    assert read(CaseReader(), tmp_path / "p.png").shape == (3, 2, 2)  # an image shows the colours of its palette
    picture(tmp_path / "rgb.png", np.repeat(index[..., None], 3, -1))
    np.testing.assert_array_equal(read(LabelReader(), tmp_path / "rgb.png")[0], index)
    Image.fromarray(index > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read(LabelReader(), tmp_path / "bits.png")[0], (index > 0) * 255)  # white
    volume(tmp_path / "f.nii", index[..., None].astype(np.float32) + 1e-4)
    np.testing.assert_array_equal(read(LabelReader(), tmp_path / "f.nii")[0], index)
    with pytest.raises(UserError, match="wanted a grey mask with one value a class, got colours"):
        read(LabelReader(), picture(tmp_path / "c.png", COLOUR))
    volume(tmp_path / "two.nii", np.zeros((2, 2, 2, 2)))
    with pytest.raises(UserError, match="wanted one channel of class values, got 2"):
        read(LabelReader(), tmp_path / "two.nii")


def test_volumes_keep_axes_and_affine(tmp_path: Path) -> None:
    array = RNG.integers(-1000, 2000, (4, 5, 6), dtype=np.int16)
    affine = np.array([[0, 0, 2.5, -3], [-0.7, 0, 0, 4], [0, 0.7, 0, 5], [0, 0, 0, 1]])
    path = volume(tmp_path / "v.nii.gz", array, affine)
    image = LoadImage(reader=CaseReader(), image_only=True, ensure_channel_first=True)(path)
    assert image.shape == (1, 4, 5, 6)
    np.testing.assert_array_equal(image[0].numpy(), array)
    np.testing.assert_allclose(image.affine.numpy(), affine)
    # MONAI's own reader is the reference for what follows from the affine
    theirs = LoadImage(image_only=True, ensure_channel_first=True)(path)
    turned, reference = (Orientation(axcodes="RAS", labels=None)(v) for v in (image, theirs))
    np.testing.assert_array_equal(turned.numpy(), reference.numpy())
    np.testing.assert_allclose(turned.affine.numpy(), reference.affine.numpy())


def test_channels_in_files_and_in_the_fourth_axis(tmp_path: Path) -> None:
    a, b = RNG.normal(size=(2, 4, 5, 6)).astype(np.float32)
    first, second = volume(tmp_path / "a.nii", a), volume(tmp_path / "b.nii", b)
    both = volume(tmp_path / "ab.nii", np.stack([a, b], -1))
    np.testing.assert_array_equal(read(CaseReader(), [first, second]), [a, b])
    np.testing.assert_array_equal(read(CaseReader(), both), [a, b])
    volume(tmp_path / "vector.nii", np.stack([a, b], -1)[:, :, :, None])
    np.testing.assert_array_equal(read(CaseReader(), tmp_path / "vector.nii"), [a, b])
    volume(tmp_path / "moved.nii", b, np.diag([2.0, 2, 2, 1]))
    with pytest.raises(UserError, match="wanted the grid of the first channel, a.nii"):
        read(CaseReader(), [first, tmp_path / "moved.nii"])


@pytest.mark.parametrize("dtype", ["uint8", "<i2", ">i2", ">f4", "uint16", "uint32", "float64"])
def test_what_is_stored_becomes_a_tensor_of_the_same_values(tmp_path: Path, dtype: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) * 9).astype(dtype)
    load = LoadImage(reader=CaseReader(), dtype=None, image_only=True, ensure_channel_first=True)
    np.testing.assert_array_equal(load(volume(tmp_path / "a.nii", array))[0], array.astype(float))
    assert load(picture(tmp_path / "a.png", GREY)).dtype == torch.uint8


def test_a_flat_volume_is_a_picture(tmp_path: Path) -> None:
    assert read(CaseReader(), volume(tmp_path / "f.nii", np.ones((4, 5, 1)))).shape == (1, 4, 5)


def test_a_series_is_read_with_its_modality(real_data: Path) -> None:
    reader = CaseReader()
    folder = real_data / "dicom" / "ct_liver_3slice_series"
    array, meta = reader.get_data(reader.read(folder))
    assert array.shape == (1, 512, 512, 3)
    assert meta["modality"] == "CT"
    files, _ = reader.get_data(reader.read(sorted(folder.iterdir())))
    np.testing.assert_array_equal(files, array)


def test_a_radiograph_lies_as_its_picture_would(real_data: Path) -> None:
    import pydicom

    path = real_data / "dicom" / "torture" / "CT_small.dcm"
    reader = CaseReader()
    array, meta = reader.get_data(reader.read(path))
    header = pydicom.dcmread(path)
    np.testing.assert_allclose(
        array[0], header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
    )
    down = np.array(header.ImageOrientationPatient[3:], float) * [-1, -1, 1]  # LPS to RAS, one row down
    np.testing.assert_allclose(meta["affine"][:3, 0], down * header.PixelSpacing[0], atol=1e-6)


def _cut(path: Path, keep: float = 0.5) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def _flattened(path: Path) -> Path:
    header = nibabel.Nifti1Header()
    header.set_sform(np.diag([1.0, 1, 0, 1]), code=1)
    nibabel.Nifti1Image(np.zeros((2, 2, 2)), None, header).to_filename(path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none.png", "there is no such file"),
        (lambda p: _cut(picture(p / "cut.png", RNG.integers(0, 255, (64, 64), dtype=np.uint8))), "cannot be read"),
        (lambda p: _cut(volume(p / "cut.nii.gz", RNG.normal(size=(9, 9, 9)))), "cannot be read"),
        (lambda p: _cut(volume(p / "cut.nii", RNG.normal(size=(9, 9, 9)))), "cannot be read"),
        (
            lambda p: volume(p / "colours.nii", np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
            "real numbers",
        ),
        (lambda p: _flattened(p / "flat.nii"), "affine without volume"),
        (lambda p: volume(p / "six.nii", np.zeros((2, 2, 2, 2, 3))), "got an array of 2 x 2 x 2 x 2 x 3"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, make, message: str) -> None:
    path = make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        read(CaseReader(), path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no image")
    (tmp_path / "b.png").write_text("no image")
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(b"no image"))
    with pytest.raises(UserError, match="wanted PNG, JPEG, TIFF, BMP, NIfTI or a DICOM series"):
        read(CaseReader(), tmp_path / "a.txt")
    for name in ("b.png", "c.nii.gz"):
        with pytest.raises(UserError, match="cannot be read"):
            read(CaseReader(), tmp_path / name)
    frames = [Image.fromarray(GREY), Image.fromarray(GREY)]
    frames[0].save(tmp_path / "film.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match="wanted one picture, got a file of 2"):
        read(CaseReader(), tmp_path / "film.tif")


def test_our_reason_reaches_the_user_of_monai(tmp_path: Path) -> None:
    broken = _cut(picture(tmp_path / "cut.png", RNG.integers(0, 255, (64, 64), dtype=np.uint8)))
    load = Compose([LoadImaged("image", reader=CaseReader(), image_only=True)])
    with pytest.raises(RuntimeError) as caught:
        load({"image": str(broken)})
    chain, error = [], caught.value
    while error is not None:
        chain, error = [*chain, error], error.__cause__
    assert any(isinstance(e, UserError) and e.where == str(broken) for e in chain)


def test_every_odd_volume_equals_what_nibabel_reads(real_data: Path) -> None:
    for path in sorted((real_data / "odd_3d" / "imagesTr").iterdir()):
        reference = nibabel.load(path)
        array, meta = CaseReader().get_data(CaseReader().read(path))
        np.testing.assert_array_equal(array[0], np.asanyarray(reference.dataobj))
        np.testing.assert_array_equal(meta["affine"], reference.affine)
