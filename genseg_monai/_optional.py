"""The one door to packages that only some commands need."""

from __future__ import annotations

import importlib
from types import ModuleType

from genseg_monai.errors import UserError

__all__ = ["require"]

# module -> what to type after `pip install`, with the bounds of requirements.txt (a test compares them)
_REQUIREMENTS = {
    "gdcm": "python-gdcm>=3.0.24,<4",
    "highdicom": "highdicom>=0.27,<0.29",
    "httpx": "httpx>=0.27,<1",
    "itk": "itk>=5.4,<6",
    "jinja2": "jinja2>=3.1.5,<4",
    "jpeg_ls": "pyjpegls>=1.5,<2",
    "mlflow": "mlflow>=3.1,<4",
    "matplotlib": "matplotlib>=3.8,<4",
    "pylibjpeg": "pylibjpeg>=2.0,<3",
    "pynetdicom": "pynetdicom>=3.0,<4",
    "submitit": "submitit>=1.5,<2",
}


def require(module: str, purpose: str) -> ModuleType:
    """Import a package where it is used, or tell how to install it.

    Args:
        module: the name to import, dots allowed; the install line is that of the part before the first dot.
        purpose: what needs it, for the message: "writing a DICOM segmentation".

    Returns:
        The imported module.

    Raises:
        UserError: the package is not installed; the message has the exact install line.

    Example:
        >>> require("math", "adding up").fsum([0.5, 0.5])
        1.0
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # a module missing *inside* an installed package is that package's fault: do not hide it
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        top = module.partition(".")[0]
        wanted = _REQUIREMENTS.get(top, top)
        raise UserError(module, f'{purpose} needs this package, it is not installed: pip install "{wanted}"') from error
