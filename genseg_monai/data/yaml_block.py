"""Put a block into a YAML file, and leave every other line of it as it is."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from genseg_monai.errors import UserError

__all__ = ["read_block", "replace_block"]

_NEXT = re.compile(r"^(?![ \t\r\n#])", re.MULTILINE)  # the next line that starts in the first column, comments left out


def read_block(path: str | Path, key: str) -> dict[str, Any]:
    """Read the mapping under a top-level key of a YAML file.

    Raises:
        UserError: the file cannot be read, or has no such block.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(path, f"wanted a YAML configuration, it cannot be read ({error}); mend the file") from error
    block = content.get(key) if isinstance(content, dict) else None
    if not isinstance(block, dict):
        raise UserError(path, f"wanted a block `{key}:`, there is none; use a configuration that a training wrote")
    return block


def replace_block(path: str | Path, key: str, values: Mapping[str, Any]) -> None:
    """Replace the block of a top-level key, or add it at the end; comments outside of it stay.

    The file is replaced in one step: a reader sees the old one or the new one.

    Args:
        path: an existing YAML file.
        key: a top-level key.
        values: plain numbers, text, lists and dictionaries.

    Raises:
        UserError: the file is not there.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, f"wanted a configuration to write `{key}:` into, there is none; correct the path")
    text = path.read_bytes().decode("utf-8")
    block = yaml.safe_dump({key: dict(values)}, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    if "\r\n" in text:
        block = block.replace("\n", "\r\n")
    start = re.search(rf"^{re.escape(key)}\s*:", text, re.MULTILINE)
    if start is None:
        joint = "" if not text or text.endswith("\n") else "\n"
        _replace(path, text + joint + block)
        return
    body = text.find("\n", start.end()) + 1 or len(text)
    after = _NEXT.search(text, body)
    end = _before_comments(text, body, after.start() if after else len(text))
    _replace(path, text[: start.start()] + block + text[end:])


def _before_comments(text: str, body: int, end: int) -> int:
    """Move back over blank lines and comments in the first column: they belong to what follows."""
    while end > body:
        line_start = text.rfind("\n", 0, end - 1) + 1
        line = text[line_start:end]
        if line_start < body or not (line.startswith("#") or not line.strip()):
            break
        end = line_start
    return end


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(path.stat().st_mode & 0o777)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
