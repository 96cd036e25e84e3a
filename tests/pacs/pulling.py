"""Pulls of the tests, and what they leave."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from genseg_monai.dicom.uids import Key
from genseg_monai.pacs.dicomweb import WebArchive
from genseg_monai.pacs.dimse import DimseArchive
from genseg_monai.pacs.pull import Pulled, pull
from genseg_monai.pacs.records import Query
from genseg_monai.pacs.rules import Rules
from tests.dicom.study import LABELS
from tests.pacs.orthanc import Orthanc

__all__ = ["KEY", "YEAR", "lines", "run", "tree"]

KEY = Key(bytes(range(32)))
YEAR = Query(date="20240101-20241231")


def run(archive: Orthanc, out: Path, route: str = "c-get", query: Query = YEAR, **kinds: object) -> Pulled:
    settings = archive.settings()
    kinds = {"labels": LABELS, "rules": Rules(keep="best"), "key": KEY, **kinds}
    with WebArchive(settings) if route == "dicomweb" else DimseArchive(settings, route) as peer:
        return pull(peer, query, out, **kinds)


def tree(out: Path) -> dict[str, str]:
    """Return a digest of every file but the audit log."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "audit.jsonl")
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lines(out: Path, event: str) -> list[dict]:
    records = [json.loads(line)["record"] for line in (out / "audit.jsonl").read_text().splitlines()]
    return [record for record in records if record["event"] == event]
