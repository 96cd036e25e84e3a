"""The walk over element headers, against pydicom as the reference, and on hostile bytes."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import DATA_ROOT
from pydicom.dataset import Dataset, FileMetaDataset

from genseg_monai.pacs.faults import ArchiveError, NetFault
from genseg_monai.pacs.identify import Identity, identify, identify_file
from genseg_monai.pacs.multipart import parts
from tests.dicom.study import Study

SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"]


def of(dataset: Dataset) -> Identity:
    words = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    return Identity(*(str(dataset[word].value) for word in words))


def encoded(dataset: Dataset, syntax: str, undefined: bool) -> bytes:
    copy = Dataset(dataset)
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = syntax
    copy.file_meta.MediaStorageSOPClassUID = copy.SOPClassUID
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    for element in copy.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
    for word in ("PixelData", "PixelRepresentation"):
        copy.pop(word, None)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, copy, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_as_pydicom_reads_it(study: Study, syntax: str, undefined: bool) -> None:
    for path in (study.images[0], study.seg, study.rtstruct):
        dataset = pydicom.dcmread(path)
        nested = Dataset()
        nested.StudyInstanceUID, nested.SeriesInstanceUID, nested.SOPInstanceUID = "1.9", "1.9.1", "1.9.2"
        dataset.ReferencedStudySequence = [nested]  # before the true ones: must not be taken for them
        assert identify_file(encoded(dataset, syntax, undefined)) == of(dataset)


@pytest.mark.filterwarnings("ignore")
def test_files_of_pydicom() -> None:
    seen = 0
    for path in sorted(Path(DATA_ROOT, "test_files").glob("*.dcm")):  # those of the wheel; no download
        found = identify_file(path.read_bytes())
        if found is not None:
            seen += 1
            assert found == of(pydicom.dcmread(path, force=True, stop_before_pixels=True)), path.name
    assert seen > 30


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (b"\0\0" + struct.pack("<I", size) if vr in (b"SQ", b"UN") else struct.pack("<H", size)) + value


GOOD = element(0x00080016, b"UI", b"1.2") + element(0x00080018, b"UI", b"1.2.3\0") + element(0x0020000D, b"UI", b"1.1")
LAST = element(0x0020000E, b"UI", b"1.4")
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
DEEP = element(0x00081140, b"SQ", b"", 0xFFFFFFFF)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD,
        GOOD.replace(b"1.2.3\0", b"../etc") + LAST,
        GOOD + element(0x0020000E, b"UI", b"", 0xFFF0),
        GOOD + element(0x0020000E, b"ZZ", b"1.4"),
        GOOD + element(0x0020000E, b"UI", b"1" * 66),
        GOOD + element(0x0020000E, b"UI", b"\xff\xfe"),
        (DEEP + ITEM) * 30_000,
        struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) * 10,
        element(0x00080005, b"CS", b"") * 100_000 + GOOD + LAST,
    ],
    ids=["empty", "no_series", "path", "lying_length", "bad_vr", "too_long", "no_ascii", "nested", "ends", "endless"],
)
def test_hostile_bytes(data: bytes) -> None:
    assert identify(data, SYNTAXES[1]) is None


def test_nested_three_thousand_deep() -> None:
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    head = element(0x00080016, b"UI", b"1.2") + element(0x00080018, b"UI", b"1.2.3\0")
    data = head + (DEEP + ITEM) * 3000 + end * 3000 + element(0x0020000D, b"UI", b"1.1") + LAST
    assert identify(data, SYNTAXES[1]) == Identity("1.2", "1.2.3", "1.1", "1.4")


def test_deflated_is_refused() -> None:
    assert identify(GOOD + LAST, "1.2.840.10008.1.2.1.99") is None
    assert identify(GOOD + LAST, SYNTAXES[1]) is not None


def test_multipart_however_it_is_cut() -> None:
    """Whatever the chunks, the parts come out as they went in, also with pieces of boundaries inside."""
    rng = np.random.default_rng(0)
    wanted = [rng.bytes(500), b"", b"\r\n--boundar", b"\r\n--", b"\r", rng.bytes(70), b"\r\n\r\n--boundary"[:-1]]
    whole = b"preamble\r\n" + b"".join(
        b"--boundary\r\nContent-Type: application/dicom\r\nX: y\r\n\r\n" + one + b"\r\n" for one in wanted
    )
    whole += b"--boundary--\r\ntail"
    for size in (1, 2, 3, 7, 64, 10_000):
        assert _bodies(whole, size) == wanted


def _bodies(whole: bytes, size: int) -> list[bytes]:
    got, now = [], b""
    for piece in parts((whole[i : i + size] for i in range(0, len(whole), size)), b"boundary"):
        if piece is None:
            got.append(now)
            now = b""
        else:
            now += piece
    return got


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("name", [b"Content-Length: ", b"content-length:"])
def test_multipart_whose_parts_tell_their_length(name: bytes, size: int) -> None:
    """The length counts, even where the bytes look like a boundary; one told too short is corrected by the boundary."""
    wanted = [b"a" * 300, b"", b"\r\n--boundary\r\n\r\n", b"\r\n--boundary--", b"short of what it is", b"b" * 70]
    told = [len(one) for one in wanted]
    told[4] = 5
    whole = b"".join(
        b"--boundary\r\nX: 1\r\n" + name + str(length).encode() + b"\r\nY: 2\r\n\r\n" + one + b"\r\n"
        for one, length in zip(wanted, told, strict=True)
    )
    assert _bodies(whole + b"--boundary--\r\n", size) == wanted


def test_multipart_that_tells_more_than_it_sends() -> None:
    whole = b"--boundary\r\nContent-Length: 999999999999\r\n\r\nabc\r\n--boundary--\r\n"
    with pytest.raises(ArchiveError) as caught:
        _bodies(whole, 8)
    assert caught.value.reason is NetFault.BROKEN
