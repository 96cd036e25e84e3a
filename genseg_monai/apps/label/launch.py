"""Start MONAI Label's server on an app folder of our own."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from genseg_monai._atomic import whole_file
from genseg_monai.apps.workflow import check_weights, shipped_bundle
from genseg_monai.errors import UserError

__all__ = ["Server", "prepare", "serve"]

logger = logging.getLogger(__name__)

_MAIN = '''"""Written by `genseg label`: what MONAI Label's server loads."""

from genseg_monai.apps.label.app import GenSegApp

__all__ = ["GenSegApp"]
'''


@dataclass(frozen=True)
class Server:
    """What to serve and where.

    Args:
        studies: a folder, or the DICOMweb address of an archive.
        bundle: a trained bundle, or None for a copy of the untrained one.
        home: folder for the app, its logs and the bundle.
        weights: of UniverSeg, or None for those of this package.
        modalities: of the series to offer.
        host: address to listen on.
        port: port to listen on.
    """

    studies: str
    bundle: str | None = None
    home: str | None = None
    weights: str | None = None
    modalities: tuple[str, ...] = ("CT", "MR")
    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def remote(self) -> bool:
        """Whether the images are in an archive."""
        return self.studies.startswith(("http://", "https://"))


def prepare(server: Server) -> tuple[Path, Path]:
    """Lay out the folder of the app.

    Returns:
        The folder of the app, which has a ``main.py``, and that of the bundle.

    Raises:
        UserError: the images or the bundle are not there, or another program is at the place of the app.
    """
    if not server.remote and not Path(server.studies).is_dir():
        raise UserError(server.studies, "wanted a folder of images or a DICOMweb address, there is no such folder")
    standard = Path("genseg-label") if server.remote else Path(server.studies) / "genseg"
    home = (Path(server.home) if server.home else standard).resolve()
    app, bundle = home / "app", Path(server.bundle).resolve() if server.bundle else home / "bundle"
    if server.bundle is None and not bundle.exists():
        _copy_whole(shipped_bundle(), bundle)
    check_weights(bundle)
    for name in ("train", "inference"):
        if not (bundle / "configs" / f"{name}.yaml").is_file():
            raise UserError(bundle, f"wanted a bundle that trains and infers, it has no configs/{name}.yaml")
    program = app / "main.py"
    if program.exists() and program.read_text(encoding="utf-8", errors="replace") != _MAIN:
        raise UserError(program, "wanted a place for the app, another program is there; give another --home")
    with whole_file(program) as temporary:
        temporary.write_text(_MAIN, encoding="utf-8")
    return app, bundle


def _copy_whole(source: Path, folder: Path) -> None:
    """Copy a folder so that it is whole or not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft_", dir=folder.parent))
    try:
        shutil.copytree(source, draft, dirs_exist_ok=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _environment(server: Server, app: Path) -> dict[str, str]:
    """Return what MONAI Label reads from the environment; what the user has set stays."""
    python = [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")]
    wanted = {
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",  # it would run over all cases after each training
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "true",
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(app.parent / "dicom"),
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": json.dumps({"Modality": server.modalities[0]}),
        "MONAI_LABEL_DICOMWEB_USERNAME": os.environ.get("GENSEG_PACS_USER", ""),
        "MONAI_LABEL_DICOMWEB_PASSWORD": os.environ.get("GENSEG_PACS_PASSWORD", ""),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    kept = {name: os.environ.get(name, value) for name, value in wanted.items()}
    # programs beside this Python, such as dcmqi's, also where the environment is not activated
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, python)), "PATH": programs}


def serve(server: Server) -> int:
    """Run the server until it is stopped.

    Returns:
        The exit code.

    Raises:
        UserError: the images or the bundle are not there.
    """
    app, bundle = prepare(server)
    os.environ.update(_environment(server, app))
    # imported late: MONAI Label reads its settings from the environment when it is imported
    from monailabel.main import Main

    studies = server.studies if server.remote else str(Path(server.studies).resolve())
    words = ["start_server", "--app", str(app), "--studies", studies, "--host", server.host, "--port", str(server.port)]
    words += ["--conf", "bundle", str(bundle), "--conf", "modalities", ",".join(server.modalities)]
    if server.weights:
        words += ["--conf", "universeg", str(Path(server.weights).resolve())]
    main = Main(loglevel=logging.INFO)
    main.action_start_server(main.args_parser().parse_args(words))
    return 0
