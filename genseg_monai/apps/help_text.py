"""The help of the command line, made from the docstrings: no pager, no import of the heavy libraries."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["command_help", "overview"]

_SECTIONS = ("Args", "Returns", "Raises", "Example", "Note")


def overview(commands: Mapping[str, str], version: str) -> str:
    """List the commands.

    Args:
        commands: what each command does, in one line.
        version: shown in the first line.

    Returns:
        The text, ending in a line break.

    Example:
        >>> print(overview({"check": "list faults"}, "1.0"), end="")
        genseg 1.0: segmentation from few labelled cases
        <BLANKLINE>
        usage: genseg COMMAND ... [--debug]
        <BLANKLINE>
          check  list faults
        <BLANKLINE>
        genseg COMMAND --help tells the arguments of a command; --debug adds the traceback to an error.
    """
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {about}" for name, about in commands.items()]
    return "\n".join([
        f"genseg {version}: segmentation from few labelled cases", "",
        "usage: genseg COMMAND ... [--debug]", "", *lines, "",
        "genseg COMMAND --help tells the arguments of a command; --debug adds the traceback to an error.", "",
    ])  # fmt: skip


def command_help(name: str, function: Callable[..., Any]) -> str:
    """Tell the arguments, defaults and an example of a command.

    Args:
        name: of the command.
        function: its docstring has the sections ``Args`` and ``Example`` (a shell line).

    Returns:
        The text, ending in a line break.
    """
    sections = _sections(inspect.getdoc(function) or "")
    told = _arguments(sections.get("Args", ""))
    usage, lines = [f"usage: genseg {name}"], []
    parameters = inspect.signature(function).parameters.values()
    for p in parameters:
        if p.kind is p.VAR_KEYWORD:
            spelt, usage_part, default = "--ID VALUE", "[--ID VALUE ...]", ""
        else:
            flag = "--" + p.name.replace("_", "-")
            switch = isinstance(p.default, bool)
            positional = p.kind is p.POSITIONAL_OR_KEYWORD
            spelt = p.name.upper() if positional else flag if switch else f"{flag} {p.name.upper()}"
            usage_part = spelt if p.default is p.empty else f"[{spelt}]"
            default = "" if p.default in (p.empty, None, False) else f" (default: {p.default})"
        usage.append(usage_part)
        lines.append((spelt, told.get(p.name, "") + default))
    width = min(26, max((len(spelt) for spelt, _ in lines), default=0))
    table = [f"  {spelt:<{width}}  {about}" for spelt, about in lines]
    text = [" ".join(usage), "", sections[""], "", "arguments:", *table]
    if sections.get("Example"):
        text += ["", "example:", *("  " + line for line in sections["Example"].splitlines())]
    return "\n".join(text) + "\n"


def _sections(doc: str) -> dict[str, str]:
    """Split a Google-style docstring; the text before the first section has the key ``""``."""
    parts = re.split(rf"^({'|'.join(_SECTIONS)}):\n", doc, flags=re.M)
    found = {"": parts[0].strip()}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        found[title] = inspect.cleandoc("\n" + body).replace("::\n\n    ", "").strip()
    return found


def _arguments(body: str) -> dict[str, str]:
    """Read an ``Args`` section: name to one line of text."""
    told: dict[str, list[str]] = {}
    current = ""
    for line in body.splitlines():
        start = re.match(r"\**(\w+): *(.*)", line)
        if start:
            current, text = start.groups()
            told[current] = [text]
        elif current:
            told[current].append(line.strip())
    return {name: " ".join(lines).strip() for name, lines in told.items()}
