"""Who may import whom: lower layers never know upper ones, and the core runs without the optional packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "genseg_monai"

# installed with the core, so allowed at the top of a module; everything else is imported where it is used
CORE = {"torch", "monai", "ignite", "numpy", "scipy", "einops", "nibabel", "pydicom", "PIL", "yaml", "fire", "tqdm"}

_MATHS = {"multilevel", "networks", "losses", "metrics", "transforms"}
_FILES = _MATHS | {"data", "dicom"}
_ENGINES = _FILES | {"engines", "inferers"}
# layer -> the layers below it or beside it
LAYERS = {
    "multilevel": {"multilevel"},
    "networks": _MATHS,
    "losses": _MATHS,
    "metrics": _MATHS,
    "transforms": _MATHS,
    "data": _FILES,
    "dicom": _FILES,
    "engines": _ENGINES,
    "inferers": _ENGINES,
    "handlers": _ENGINES | {"handlers"},
    "pacs": {"dicom", "pacs"},
}
_MATHS_PACKAGES = {"torch", "numpy", "scipy", "einops", "skimage", "monai", "PIL"}
_FILES_PACKAGES = _MATHS_PACKAGES | {"nibabel", "pydicom", "itk", "highdicom", "yaml", "jsonschema", "tqdm"}
_FILES_PACKAGES |= {"gdcm", "jpeg_ls", "openjpeg", "pylibjpeg"}  # decoders
_ENGINES_PACKAGES = _FILES_PACKAGES | {"ignite"}
PACKAGES = {
    "multilevel": {"torch"},
    "networks": _MATHS_PACKAGES,
    "losses": _MATHS_PACKAGES,
    "metrics": _MATHS_PACKAGES,
    "transforms": _MATHS_PACKAGES,
    "data": _FILES_PACKAGES,
    "dicom": _FILES_PACKAGES,
    "engines": _ENGINES_PACKAGES,
    "inferers": _ENGINES_PACKAGES,
    "handlers": _ENGINES_PACKAGES | {"matplotlib", "mlflow", "pynvml", "tensorboard"},
    "pacs": {"pydicom", "pynetdicom", "httpx", "numpy", "yaml", "tqdm"},
}
# parts of MONAI that stand above the layers which do not train
_UPPER_MONAI = ("monai.engines", "monai.handlers", "monai.inferers", "monai.apps", "monai.bundle")
# MONAI Label's environment has these; our app for it is made of its classes
SERVER = {"monailabel", "fastapi", "SimpleITK"}
# does not import beside the CPU build of torch
BANNED = {"torchvision"}


@dataclass(frozen=True)
class Import:
    """One imported module: `name` in full, `line`, and whether importing the file imports it at once."""

    name: str
    line: int
    at_top: bool


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _named_in_call(node: ast.Call) -> str | None:
    """Return the module of `require("name", ...)`, `import_module("name")` or `optional_import("name")`."""
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    if name in {"require", "import_module", "optional_import"} and node.args:
        argument = node.args[0]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            return argument.value
    return None


def imports(source: str) -> Iterator[Import]:
    """Yield every import of a module, also the lazy ones inside functions."""

    def visit(node: ast.AST, at_top: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_top)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno, at_top)
        elif isinstance(node, ast.Call) and (name := _named_in_call(node)):
            yield Import(name, node.lineno, at_top)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(node)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_top and not inside)

    yield from visit(ast.parse(source), at_top=True)


def faults(path: Path, source: str) -> list[str]:
    """Return one line for each import of `path` (relative to the package) that runs the wrong way."""
    layer = path.parts[0] if len(path.parts) > 1 else path.stem
    found = []
    for one in imports(source):
        top, _, rest = one.name.partition(".")
        reason = ""
        if top in BANNED:
            reason = "is never used here"
        elif top in SERVER and path.parent == Path("apps/label"):
            continue
        elif one.at_top and top not in CORE | {PACKAGE} and top not in sys.stdlib_module_names:
            reason = "is not part of the core: import it where it is used, with genseg_monai._optional.require"
        elif layer in {"apps", "__main__"} or top in sys.stdlib_module_names:
            continue
        elif top == PACKAGE:
            target = rest.partition(".")[0]
            below = target in {"", "errors", "__version__", "UserError"} or target.startswith("_")
            if not below and target not in LAYERS.get(layer, set()):
                reason = f"lies above {layer}"
        elif top not in PACKAGES.get(layer, set()):
            reason = f"is not for {layer}"
        elif layer not in {"engines", "inferers", "handlers"} and f"{one.name}.".startswith(
            tuple(f"{name}." for name in _UPPER_MONAI)
        ):
            reason = f"is for engines, not for {layer}"
        if reason:
            found.append(f"{PACKAGE}/{path}:{one.line}: {one.name} {reason}")
    return found


MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))


def test_directions() -> None:
    wrong = [f for path in MODULES for f in faults(path.relative_to(ROOT / PACKAGE), path.read_text(encoding="utf-8"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("multilevel/tree.py", "import torch", False),
        ("multilevel/tree.py", "import numpy", True),
        ("multilevel/tree.py", "def f():\n    from genseg_monai.networks import unet", True),
        ("networks/unet.py", "from genseg_monai.multilevel import tree", False),
        ("networks/unet.py", "from monai.networks.nets import UNet", False),
        ("networks/unet.py", "from monai.engines import Trainer", True),
        ("networks/unet.py", "from genseg_monai import data", True),
        ("networks/unet.py", "from torchvision import ops", True),
        ("data/read.py", "from genseg_monai.dicom import series", False),
        ("data/read.py", "import itk", True),
        ("data/read.py", "itk = require('itk', 'reading MetaImage')", True),
        ("data/read.py", "def f():\n    itk = require('itk', 'reading MetaImage')", False),
        ("data/read.py", "from genseg_monai.engines import trainer", True),
        ("engines/trainer.py", "import genseg_monai.handlers.progress", True),
        ("engines/trainer.py", "import ignite.engine", False),
        ("handlers/progress.py", "from genseg_monai.engines import trainer", False),
        ("pacs/dimse.py", "def f():\n    import pynetdicom", False),
        ("pacs/dimse.py", "if TYPE_CHECKING:\n    import pynetdicom", False),
        ("pacs/dimse.py", "import pynetdicom", True),
        ("pacs/pull.py", "from genseg_monai.data import cases", True),
        ("errors.py", "from genseg_monai.data import cases", True),
        ("apps/pull.py", "from genseg_monai.pacs import pull", False),
        ("apps/pull.py", "import httpx", True),
        ("apps/pull.py", "import monailabel", True),
        ("apps/label/app.py", "import monailabel", False),
    ],
)
def test_the_walk_itself(path: str, source: str, wrong: bool) -> None:
    assert bool(faults(Path(path), source)) is wrong


def test_every_folder_has_its_layer() -> None:
    folders = {p.parent.name for p in MODULES if p.name == "__init__.py" and p.parent.parent == ROOT / PACKAGE}
    assert folders - {"apps"} == set(LAYERS)


_BLOCK = f"""
import importlib, importlib.abc, sys
import {PACKAGE}
assert not {{"torch", "monai", "numpy"}} & set(sys.modules), "import {PACKAGE} is not light"

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"pynetdicom", "highdicom", "httpx", "itk", "matplotlib", "gdcm", "torchvision"}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_core_works_without_optional_packages() -> None:
    """Import every module where the optional packages are missing (one process: imports cannot be taken back)."""
    here = [
        p for p in MODULES if not {i.name.partition(".")[0] for i in imports(p.read_text("utf-8")) if i.at_top} & SERVER
    ]
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in here]
    names = [name for name in names if not name.endswith("__main__")]
    done = subprocess.run([sys.executable, "-c", _BLOCK, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
