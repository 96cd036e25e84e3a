from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from genseg_monai.dicom.codestream import scrub_frame
from genseg_monai.dicom.pixels import clean_pixels
from genseg_monai.dicom.quarantine import Quarantined, Reason
from genseg_monai.dicom.rle import cut_frame

NATIVE = "1.2.840.10008.1.2.1"
WORD = b"ZZPHI"


def _native(values, stored=12, signed=0, **more):
    image = Dataset()
    image.Rows, image.Columns, image.SamplesPerPixel = *values.shape, 1
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", signed
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, stored, stored - 1
    for keyword, value in more.items():
        setattr(image, keyword, value)
    image.PixelData = values.astype("<u2" if not signed else "<i2").tobytes()
    return image


def test_bytes_behind_native_pixels_are_cut():
    image = _native(np.arange(12).reshape(3, 4))
    before = image.PixelData
    image.PixelData += WORD
    clean_pixels(image, NATIVE, high_bits_pass=False)
    assert image.PixelData == before


def test_too_few_pixels_are_refused():
    image = _native(np.arange(12).reshape(3, 4))
    image.Rows = 30000
    with pytest.raises(Quarantined) as caught:
        clean_pixels(image, NATIVE, high_bits_pass=False)
    assert caught.value.reason is Reason.PIXELS


def test_high_bits_are_refused_or_cleared():
    values = np.arange(12).reshape(3, 4)
    with pytest.raises(Quarantined) as caught:
        clean_pixels(_native(values | 0x8000), NATIVE, high_bits_pass=False)
    assert caught.value.reason is Reason.HIGH_BITS
    image = _native(values | 0x8000)
    clean_pixels(image, NATIVE, high_bits_pass=True)
    assert np.array_equal(np.frombuffer(image.PixelData, "<u2").reshape(3, 4), values)


def test_signs_and_padding_values_are_no_overlay():
    signed = _native(np.arange(-6, 6).reshape(3, 4), signed=1)
    before = signed.PixelData
    clean_pixels(signed, NATIVE, high_bits_pass=False)
    assert signed.PixelData == before
    values = np.arange(12).reshape(3, 4)
    values[0, 0] = 63536
    padded = _native(values)
    padded.add_new("PixelPaddingValue", "US", 63536)
    before = padded.PixelData
    clean_pixels(padded, NATIVE, high_bits_pass=False)
    assert padded.PixelData == before


def _planted(frame: bytes) -> bytes:
    """Return a frame with a comment behind its first segment or marker, and text behind its end."""
    if frame[:2] == b"\xff\xd8":
        comment = b"\xff\xfe" + (2 + len(WORD)).to_bytes(2, "big") + WORD
        exif = b"\xff\xe1" + (2 + len(WORD)).to_bytes(2, "big") + WORD
        return frame[:2] + comment + exif + frame[2:] + WORD
    size = 2 + int.from_bytes(frame[4:6], "big") + 2  # SOC, then SIZ
    comment = b"\xff\x64" + (4 + len(WORD)).to_bytes(2, "big") + b"\0\1" + WORD
    return frame[:size] + comment + frame[size:] + WORD


FILES = [
    "CT1_J2KI",
    "693_J2KR",
    "CT1_JLSL",
    "CT1_JLSN",
    "CT1_JPLL",
    "SC_rgb_jpeg_dcmtk",
    "emri_small_jpeg_2k_lossless",
]


@pytest.mark.parametrize("name", FILES)
def test_comments_in_compressed_frames_are_blanked_and_the_image_stays(real_data, name):
    path = real_data / "dicom" / "torture" / f"{name}.dcm"
    image = dcmread(path)
    syntax, count = image.file_meta.TransferSyntaxUID, int(image.get("NumberOfFrames", 1))
    frames = [_planted(frame) for frame in generate_frames(image.PixelData, number_of_frames=count)]
    image.PixelData = encapsulate(frames)
    assert WORD in image.PixelData
    clean_pixels(image, syntax, high_bits_pass=False)
    assert WORD not in image.PixelData
    assert np.array_equal(image.pixel_array, dcmread(path).pixel_array)


@pytest.mark.parametrize("name", ["CT1_RLE", "MR_small_RLE", "SC_rgb_rle_2frame", "SC_rgb_rle_16bit_2frame"])
def test_bytes_behind_rle_segments_are_cut_and_the_image_stays(real_data, name):
    path = real_data / "dicom" / "torture" / f"{name}.dcm"
    image = dcmread(path)
    count = int(image.get("NumberOfFrames", 1))
    image.PixelData = encapsulate([f + WORD + b"\0" for f in generate_frames(image.PixelData, number_of_frames=count)])
    clean_pixels(image, image.file_meta.TransferSyntaxUID, high_bits_pass=False)
    assert WORD not in image.PixelData
    assert np.array_equal(image.pixel_array, dcmread(path).pixel_array)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"GIF89a",
        bytes.fromhex("ffd8"),
        bytes.fromhex("ffd8ffe0ffff"),
        bytes.fromhex("ffd8ffda000200112233"),
        bytes.fromhex("ffd80011"),
        bytes.fromhex("ff4fff51ffff"),
        bytes.fromhex("ff4fff90000a00000000000200010000"),
        bytes.fromhex("ff4fff90000a000000000012000144616e65ff93ffd9"),  # bytes before the pixels of a tile
        *(bytes.fromhex(f"ffd8ff{marker}00064a616e65ffda00021234ffd9") for marker in ("f0", "02", "c8", "de")),
        *(bytes.fromhex(f"ff4fff{marker}00064a616e65ff90000a00000000000e0001ff93ffd9") for marker in ("70", "30")),
        bytes.fromhex("ff4fff90000a00000000001600 01ff7000064a616e65ff93ffd9"),
    ],
)
def test_streams_that_contradict_themselves_are_refused(frame):
    with pytest.raises(ValueError, match="marker|frame|JPEG|tile"):
        scrub_frame(frame)


@pytest.mark.parametrize("frame", [b"", bytes(64), (1).to_bytes(4, "little") + bytes(60), b"\xff" * 80])
def test_broken_rle_is_refused(frame):
    with pytest.raises(ValueError, match="RLE"):
        cut_frame(frame, 100)
