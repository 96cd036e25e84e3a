"""Sending objects to a real archive."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import httpx
import pydicom
import pytest

from genseg_monai.errors import UserError
from genseg_monai.pacs.dicomweb import WebArchive
from genseg_monai.pacs.faults import ArchiveError
from genseg_monai.pacs.push import find_parcels, push
from genseg_monai.pacs.settings import PacsSettings
from tests.dicom.study import Study
from tests.pacs.orthanc import Orthanc


@pytest.mark.parametrize("route", ["c-store", "stow-rs"])
def test_everything_arrives(archive: Orthanc, study: Study, route: str) -> None:
    told = []
    done = push(study.folder, archive.settings(), route, progress=lambda n, of: told.append((n, of)))
    total = len(study.images) + 2
    assert (done.sent, done.failed) == (total, {})
    assert told[-1] == (total, total)
    assert archive.rest("/statistics")["CountInstances"] == total
    for path in (study.images[0], study.seg, study.rtstruct):
        uid = str(pydicom.dcmread(path).SOPInstanceUID)
        found = archive.rest("/tools/lookup", "POST", uid.encode())
        assert [one["Type"] for one in found] == ["Instance"]


@pytest.mark.parametrize("route", ["c-store", "stow-rs"])
def test_what_the_archive_refuses_is_counted(archive: Orthanc, study: Study, route: str, tmp_path: Path) -> None:
    shutil.copy(study.images[0], tmp_path / "good.dcm")
    broken = study.images[1].read_bytes()
    (tmp_path / "broken.dcm").write_bytes(
        broken.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.826.0.1.3680043.9.99\0\0")
    )
    done = push(tmp_path, archive.settings(), route)
    # Orthanc takes a class it does not know over HTTP, and does not negotiate it over DIMSE
    assert done.sent == (1 if route == "c-store" else 2)
    assert done.refused == (((tmp_path / "broken.dcm", "not_negotiated"),) if route == "c-store" else ())


@pytest.mark.parametrize(("code", "taken"), [(409, 3), (413, 3), (404, None), (302, None)])
def test_an_archive_that_declines_one_object_over_http(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, taken: int | None
) -> None:
    """It is counted and the others are sent, unless the answer says that there is no such service at all."""
    for path in study.images[:4]:
        shutil.copy(path, tmp_path)
    bad = str(pydicom.dcmread(study.images[1]).SOPInstanceUID).encode()

    def answer(request: httpx.Request) -> httpx.Response:
        sent = request.read()
        stored = {"00081199": {"Value": [{}] * sent.count(b"Content-Type: application/dicom")}}
        return httpx.Response(code if bad in sent else 200, stream=httpx.ByteStream(json.dumps(stored).encode()))

    monkeypatch.setattr("genseg_monai.pacs.push.WebArchive", partial(WebArchive, transport=httpx.MockTransport(answer)))
    settings = PacsSettings(dicomweb="http://127.0.0.1/dw")
    if taken is None:
        with pytest.raises(ArchiveError, match=f"HTTP {code}"):
            push(tmp_path, settings, "stow-rs")
    else:
        done = push(tmp_path, settings, "stow-rs")
        assert (done.sent, done.failed) == (taken, {"declined": 1})


def test_one_file(archive: Orthanc, study: Study) -> None:
    assert study.seg is not None
    assert push(study.seg, archive.settings()).sent == 1


def test_nothing_to_send(study: Study, archive: Orthanc, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="found none"):
        push(tmp_path, archive.settings())
    (tmp_path / "wrong.dcm").write_text("no image")
    with pytest.raises(UserError, match="true UIDs") as caught:
        find_parcels(tmp_path)
    assert "wrong" not in str(caught.value)
    with pytest.raises(UserError, match="c-store or stow-rs"):
        push(study.folder, archive.settings(), "ftp")


def test_wrong_titles(archive: Orthanc, study: Study) -> None:
    with pytest.raises(ArchiveError, match="refused"):
        push(study.folder, archive.settings(aet="STRANGER"))


def test_a_kind_the_archive_does_not_know(archive: Orthanc, study: Study, tmp_path: Path) -> None:
    broken = study.images[1].read_bytes()
    (tmp_path / "broken.dcm").write_bytes(
        broken.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.826.0.1.3680043.9.99\0\0")
    )
    with pytest.raises(ArchiveError, match="none of these kinds"):
        push(tmp_path, archive.settings())
