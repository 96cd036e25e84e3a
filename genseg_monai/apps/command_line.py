"""From words on the command line to the arguments of a function, every value exactly as it was typed.

Python Fire assigns the words to arguments. Left to itself it also reads values as Python (`1E5` becomes 100000.0,
`1_000` becomes 1000, `12#3` becomes 12, `None` becomes None) and takes `--data --out OUT` as ``data=True``: a patient
identifier must not change on its way in, so Fire gets every value as text here, and numbers and switches are read by
the type the function asks for.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import io
import types
import typing
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import fire

from genseg_monai.errors import UserError

__all__ = ["bind", "one_of"]

_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def bind(function: Callable[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """Assign the words of a command line to the arguments of a function.

    Args:
        function: has the arguments; arguments before a ``*`` may be given by position, all by ``--name``. Its
            annotations (`str`, `int`, `float`, `bool`, `Path`, each with or without ``| None``) say how a value
            is read. With ``**overrides`` it takes any further ``--ID VALUE`` as text.
        words: the words after the command.

    Returns:
        The arguments by name, ready for ``function(**arguments)``.

    Raises:
        UserError: a word is not understood, a value is missing or of the wrong kind.

    Example:
        >>> def fetch(folder: str, *, patient_id: str = "", count: int = 1, dry_run: bool = False) -> None: ...
        >>> bind(fetch, ["OUT", "--patient-id", "1E5", "--count=2", "--dry-run"])
        {'folder': 'OUT', 'patient_id': '1E5', 'count': 2, 'dry_run': True}
    """
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function)
    given = _assign(function, signature, _spell_out(signature, hints, words))
    return {
        name: _convert(name, value, hints.get(name, str) if name in _names(signature) else str)
        for name, value in given.items()
    }


def one_of(flag: str, value: str, kind: type[StrEnum]) -> str:
    """Return a value that has to be a word of a vocabulary.

    Raises:
        UserError: it is none.
    """
    if value not in list(kind):
        raise UserError(flag, f"wanted {' or '.join(kind)}, got {value!r}")
    return value


def _names(signature: inspect.Signature) -> list[str]:
    return [p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]


def _spell_out(signature: inspect.Signature, hints: dict[str, Any], words: Sequence[str]) -> list[str]:
    """Write everything as ``--name=VALUE``: no value can then be taken for a flag, or the reverse."""
    parameters = signature.parameters.values()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    free = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    values: dict[str, str] = {}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--"):
            left = [name for name in free if name not in values]
            if not left:
                raise UserError(word, "did not expect this word; a value with spaces in it needs quotes around it")
            values[left[0]] = word
            continue
        flag, equals, value = word.partition("=")
        name = flag[2:].replace("-", "_")
        if not name or (name not in _names(signature) and not open_ended):
            raise UserError(flag, f"there is no such flag; {_closest(name, signature)}")
        if name in values:
            raise UserError(flag, "wanted once, given twice; remove one")
        if not equals and _is_switch(hints.get(name)):
            value = queue.pop(0) if queue and queue[0].lower() in ("true", "false") else "true"
        elif not equals:
            if not queue or queue[0].startswith("--"):
                raise UserError(flag, f"wanted a value after it, got none (--VALUE is given as {flag}=--VALUE)")
            value = queue.pop(0)
        values[name] = value
    return [f"--{name}={value}" for name, value in values.items()]


def _assign(function: Callable[..., Any], signature: inspect.Signature, words: list[str]) -> dict[str, str]:
    """Let Fire assign words to names; every value stays text."""
    given = {word[2:].partition("=")[0] for word in words}
    for p in signature.parameters.values():
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in given:
            shown = p.name.upper() if p.kind is p.POSITIONAL_OR_KEYWORD else "--" + p.name.replace("_", "-")
            raise UserError(shown, "wanted, but not given; --help shows an example")
    caught: dict[str, str] = {}

    @functools.wraps(function)
    def recorder(*args: Any, **kwargs: Any) -> None:
        arguments = signature.bind_partial(*args, **kwargs).arguments
        rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), "")
        caught.update({**arguments.pop(rest, {}), **arguments})

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            fire.Fire(fire.decorators.SetParseFn(str)(recorder), command=words, serialize=lambda _: None)
        except fire.core.FireExit as stop:
            told = [line for line in said.getvalue().splitlines() if line.startswith("ERROR:")]
            raise UserError("arguments", told[0][7:] if told else "not understood; see --help") from stop
    return {name: value for name, value in caught.items() if name in given}


def _convert(name: str, value: str, wanted: Any) -> Any:
    """Read a value by the type its argument asks for; text stays as typed."""
    flag = "--" + name.replace("_", "-")
    kinds = set(typing.get_args(wanted)) if _is_union(wanted) else {wanted}
    if bool in kinds:
        if value.lower() not in _SWITCH:
            raise UserError(flag, f"wanted true or false, got {value!r}")
        return _SWITCH[value.lower()]
    for kind, words in ((int, "a whole number"), (float, "a number")):
        if kind in kinds and str not in kinds:
            try:
                return kind(value)
            except ValueError:
                raise UserError(flag, f"wanted {words}, got {value!r}") from None
    return Path(value) if Path in kinds and str not in kinds else value


def _is_union(wanted: Any) -> bool:
    return typing.get_origin(wanted) in (typing.Union, types.UnionType)


def _is_switch(wanted: Any) -> bool:
    return wanted is bool or (_is_union(wanted) and bool in typing.get_args(wanted))


def _closest(name: str, signature: inspect.Signature) -> str:
    names = _names(signature)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean --{near[0].replace('_', '-')}?"
    return "there are " + ", ".join("--" + n.replace("_", "-") for n in names)
