"""Hostile and broken files: each is refused with its reason, in silence, and nothing crashes."""

from __future__ import annotations

import zlib

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from genseg_monai.dicom.deidentify import Deidentifier, encode
from genseg_monai.dicom.instance import read_instance
from genseg_monai.dicom.profile import Profile
from genseg_monai.dicom.quarantine import Quarantined, Reason
from genseg_monai.dicom.uids import Key
from tests.dicom.phi import MARK
from tests.dicom.study import write_study

KEY = Key(bytes(32))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("in"), slices=3, seg=False, rtstruct=False).images[0]


def _refused(path):
    with pytest.raises(Quarantined) as caught:
        Deidentifier(Profile(), KEY).apply(read_instance(path))
    assert MARK not in repr(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.reason


def test_every_truncation_is_refused_or_read_without_a_leak(image, tmp_path, capfd):
    whole, path = image.read_bytes(), tmp_path / "cut.dcm"
    for size in range(0, len(whole), 61):
        path.write_bytes(whole[:size])
        try:
            made = encode(Deidentifier(Profile(), KEY).apply(read_instance(path)))
        except Quarantined:
            continue
        assert MARK.encode() not in made
    assert MARK not in "".join(capfd.readouterr())


def test_every_flipped_byte_of_the_header_is_refused_or_read_without_a_leak(image, tmp_path):
    whole, path = image.read_bytes(), tmp_path / "flipped.dcm"
    for place in range(128, 2600, 17):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xA5]) + whole[place + 1 :])
        try:
            made = encode(Deidentifier(Profile(), KEY).apply(read_instance(path)))
        except Quarantined:
            continue
        assert MARK.encode() not in made, place


def test_a_lying_length_is_refused(image, tmp_path):
    whole, path = image.read_bytes(), tmp_path / "long.dcm"
    at = whole.index(bytes.fromhex("e07f1000") + b"OW") + 8
    path.write_bytes(whole[:at] + (2**31).to_bytes(4, "little") + whole[at + 4 :])
    assert _refused(path) is Reason.UNREADABLE


def test_huge_rows_are_refused(image, tmp_path):
    huge = dcmread(image)
    huge.Rows = huge.Columns = 65535
    huge.save_as(tmp_path / "huge.dcm")
    assert _refused(tmp_path / "huge.dcm") is Reason.PIXELS


def test_a_deflated_file_is_read_and_written_inflated(image, tmp_path):
    packed = dcmread(image)
    packed.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    packed.save_as(tmp_path / "packed.dcm")
    made = Deidentifier(Profile(), KEY).apply(read_instance(tmp_path / "packed.dcm"))
    assert made.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert encode(made) == encode(Deidentifier(Profile(), KEY).apply(read_instance(image)))


def test_a_deflate_bomb_is_found_before_it_goes_off(image, tmp_path):
    packed = dcmread(image)
    packed.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    packed.save_as(tmp_path / "packed.dcm")
    whole = (tmp_path / "packed.dcm").read_bytes()
    start = 132 + 12 + int.from_bytes(whole[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    (tmp_path / "bomb.dcm").write_bytes(whole[:start] + bomb)
    assert _refused(tmp_path / "bomb.dcm") is Reason.TOO_LARGE


def test_a_file_without_meta_information_is_read(image, tmp_path):
    whole = image.read_bytes()
    (tmp_path / "bare").write_bytes(whole[132 + 12 + int.from_bytes(whole[140:144], "little") :])
    made = Deidentifier(Profile(), KEY).apply(read_instance(tmp_path / "bare"))
    assert made.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert MARK.encode() not in encode(made)


@pytest.mark.parametrize(
    "content", [b"", b"hello", bytes(200), b"\x08\x00" * 500, bytes(128) + b"DICM", bytes(range(256)) * 40]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert _refused(tmp_path / "file") in (Reason.NOT_DICOM, Reason.UNREADABLE, Reason.BAD_UID)


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    assert _refused(tmp_path) is Reason.NOT_DICOM
    assert _refused(tmp_path / "none") is Reason.UNREADABLE
