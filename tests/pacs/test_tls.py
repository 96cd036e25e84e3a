"""TLS against a real archive: DIMSE by its own, DICOMweb by a proxy before it (Debian's Orthanc fails on https)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from genseg_monai.__main__ import main
from genseg_monai.pacs.dicomweb import WebArchive
from genseg_monai.pacs.dimse import DimseArchive
from genseg_monai.pacs.faults import ArchiveError, NetFault
from genseg_monai.pacs.push import push
from genseg_monai.pacs.records import Query, SeriesRecord
from genseg_monai.pacs.retrieve import fetch
from genseg_monai.pacs.settings import PacsSettings, TlsFiles
from genseg_monai.pacs.spool import Spool
from genseg_monai.pacs.tls import tls_fault
from tests.dicom.study import Study
from tests.pacs.certificates import make_certificates, server_context, tls_files, tls_proxy
from tests.pacs.orthanc import USER, WORD, Orthanc, free_port, start_orthanc

# pynetdicom leaves the socket of a refused connection open
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("pems"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, pems: Path) -> Iterator[Orthanc]:
    """Return an archive that speaks TLS over DIMSE, shows a certificate and wants one."""
    move = free_port()
    allowed = {f"Allow{name}": True for name in ("Echo", "Store", "Find", "Get", "Move")}
    made = start_orthanc(
        tmp_path_factory.mktemp("secure"),
        move,
        DicomTlsEnabled=True,
        DicomTlsCertificate=str(pems / "server.pem"),
        DicomTlsPrivateKey=str(pems / "server.key"),
        DicomTlsTrustedCertificates=str(pems / "ca.pem"),
        DicomModalities={
            "importer": {"AET": "GENSEG", "Host": "127.0.0.1", "Port": move, "UseDicomTls": True, **allowed}
        },
    )
    yield made
    made.stop()


def _first(archive: DimseArchive | WebArchive, study: Study) -> SeriesRecord:
    found = archive.studies(Query(patient_id=(study.patient_id,)))
    series = next(one for one in archive.series(found[0]) if one.modality == "CT")
    return replace(series, instances=archive.instances(series))


@pytest.mark.parametrize("route", ["c-get", "c-move"])
def test_dimse(secure: Orthanc, study: Study, pems: Path, tmp_path: Path, route: str) -> None:
    """C-ECHO, C-STORE, C-FIND, and the way back by C-GET and into our own receiver, which wants a certificate too."""
    secure.empty()
    settings = secure.settings(tls=tls_files(pems, own="client"))
    archive = DimseArchive(settings, route)
    assert archive.echo() > 0
    assert push(study.folder, settings).sent == len(study.images) + 2
    with Spool(tmp_path / "spool") as spool:
        done = fetch(archive, _first(archive, study), spool)
    assert done.complete
    assert done.received == len(study.images)


@pytest.mark.parametrize(
    ("tls", "told"),
    [
        (("stranger", "client"), "authority is not trusted; set ca under tls"),
        (("ca", ""), "refused our certificate; set cert and key under tls"),
        (("ca", "stranger"), "refused our certificate; set cert and key under tls"),
    ],
)
def test_dimse_certificates_are_refused(secure: Orthanc, pems: Path, tls: tuple[str, str], told: str) -> None:
    settings = secure.settings(tls=tls_files(pems, *tls))
    with pytest.raises(ArchiveError, match=told) as caught:
        DimseArchive(settings).echo()
    assert caught.value.reason is NetFault.CERTIFICATE
    assert not caught.value.passing  # no back-off


def test_dimse_host_name(secure: Orthanc, pems: Path) -> None:
    with pytest.raises(ArchiveError, match="another host name; write the name") as caught:
        DimseArchive(secure.settings(host="localhost", tls=tls_files(pems, own="client"))).echo()
    assert caught.value.reason is NetFault.CERTIFICATE


def test_dimse_without_tls_on_one_side(secure: Orthanc, archive: Orthanc, pems: Path) -> None:
    for settings in (secure.settings(), archive.settings(tls=tls_files(pems, own="client"))):
        with pytest.raises(ArchiveError, match="TLS|tls"):
            DimseArchive(replace(settings, attempts=1)).echo()


def test_a_receiver_the_archive_does_not_trust(secure: Orthanc, study: Study, pems: Path, tmp_path: Path) -> None:
    """The archive is trusted and we are, but the receiver asks for another authority than the archive has."""
    secure.empty()
    good = secure.settings(tls=tls_files(pems, own="client"))
    push(study.folder, good)
    series = _first(DimseArchive(good), study)

    class Strict(TlsFiles):
        def context(self, server: bool = False) -> ssl.SSLContext:
            return (tls_files(pems, "stranger", "client") if server else good.tls).context(server)

    archive = DimseArchive(replace(good, tls=Strict(pems / "ca.pem")), "c-move")
    with Spool(tmp_path / "spool") as spool, pytest.raises(ArchiveError, match="each other's authority") as caught:
        fetch(archive, series, spool)
    assert caught.value.reason is NetFault.CERTIFICATE


def _https(archive: Orthanc, port: int, tls: TlsFiles | None, **more: object) -> PacsSettings:
    return archive.settings(dicomweb=f"https://127.0.0.1:{port}/dicom-web", tls=tls, **more)


@pytest.mark.parametrize("wants_client", [False, True])
def test_https(archive: Orthanc, study: Study, pems: Path, tmp_path: Path, wants_client: bool) -> None:
    """STOW-RS, QIDO-RS and WADO-RS, with a certificate of ours asked for and given."""
    with tls_proxy(archive.http, server_context(pems, "server", wants_client)) as (port, _):
        settings = _https(archive, port, tls_files(pems, own="client" if wants_client else ""))
        assert push(study.folder, settings, "stow-rs").sent == len(study.images) + 2
        with WebArchive(settings) as web, Spool(tmp_path / "spool") as spool:
            series = _first(web, study)
            assert series.count == len(study.images)
            assert fetch(web, series, spool).received == len(study.images)


@pytest.mark.parametrize(
    ("shown", "wants_client", "tls", "told"),
    [
        ("server", False, ("stranger",), "authority is not trusted; set ca under tls"),
        ("server", False, None, "authority is not trusted; set ca under tls"),
        ("stranger", False, ("ca",), "signed by itself; set ca under tls"),
        ("elsewhere", False, ("ca",), "for another address; write the name"),
        ("server", True, ("ca",), "refused our certificate; set cert and key under tls"),
        ("server", True, ("ca", "stranger"), "refused our certificate; set cert and key under tls"),
    ],
)
def test_https_certificates_are_refused(
    archive: Orthanc, pems: Path, shown: str, wants_client: bool, tls: tuple[str, ...] | None, told: str
) -> None:
    with tls_proxy(archive.http, server_context(pems, shown, wants_client)) as (port, begun):
        settings = _https(archive, port, tls and tls_files(pems, *tls))
        with WebArchive(settings) as web, pytest.raises(ArchiveError, match=told) as caught:
            web.echo()
        assert caught.value.reason is NetFault.CERTIFICATE
        assert not caught.value.passing
        assert len(begun) == 1


def test_https_at_a_port_without_tls(archive: Orthanc, pems: Path) -> None:
    with (
        WebArchive(_https(archive, archive.http, tls_files(pems))) as web,
        pytest.raises(ArchiveError, match="speaks none at this port"),
    ):
        web.echo()


@pytest.mark.parametrize("route", ["dicomweb", "c-get"])
def test_commands_say_so_once(
    secure: Orthanc,
    pems: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    route: str,
) -> None:
    """One line, exit code 1, no second attempt."""
    monkeypatch.setenv("GENSEG_PACS_USER", USER)
    monkeypatch.setenv("GENSEG_PACS_PASSWORD", WORD)
    with tls_proxy(secure.http, server_context(pems, "server", False)) as (port, begun):
        settings = _https(secure, port, None)
        names = ("host", "port", "called_aet", "aet", "dicomweb")
        held = {name: getattr(settings, name) for name in names} | {"attempts": 4, "retry_seconds": 30.0}
        held["tls"] = {"ca": str(pems / "stranger.pem")}
        (tmp_path / "pacs.yaml").write_text(yaml.safe_dump(held))
        line = ["--pacs", str(tmp_path / "pacs.yaml"), "--route", route]
        assert main(["pull", *line, "--date", "20240101", "--out", str(tmp_path / "out"), "--dry-run"]) == 1
        told = capsys.readouterr().err.strip()
        assert told.startswith("genseg: ")
        assert len(told.splitlines()) == 1
        assert "refused that of the archive: its authority is not trusted; set ca under tls" in told
        assert "answered" not in told
        assert len(begun) == (route == "dicomweb")
        if route == "c-get":
            assert main(["pacs-check", "--pacs", str(tmp_path / "pacs.yaml")]) == 1
            assert capsys.readouterr().err.count("set ca under tls") == 2


@pytest.mark.parametrize(
    ("code", "told"), [(9, "not valid yet"), (10, "has expired"), (18, "by itself"), (99, "it is not trusted")]
)
def test_what_openssl_found(code: int, told: str) -> None:
    error = ssl.SSLCertVerificationError("x")
    error.verify_code = code
    outer = OSError("outer")
    outer.__cause__ = error
    fault = tls_fault("c-echo", outer)
    assert fault is not None
    assert told in str(fault)


def test_a_line_that_breaks_is_no_certificate() -> None:
    for error in (None, OSError("x"), ssl.SSLEOFError("EOF occurred in violation of protocol"), ssl.SSLError("x")):
        assert tls_fault("c-get", error) is None
