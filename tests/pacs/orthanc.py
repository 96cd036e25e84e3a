"""A real archive for the tests: Orthanc on free loopback ports, all its files in one temporary folder."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from genseg_monai.pacs.settings import Credentials, Limits, PacsSettings
from tests.tools import needed

__all__ = ["Orthanc", "free_port", "needed", "start_orthanc"]

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, WORD = "genseg", "only-for-tests"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@dataclass
class Orthanc:
    """A running archive."""

    folder: Path
    port: int
    http: int
    move_port: int
    process: subprocess.Popen

    def settings(self, **changes: object) -> PacsSettings:
        held: dict = {
            "host": "127.0.0.1",
            "port": self.port,
            "called_aet": "TESTPACS",
            "aet": "GENSEG",
            "move_port": self.move_port,
            "dicomweb": f"http://127.0.0.1:{self.http}/dicom-web/",
            "credentials": Credentials(USER, WORD),
            "attempts": 2,
            "retry_seconds": 0.1,
            "limits": Limits(idle_seconds=20, reserve_bytes=2**20),
        }
        return PacsSettings(**{**held, **changes})

    def rest(self, path: str, method: str = "GET", body: bytes | None = None) -> object:
        return json.loads(self.fetch(path, method, body) or b"null")

    def fetch(self, path: str, method: str = "GET", body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=body, method=method)
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{USER}:{WORD}".encode()).decode())
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.read()

    def send(self, folder: Path) -> None:
        """Push a folder in with dcmtk."""
        needed("/usr/bin/storescu")
        line = ["/usr/bin/storescu", "-R", "-aet", "GENSEG", "-aec", "TESTPACS", "127.0.0.1", str(self.port)]
        done = subprocess.run(
            [*line, "+sd", "+r", str(folder)],
            env={**os.environ, "TCP_NODELAY": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def empty(self) -> None:
        for one in self.rest("/patients"):
            self.rest(f"/patients/{one}", "DELETE")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def start_orthanc(folder: Path, move_port: int | None = None, **more: object) -> Orthanc:
    needed("/usr/sbin/Orthanc", str(PLUGIN))
    port, http, move = free_port(), free_port(), move_port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    allowed = {f"Allow{name}": True for name in ("Echo", "Store", "Find", "Get", "Move")}
    config = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "TemporaryDirectory": str(folder),
        "Plugins": [str(PLUGIN)],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: WORD},
        "HttpPort": http,
        "DicomPort": port,
        "DicomAet": "TESTPACS",
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        **{f"DicomAlwaysAllow{name}": False for name in ("Echo", "Store", "Find", "Get", "Move")},
        "DicomModalities": {"importer": {"AET": "GENSEG", "Host": "127.0.0.1", "Port": move, **allowed}},
        "SyncStorageArea": False,
        "SaveJobs": False,
        "OverwriteInstances": False,
        "StableAge": 1,
        "OrthancExplorerEnabled": False,
        "WebDavEnabled": False,
        "HttpCompressionEnabled": True,  # as by default: our client must not fall for it
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True},
        **more,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        ["/usr/sbin/Orthanc", str(folder / "orthanc.json")],
        env={**os.environ, "TCP_NODELAY": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    log.close()
    made = Orthanc(folder, port, http, move, process)
    for _ in range(200):
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        try:
            made.rest("/system")
            return made
        except OSError:
            time.sleep(0.05)
    made.stop()
    raise AssertionError("Orthanc did not answer")
