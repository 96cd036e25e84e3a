"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import genseg_monai
from genseg_monai import _optional

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "genseg_monai").rglob("*.py"))
PYTHON = [*LIBRARY, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield `(dotted name, call)` for each call in a file."""
    for node in ast.walk(ast.parse(_read(path))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def test_files_are_short() -> None:
    long = {str(p.relative_to(ROOT)): n for p in LIBRARY if (n := len(_read(p).splitlines())) > 300}
    assert not long, f"wanted at most 300 lines a file, got {long}; split by noun"


def test_library_does_not_print() -> None:
    quiet = [p for p in LIBRARY if "apps" not in p.parts and p.name != "__main__.py"]
    found = [_where(p, call) for p in quiet for name, call in _calls(p) if name == "print"]
    assert not found, f"use logging: {found}"


def test_nothing_is_unpickled() -> None:
    found = []
    for path in PYTHON:
        for name, call in _calls(path):
            safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)
            if (name == "torch.load" and not safe) or name in {"pickle.load", "pickle.loads", "joblib.load"}:
                found.append(_where(path, call))
            if any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in call.keywords):
                found.append(_where(path, call))
    assert not found, f"a file from elsewhere could run code; torch.load takes weights_only=True: {found}"


def test_yaml_is_read_safely() -> None:
    unsafe = {f"yaml.{name}" for name in ("load", "load_all", "full_load", "unsafe_load", "unsafe_load_all")}
    found = [_where(path, call) for path in PYTHON for name, call in _calls(path) if name in unsafe]
    assert not found, f"use yaml.safe_load: {found}"


def _tracked() -> list[Path]:
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_path_of_one_machine() -> None:
    # put together here so that this file does not find itself
    pattern = re.compile(r"(?<![\w.:/*-])/(?:" + "|".join(["home", "Users", "root", "work", "mnt", "opt"]) + r")/\w")
    text = {".py", ".md", ".yaml", ".yml", ".json", ".toml", ".txt", ".conf", ".sh", ".csv", ""}
    found = []
    for path in _tracked():
        if path.suffix in text and path.name != "LICENSE":
            lines = enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
            found += [f"{path.relative_to(ROOT)}:{n}" for n, line in lines if pattern.search(line)]
    assert not found, f"a path that exists on one machine only: {found}"


def test_nothing_large_is_tracked() -> None:
    large = {str(p.relative_to(ROOT)): s for p in _tracked() if (s := p.stat().st_size) > 25 * 2**20}
    assert not large, f"wanted at most 25 MB a file, got {large}"


def test_changelog_is_open() -> None:
    assert "## [Unreleased]" in _read(ROOT / "CHANGELOG.md")


def test_bundle_has_the_version_of_the_package() -> None:
    metadata = ROOT / "bundle" / "configs" / "metadata.json"
    if not metadata.is_file():
        pytest.skip("no bundle/configs/metadata.json yet")
    held = json.loads(_read(metadata))
    assert held["version"] == genseg_monai.__version__
    assert held["version"] in held["changelog"]


# --- requirements -----------------------------------------------------------------------------------------------------


def _requirements(lines: list[str]) -> dict[str, str]:
    """Return name -> bounds, of lines as in a requirements file."""
    bare = [line.partition("#")[0].strip() for line in lines]
    held = [Requirement(line) for line in bare if line and not line.startswith("-")]
    return {one.name.lower(): str(one.specifier) for one in held}


def _project() -> dict:
    return tomllib.loads(_read(ROOT / "pyproject.toml"))["project"]


def test_requirements_are_those_of_the_package() -> None:
    project = _project()
    extras = project["optional-dependencies"]
    itk = [line for line in extras["label"] if line.startswith("itk")]
    wanted = _requirements(project["dependencies"]) | _requirements(extras["pacs"]) | _requirements(itk)
    assert _requirements(_read(ROOT / "requirements.txt").splitlines()) == wanted


def test_dev_requirements_are_those_of_the_package() -> None:
    wanted = _requirements(_project()["optional-dependencies"]["dev"])
    assert _requirements(_read(ROOT / "requirements-dev.txt").splitlines()) == wanted


def test_what_monai_label_s_environment_pins_is_within_the_bounds_of_the_package() -> None:
    project = _project()
    bounds = _requirements(project["dependencies"]) | _requirements(project["optional-dependencies"]["label"])
    pins = _requirements(_read(ROOT / "requirements-label.txt").splitlines())
    shared = sorted(pins.keys() & bounds.keys())
    assert {"torch", "monai", "numpy", "pydicom", "itk"} <= set(shared)
    for name in shared:
        assert Requirement(f"x{bounds[name]}").specifier.contains(pins[name].removeprefix("==")), name


def test_install_lines_are_those_of_the_requirements() -> None:
    held = _requirements(_read(ROOT / "requirements.txt").splitlines())
    for extra in ("tracking", "cluster"):
        held |= _requirements(_project()["optional-dependencies"][extra])
    told = _requirements(list(_optional._REQUIREMENTS.values()))
    assert told.items() <= held.items()


# --- README -----------------------------------------------------------------------------------------------------------


def _commands() -> list[str]:
    """Return the command lines in README's code blocks, continued lines joined, comments dropped."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", _read(ROOT / "README.md"), flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith(("python ", "make ", "genseg "))]


def _arguments(command: str) -> tuple[set[str], bool]:
    """Return the parameters of `genseg_monai/apps/COMMAND.py`, and whether it takes any other flag as well."""
    name = command.replace("-", "_")
    module = ROOT / "genseg_monai" / "apps" / f"{name}.py"
    module = module if module.is_file() else module.with_suffix("") / "__init__.py"
    assert module.is_file(), f"no {module.relative_to(ROOT)}"
    for node in ast.parse(_read(module)).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            spec = node.args
            return {one.arg for one in [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]}, spec.kwarg is not None
    raise AssertionError(f"no function {name} in {module.relative_to(ROOT)}")


@pytest.mark.parametrize("command", _commands(), ids=str)
def test_readme_command_exists(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", _read(ROOT / "Makefile"), flags=re.MULTILINE)
        assert words[1] in targets
        return
    for path in re.findall(r"(?:bundle|configs|benchmarks)/[\w./-]+\.(?:yaml|json|py)", command):
        assert (ROOT / path).is_file(), f"{path} is named in README and is not there"
    rest = words[3:] if words[:3] == ["python", "-m", "genseg_monai"] else words[1:] if words[0] == "genseg" else None
    if rest is not None:
        known, open_ended = _arguments(rest[0])
        flags = {word[2:].partition("=")[0].replace("-", "_") for word in rest if word.startswith("--")}
        assert open_ended or flags <= known | {"debug"}, f"unknown flags: {sorted(flags - known)}"


def test_readme_pictures_exist() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", _read(ROOT / "README.md")):
        assert (ROOT / path).is_file(), f"{path} is shown in README and is not there"


def test_every_package_is_installed() -> None:
    held = tomllib.loads(_read(ROOT / "pyproject.toml"))["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "genseg_monai").rglob("__init__.py")}
    assert found == {name for name in held if "_shipped" not in name}
