"""Files made to hurt: each is refused with a reason, quickly, and the next file is read."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, RLELossless
from pynetdicom.dsutils import encode

from genseg_monai.dicom import decode
from genseg_monai.dicom.annotation import label_map
from genseg_monai.dicom.header import Limits
from genseg_monai.dicom.instance import read_instance
from genseg_monai.dicom.quarantine import Quarantined, Reason
from genseg_monai.dicom.series import SeriesError, SeriesFault, read_series
from genseg_monai.dicom.weigh import weigh
from tests.dicom.slices import make_slices, stored, write_slices
from tests.dicom.study import LABELS, write_study

J2K = UID("1.2.840.10008.1.2.4.90")


def _changed(data: Dataset, **values: object) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom knows that these are wrong
        for name, value in values.items():
            setattr(data, name, value)
    return data


def _written(folder: Path, **values: object) -> Path:
    data = make_slices(1)[0]
    return write_slices(folder, [_changed(data, **values)]) / "000.dcm"


def _packed(folder: Path, pixels: bytes, syntax: UID, **values: object) -> Path:
    """Write one slice with compressed pixels."""
    data = make_slices(1)[0]
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([pixels])
    data["PixelData"].is_undefined_length = True
    return write_slices(folder, [_changed(data, **values)]) / "000.dcm"


def _element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    if vr in (b"SQ", b"OB", b"OW", b"UN"):
        return struct.pack("<HH2sHL", group, number, vr, 0, size) + value
    return struct.pack("<HH2sH", group, number, vr, size) + value


def _inserted(path: Path, extra: bytes) -> Path:
    """Put elements before the first of the data set."""
    data = path.read_bytes()
    start = data.index(b"\x08\x00\x08\x00CS")
    path.write_bytes(data[:start] + extra + data[start:])
    return path


def _nested(defined: bool) -> bytes:
    inside = b""
    for _ in range(3000):
        length = len(inside) + 8 if defined else 0xFFFFFFFF
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(inside) if defined else 0xFFFFFFFF) + inside
        end = b"" if defined else struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        inside = _element(0x0008, 0x0006, b"SQ", item + end, length)
    return inside


def _deflated(folder: Path, inflated: bytes, before: bytes = b"") -> Path:
    path = _written(folder)
    data = path.read_bytes()
    meta = data.index(b"\x08\x00\x08\x00CS")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = data[:meta].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    head = head.replace(b"\x02\x00\x10\x00UI\x14\x00", b"\x02\x00\x10\x00UI\x16\x00")
    path.write_bytes(head + packer.compress(before + data[meta:] + inflated) + packer.flush())
    return path


def _jpeg(size: tuple[int, int], claimed: tuple[int, int] | None = None, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros(size, np.uint8)).save(out, kind, **({"no_jp2": True} if kind == "JPEG2000" else {}))
    data = out.getvalue()
    if claimed and kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data = data[:at] + struct.pack(">HH", *claimed) + data[at + 4 :]
    elif claimed:
        at = data.index(b"\xff\x51") + 6
        data = data[:at] + struct.pack(">LL", *claimed) + data[at + 8 :]
    return data


EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}

FILES: dict[str, tuple[Callable[[Path], Path], SeriesFault]] = {
    "series UID with a path": (lambda f: _written(f, SeriesInstanceUID="../../../etc/passwd"), SeriesFault.BAD_UID),
    "instance UID with a path": (lambda f: _written(f, SOPInstanceUID="/tmp/x"), SeriesFault.BAD_UID),
    "UID too long": (lambda f: _written(f, SeriesInstanceUID="1." * 40 + "1"), SeriesFault.BAD_UID),
    "nested 3000 deep": (lambda f: _inserted(_written(f), _nested(False)), SeriesFault.UNREADABLE),
    "element longer than the file": (
        lambda f: _inserted(_written(f), _element(8, 6, b"OB", b"abcd", 0x7FFFFFF0)),
        SeriesFault.TRUNCATED,
    ),
    "a million rows": (lambda f: _written(f, Rows=65535, Columns=65535, NumberOfFrames=9999), SeriesFault.TOO_LARGE),
    "more frames than pixels": (lambda f: _written(f, NumberOfFrames=900), SeriesFault.TRUNCATED),
    "negative frames": (lambda f: _written(f, NumberOfFrames=-3), SeriesFault.UNREADABLE),
    "deflate bomb": (lambda f: _deflated(f, b"\0" * (96 << 20)), SeriesFault.TOO_LARGE),
    "JPEG of another size": (lambda f: _packed(f, _jpeg((8, 8)), JPEGBaseline8Bit, **EIGHT), SeriesFault.PIXELS),
    "JPEG bomb": (
        lambda f: _packed(f, _jpeg((12, 16), (65500, 65500)), JPEGBaseline8Bit, **EIGHT),
        SeriesFault.PIXELS,
    ),
    "JPEG 2000 bomb": (
        lambda f: _packed(f, _jpeg((12, 16), (60000, 60000), "JPEG2000"), J2K, **EIGHT),
        SeriesFault.PIXELS,
    ),
    "large header before a bomb": (
        lambda f: _packed(f, b"\xff", J2K, Rows=65535, Columns=65535, **EIGHT),
        SeriesFault.TOO_LARGE,
    ),
    "RLE with wild offsets": (
        lambda f: _packed(f, struct.pack("<16L", 2, 64, *[0xFFFFFFF0] * 14) + b"\x80\x7f" * 9, RLELossless),
        SeriesFault.PIXELS,
    ),
    "no pixels in the fragments": (lambda f: _packed(f, b"\0\0", RLELossless), SeriesFault.PIXELS),
    "video": (lambda f: _packed(f, b"x" * 8, UID("1.2.840.10008.1.2.4.102")), SeriesFault.TRANSFER_SYNTAX),
    "retired syntax": (lambda f: _packed(f, b"x" * 8, UID("1.2.840.10008.1.2.4.55")), SeriesFault.TRANSFER_SYNTAX),
}


@pytest.mark.parametrize("case", FILES)
def test_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    make, reason = FILES[case]
    path = make(tmp_path / "files")
    with pytest.raises(SeriesError) as caught:
        read_series(
            path, limits=Limits(inflated_bytes=64 << 20, series_pixels_bytes=1 << 30, file_pixels_bytes=1 << 30)
        )
    assert caught.value.reason is reason, caught.value
    assert list(tmp_path.rglob("*")) == [tmp_path / "files", path]  # nothing else written


def test_sequences_of_known_length_are_stepped_over(tmp_path: Path) -> None:
    assert read_series(_inserted(_written(tmp_path), _nested(True))).array.shape == (16, 12, 1)


@pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 128 + b"DICM", b"\x08\x00", b"garbage " * 100])
def test_what_is_no_dicom(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(SeriesError) as caught:
        read_series(tmp_path / "file")
    assert caught.value.reason is SeriesFault.NOT_DICOM


def test_a_header_without_end_is_bounded(tmp_path: Path) -> None:
    path = _inserted(_written(tmp_path), _element(8, 6, b"LO", b"ab") * 20_000)
    with pytest.raises(SeriesError) as caught:
        read_series(path, limits=Limits(steps=10_000))
    assert caught.value.reason is SeriesFault.TOO_LARGE


@pytest.mark.parametrize("limits", [Limits(worker_bytes=0), Limits(seconds=0.0)])
def test_a_decoder_without_memory_or_time_is_given_up(limits: Limits, tmp_path: Path) -> None:
    big = _packed(tmp_path / "a", _jpeg((3000, 3000)), JPEGBaseline8Bit, Rows=3000, Columns=3000, **EIGHT)
    good = _packed(tmp_path / "b", _jpeg((12, 16)), JPEGBaseline8Bit, RescaleIntercept=7, **EIGHT)
    with pytest.raises(SeriesError) as caught:
        read_series(big, limits=limits)
    assert caught.value.reason is SeriesFault.PIXELS
    assert (read_series(good).array == 7).all()  # the next file finds a fresh process


def test_a_decoder_is_not_told_the_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSEG_PACS_PASSWORD", "ZZSECRET")
    monkeypatch.setattr(decode, "_idle", [])  # those that run were started before
    read_series(_packed(tmp_path, _jpeg((12, 16)), JPEGBaseline8Bit, **EIGHT))
    workers = [Path(f"/proc/{worker._process.pid}/environ").read_bytes() for worker in decode._idle]
    decode._end()
    assert workers
    assert not [told for told in workers if b"ZZSECRET" in told or b"OMP_NUM_THREADS=1" not in told]


def test_messages_hold_nothing_of_the_file(tmp_path: Path) -> None:
    for make, _ in FILES.values():
        path = make(tmp_path / str(len(list(tmp_path.iterdir()))))
        data = path.read_bytes().replace(b"ORIGINAL", b"ZZPHIJAN")
        path.write_bytes(data)
        with pytest.raises(SeriesError) as caught:
            read_series(path, limits=Limits(inflated_bytes=64 << 20, series_pixels_bytes=1 << 30))
        assert "ZZPHI" not in str(caught.value)
        assert "passwd" not in str(caught.value)


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    """Any bytes: a volume, a label map or a `SeriesError`, nothing else."""
    study = write_study(tmp_path / "study", slices=4, phi=False)
    series = read_series(study.images)
    random = np.random.default_rng(0)
    assert study.seg is not None
    assert study.rtstruct is not None
    for path in (study.images[0], study.seg, study.rtstruct):
        good = path.read_bytes()
        for _ in range(150):
            data = bytearray(good)
            for position in random.integers(132, min(len(data), 4000), 4):
                data[position] = random.integers(256)
            path.write_bytes(data[: random.integers(200, len(data))] if random.random() < 0.2 else data)
            try:
                read_series(path)
            except SeriesError:
                label_map([path], series, LABELS)  # refusals are in the report
        path.write_bytes(good)


def test_stored_values_survive_the_worker(tmp_path: Path) -> None:
    """RLE, written by pydicom, comes back exact."""
    slices = make_slices(3)
    for data in slices:
        data.compress(RLELossless, generate_instance_uid=False)
    series = read_series(write_slices(tmp_path, slices))
    np.testing.assert_array_equal(series.array, np.stack([stored(k).T - 1024 for k in range(3)], axis=2))


def _crowded(folder: Path, inside: bytes, group: int = 0x5200, number: int = 0x9230) -> Path:
    """Write a file whose sequence of known length holds as many items as there is room for."""
    path = _written(folder)
    data = path.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00O")
    path.write_bytes(data[:at] + _element(group, number, b"SQ", inside) + data[at:])
    return path


def test_items_are_counted_before_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight bytes of an empty item become a kilobyte of memory."""
    path = _crowded(tmp_path, b"\xfe\xff\x00\xe0\0\0\0\0" * 20_000)
    monkeypatch.setattr("genseg_monai.dicom.fields._ELEMENTS", 10_000)
    monkeypatch.setattr("genseg_monai.dicom.instance._LIMITS", Limits(steps=10_000))
    monkeypatch.setattr("pydicom.filereader.read_sequence_item", lambda *_: pytest.fail("an item was made"))
    with pytest.raises(SeriesError) as caught:
        read_series(path)
    assert caught.value.reason is SeriesFault.TOO_LARGE
    with pytest.raises(Quarantined) as kept_back:
        read_instance(path)
    assert kept_back.value.reason is Reason.TOO_LARGE


def test_deflated_elements_without_end_are_bounded(tmp_path: Path) -> None:
    path = _deflated(tmp_path, b"", _element(0x0008, 6, b"LO", b"") * 60_000)
    data = path.read_bytes()
    assert len(data) < 20_000
    with pytest.raises(SeriesError) as caught:
        read_series(path, limits=Limits(steps=50_000))
    assert caught.value.reason is SeriesFault.TOO_LARGE


@pytest.mark.parametrize("implicit", [False, True])
def test_weighed_as_pydicom_parses(implicit: bool, tmp_path: Path) -> None:
    """Elements and items of a SEG and an RTSTRUCT, counted here and by going through what pydicom built."""
    study = write_study(tmp_path / "study", slices=3, phi=False)

    def parts(data: Dataset) -> int:
        inner = [item for element in data if element.VR == "SQ" for item in element.value]
        return len(data) + sum(1 + parts(item) for item in inner)

    for path in (study.images[0], study.seg, study.rtstruct):
        assert path is not None
        data = pydicom.dcmread(path)
        packed = encode(data, implicit, True)
        assert packed is not None
        budget = [10**6]
        weigh(packed, implicit, True, budget)
        assert 10**6 - budget[0] == parts(data)
