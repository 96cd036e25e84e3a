"""Certificates made on the spot, right and wrong ones, and a proxy that speaks TLS before a server."""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from genseg_monai.pacs.settings import TlsFiles
from tests.tools import needed

__all__ = ["make_certificates", "server_context", "tls_files", "tls_proxy"]


def make_certificates(folder: Path) -> Path:
    """Write `ca`, signed by it `server`, `client` and `elsewhere` (another host); `stranger` signs itself."""
    (openssl,) = needed("openssl")
    folder.mkdir(exist_ok=True)

    def make(name: str, host: str, *signed: object) -> None:
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        files = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
        names = ("-addext", f"subjectAltName={host}", "-subj", f"/CN={name}")
        line = [openssl, "req", "-x509", *new, *files, *names, *signed]
        subprocess.run(list(map(str, line)), check=True, capture_output=True)
        (folder / f"{name}.key").chmod(0o600)

    by_ca = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
    make("ca", "DNS:test-authority")
    for name in ("server", "client"):
        make(name, "IP:127.0.0.1", *by_ca)
    make("elsewhere", "DNS:elsewhere.example.org", *by_ca)
    make("stranger", "IP:127.0.0.1")
    return folder


def tls_files(folder: Path, ca: str = "ca", own: str = "") -> TlsFiles:
    """Return the part `tls` of the settings."""
    mine = (folder / f"{own}.pem", folder / f"{own}.key") if own else (None, None)
    return TlsFiles(folder / f"{ca}.pem", *mine)


def server_context(folder: Path, name: str, wants_client: bool) -> ssl.SSLContext:
    """Return the context of a server that shows a certificate, and may want one."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    made.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    made.verify_mode = ssl.CERT_REQUIRED if wants_client else ssl.CERT_NONE
    return made


@contextmanager
def tls_proxy(port: int, context: ssl.SSLContext) -> Iterator[tuple[int, list[str]]]:
    """Speak TLS before the server at a port; give the proxy's own port, and a list that grows with each handshake."""
    begun: list[str] = []
    context.sni_callback = lambda _socket, name, _context: begun.append(str(name))
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(outer: ssl.SSLSocket) -> None:
        try:
            outer.do_handshake()
        except ssl.SSLError:
            while os.read(outer.fileno(), 2**16):  # so that the reason is not lost with what was not read
                pass
            return
        with socket.create_connection(("127.0.0.1", port)) as inner:
            while True:
                for one in [outer] if outer.pending() else select.select([outer, inner], [], [])[0]:
                    data = one.recv(2**16)
                    if not data:
                        return
                    (inner if one is outer else outer).sendall(data)

    def connection(one: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(one, server_side=True, do_handshake_on_connect=False) as outer:
            serve(outer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=connection, args=(listener.accept()[0],)))
                threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield listener.getsockname()[1], begun
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(10)
