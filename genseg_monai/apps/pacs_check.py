"""`genseg pacs-check`: is the archive there, and does it know us?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from genseg_monai._outcome import RunFailed, report_only_kind
from genseg_monai.errors import UserError

if TYPE_CHECKING:
    from genseg_monai.pacs.dicomweb import WebArchive
    from genseg_monai.pacs.dimse import DimseArchive

__all__ = ["open_archive", "pacs_check"]


def pacs_check(*, pacs: str) -> str:
    """Try what the settings of an archive name: C-ECHO, and a QIDO-RS query that asks for one study.

    Args:
        pacs: the YAML file that says how the archive is reached

    Returns:
        A line for each.

    Raises:
        UserError: the file does not say what it should.
        RunFailed: one of them failed.

    Example:
        genseg pacs-check --pacs pacs.yaml
    """
    from genseg_monai.pacs.settings import load_settings

    settings = load_settings(pacs)
    routes = [("C-ECHO", "c-get")] * bool(settings.host) + [("QIDO-RS", "dicomweb")] * bool(settings.dicomweb)
    failed = 0
    lines = []
    for name, route in routes:
        try:
            with open_archive(pacs, route) as archive, report_only_kind("pacs-check"):
                lines.append(f"{name}: answered in {1000 * archive.echo():.0f} ms")
        except RunFailed as error:
            failed += 1
            lines.append(f"{name}: failed, {error.problem}")
    if failed:
        raise RunFailed("pacs-check", "; ".join(lines))
    return "\n".join(lines)


@contextmanager
def open_archive(pacs: str, route: str) -> Iterator[DimseArchive | WebArchive]:
    """Give the archive of a settings file by one route.

    Raises:
        UserError: no such route, or the file says nothing about it.
    """
    from genseg_monai.pacs.dicomweb import WebArchive
    from genseg_monai.pacs.dimse import DimseArchive
    from genseg_monai.pacs.settings import load_settings

    if route not in ("c-get", "c-move", "dicomweb"):
        raise UserError("--route", f"wanted c-get, c-move or dicomweb, got {route!r}")
    settings = load_settings(pacs)
    with WebArchive(settings) if route == "dicomweb" else DimseArchive(settings, route) as archive:
        yield archive
