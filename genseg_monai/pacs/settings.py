"""How an archive is reached: `pacs.yaml`, and secrets from the environment alone.

`pacs.yaml` holds `host`, `port`, `called_aet`, `aet`, `move_port`, `dicomweb` (URL) and `tls` (`cert`, `key`, `ca`);
`GENSEG_PACS_USER`, `GENSEG_PACS_PASSWORD` and `GENSEG_PACS_TOKEN` hold what may not be written there.
"""

from __future__ import annotations

import ipaddress
import math
import os
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from genseg_monai.errors import UserError

__all__ = ["Credentials", "Limits", "PacsSettings", "TlsFiles", "is_loopback", "load_settings", "private_file"]

_SECRET_WORDS = ("password", "passwd", "secret", "token", "user", "username")


@dataclass(frozen=True)
class Credentials:
    """User and password, or a token; never shown."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Credentials:
        """Read GENSEG_PACS_USER, GENSEG_PACS_PASSWORD and GENSEG_PACS_TOKEN."""
        held = os.environ if environment is None else environment
        return cls(*(held.get(f"GENSEG_PACS_{name}", "") for name in ("USER", "PASSWORD", "TOKEN")))

    def __bool__(self) -> bool:
        return bool(self.user or self.token)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: own certificate and key, and the authority the archive's certificate is checked against."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self, server: bool = False) -> ssl.SSLContext:
        """Return a context that checks the other side; with an authority given, a server wants a certificate too."""
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        try:
            made = ssl.create_default_context(purpose, cafile=str(self.ca) if self.ca else None)
            made.minimum_version = ssl.TLSVersion.TLSv1_2
            if server and self.ca:
                made.verify_mode = ssl.CERT_REQUIRED
            if self.cert:
                if self.key:
                    private_file(self.key, "tls key")
                made.load_cert_chain(str(self.cert), str(self.key) if self.key else None)
        except (OSError, ssl.SSLError):
            raise UserError("pacs.yaml: tls", "wanted readable PEM files, one is missing or is not PEM") from None
        return made


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Limits:
    """What an archive may send at most.

    Attributes:
        answers: to one query.
        answer_bytes: of all of them.
        object_bytes: of one instance.
        series_bytes: of one series.
        series_seconds: for one series, or one query.
        idle_seconds: without a byte.
        reserve_bytes: to leave free on the disk.
        associations: at the receiver of C-MOVE at the same time.
        pdu_bytes: of one message on the wire.
    """

    answers: int = 20_000
    answer_bytes: int = 256 * 2**20
    object_bytes: int = 2 * 2**30
    series_bytes: int = 32 * 2**30
    series_seconds: float = 3600.0
    idle_seconds: float = 60.0
    reserve_bytes: int = 2**30
    associations: int = 2
    pdu_bytes: int = 2**18

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            least = 0 if one.name == "reserve_bytes" else 1e-9
            whole = isinstance(one.default, int)
            if not _is_number(value) or value < least or (whole and value != int(value)):
                kind = "whole number" if whole else "number"
                raise UserError(f"pacs.yaml: limits.{one.name}", f"wanted a positive {kind}, got {value!r}")


@dataclass(frozen=True)
class PacsSettings:
    """One archive.

    Attributes:
        host: name or address.
        port: of DIMSE.
        called_aet: the archive's AE title.
        aet: our own.
        move_port: where the archive reaches our receiver, for C-MOVE; 0: no C-MOVE.
        move_host: the address the receiver listens at; empty: 127.0.0.1 for an archive on this machine, else all.
        dicomweb: base URL, for QIDO-RS, WADO-RS and STOW-RS.
        tls: PEM files, for DIMSE and DICOMweb; None: no TLS for DIMSE.
        attempts: tries of a transfer before giving up.
        retry_seconds: before the second try; doubles each time.
        limits: what the archive may send at most.
        credentials: for DICOMweb.

    Example:
        >>> PacsSettings(host="localhost", port=4242, called_aet="PACS").aet
        'GENSEG'
    """

    host: str = ""
    port: int = 0
    called_aet: str = ""
    aet: str = "GENSEG"
    move_port: int = 0
    move_host: str = ""
    dicomweb: str = ""
    tls: TlsFiles | None = None
    attempts: int = 4
    retry_seconds: float = 1.0
    limits: Limits = Limits()
    credentials: Credentials = Credentials()

    def __post_init__(self) -> None:
        if not (self.host or self.dicomweb):
            raise UserError("pacs.yaml", "wanted host and port, or dicomweb, got neither")
        for name in ("port", "move_port"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 65536:
                raise UserError(f"pacs.yaml: {name}", f"wanted a port number from 1 to 65535, got {value!r}")
        if self.host and not (self.port and self.called_aet):
            raise UserError("pacs.yaml", "wanted port and called_aet beside host; add them")
        for name in ("called_aet", "aet"):
            _check_aet(name, getattr(self, name), empty=name == "called_aet" and not self.host)
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or not 1 <= self.attempts <= 20:
            raise UserError("pacs.yaml: attempts", f"wanted 1 to 20, got {self.attempts!r}")
        if not _is_number(self.retry_seconds) or self.retry_seconds < 0:
            raise UserError("pacs.yaml: retry_seconds", f"wanted 0 or a positive number, got {self.retry_seconds!r}")
        if self.dicomweb:
            _check_url(self.dicomweb, bool(self.credentials))
            object.__setattr__(self, "dicomweb", self.dicomweb.rstrip("/"))

    def need_dimse(self, route: str) -> None:
        """Refuse a route that the file says nothing about."""
        if not self.host:
            raise UserError(f"--route {route}", "wanted host, port and called_aet in pacs.yaml; add them")
        if route == "c-move" and not self.move_port:
            raise UserError("--route c-move", "wanted move_port in pacs.yaml, the port the archive sends to; add it")

    def need_web(self, route: str) -> None:
        """Refuse a route that the file says nothing about."""
        if not self.dicomweb:
            raise UserError(f"--route {route}", "wanted dicomweb, a URL, in pacs.yaml; add it")


def load_settings(path: str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> PacsSettings:
    """Read `pacs.yaml`; relative PEM files lie beside it.

    Raises:
        UserError: the file is missing, is not a mapping, has an unknown key, a wrong value, or a secret.
    """
    path = Path(path)
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise UserError(path, "wanted a readable YAML file with host, port, called_aet (see the README)") from None
    if not isinstance(held, dict):
        raise UserError(path, "wanted a mapping with host, port, called_aet, got something else")
    for key in held:
        if any(word in str(key).lower() for word in _SECRET_WORDS):
            problem = "wanted no secret in this file; take it out and set GENSEG_PACS_USER, _PASSWORD or _TOKEN"
            raise UserError(f"{path}: {key}", problem)
    held["limits"] = _nested(path, "limits", held.get("limits"), Limits)
    tls = held.get("tls")
    if tls is not None:
        files = {k: path.parent / str(v) for k, v in tls.items()} if isinstance(tls, dict) else tls
        held["tls"] = _nested(path, "tls", files, TlsFiles)
    for key in ("host", "called_aet", "aet", "move_host", "dicomweb"):
        if key in held:
            held[key] = str(held[key] if held[key] is not None else "")
    held["credentials"] = Credentials.from_environment(environment)
    return _nested(path, "", held, PacsSettings)


def private_file(path: Path, what: str) -> None:
    """Refuse a secret that others on this machine can read.

    Raises:
        UserError: the file is missing, or its mode allows group or others anything.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        raise UserError(path, f"wanted the {what}, there is no such file") from None
    if mode & 0o077:
        raise UserError(path, f"wanted the {what} with mode 0600, got {mode:04o}; type: chmod 600 {path.name}")


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("pacs.example.org")
        (True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _nested(path: Path, key: str, held: object, kind: type):
    where = f"{path}: {key}" if key else str(path)
    if held is None:
        return kind()
    if not isinstance(held, dict):
        raise UserError(where, "wanted a mapping, got something else")
    known = [one.name for one in fields(kind)]
    if unknown := sorted(str(k) for k in held if k not in known):
        raise UserError(where, f"wanted only {', '.join(known)}, got also {', '.join(unknown)}")
    return kind(**held)


def _check_aet(name: str, value: str, empty: bool) -> None:
    good = value == value.strip() and 1 <= len(value) <= 16 and value.isascii() and value.isprintable()
    if not (good and "\\" not in value) and not (empty and not value):
        raise UserError(
            f"pacs.yaml: {name}", f"wanted an AE title of 1 to 16 plain characters without a backslash, got {value!r}"
        )


def _check_url(url: str, secret: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise UserError("pacs.yaml: dicomweb", "wanted a URL like https://host/dicom-web without a query")
    if parts.username or parts.password:
        raise UserError("pacs.yaml: dicomweb", "wanted no user in the URL; set GENSEG_PACS_USER and _PASSWORD")
    if secret and parts.scheme == "http" and not is_loopback(parts.hostname):
        raise UserError("pacs.yaml: dicomweb", "wanted https, since a password would cross the network in the clear")
