"""MONAI Label's server with GenSeg's models: 3D Slicer and OHIF as clients.

`label` runs in the main environment, everything else here in the one of ``requirements-label.txt`` (``make label``),
since MONAI Label 0.8.5 needs numpy < 2 and pydicom < 3:

- `launch`: start the server
- `app`: what it offers
- `segment`, `in_context`, `training`: its models
- `strategies`: which case is next
- `scoring`: how much the annotators change
- `archive`, `segments`, `patients`: images and labels in a DICOM archive
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from genseg_monai.errors import UserError

__all__ = ["label"]

_ENVIRONMENT = ".venv-label"


def label(
    *,
    studies: str,
    bundle: str | None = None,
    home: str | None = None,
    weights: str | None = None,
    modalities: str = "CT,MR",
    host: str = "127.0.0.1",
    port: int = 8000,
) -> int:
    """Serve images to 3D Slicer and OHIF: segment, take corrections, train again, say which case is next.

    The server is MONAI Label's, and runs in its own environment, which `make label` makes. It asks nobody for a
    password: leave it on this machine, or put it behind a proxy that does.

    Args:
        studies: a folder of NIfTI images (labels are kept in labels/final below it), or the DICOMweb address of an
            archive; the user and password of GENSEG_PACS_USER and GENSEG_PACS_PASSWORD are used for it
        bundle: a trained bundle, which is trained further in place; by default a copy of the untrained one in `home`
        home: folder for the app, its logs and the bundle; by default genseg below the images, else ./genseg-label
        weights: the weights of UniverSeg; those the package ships
        modalities: of the series to offer, for an archive
        host: address to listen on
        port: port to listen on

    Returns:
        The exit code of the server.

    Raises:
        UserError: MONAI Label is not installed, or there is nothing to serve.

    Example:
        genseg label --studies images
        genseg label --studies http://127.0.0.1:8042/dicom-web --bundle runs/liver --home label
    """
    if importlib.util.find_spec("monailabel") is None:
        return _in_its_environment()
    from genseg_monai.apps.label.launch import Server, serve

    return serve(Server(studies, bundle, home, weights, tuple(modalities.split(",")), host, port))


def _in_its_environment() -> int:
    """Run this very command with the Python of MONAI Label's environment, in place of this process."""
    package = Path(__file__).resolve().parents[2]
    python = Path(os.environ.get("GENSEG_LABEL_PYTHON") or package.parent / _ENVIRONMENT / "bin" / "python")
    if not python.is_file():
        raise UserError("label", f"wanted MONAI Label's environment, {python} is not there; run `make label` first")
    if Path(sys.executable).absolute() == python.absolute():
        raise UserError("label", f"wanted MONAI Label in {python}, it is not installed; run `make label` again")
    path = os.pathsep.join(filter(None, [str(package.parent), os.environ.get("PYTHONPATH")]))
    os.execve(python, [str(python), "-m", "genseg_monai", *sys.argv[1:]], {**os.environ, "PYTHONPATH": path})
