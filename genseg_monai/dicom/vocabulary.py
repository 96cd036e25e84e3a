"""Which words may stay in a text: an allow-list, because no list of forbidden ones is ever complete.

Every string of a de-identified object that is not a pseudonym is made of these words (`vocabulary.yaml`), of numbers
with a unit, and of names the user allowed.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import yaml

__all__ = ["clean_code", "clean_text", "is_term", "withhold"]

_TOKEN = re.compile(r"[^\s,;:/\\|+()\[\]{}=_^\"'<>&*#@!?]+")
# 3mm, 120kV, 2.5; T1, L5, C3-C7, B30f, FC18, Br40d: nothing a person, a place or a date could be read from
_NUMBER = re.compile(r"\d{1,4}(\.\d{1,3})?([a-zA-Z]{1,5})$")
_SHORT = re.compile(
    r"\d(\.\d{1,2})?$|[tlcs]\d{1,2}(-[tlcs]?\d{1,2})?$|(b|br|bl|hr|hk|fc|i|j|q|qr|ub|uc|ya|yb|yc)\d{2}[a-z]{0,2}$", re.I
)


class _Words(NamedTuple):
    terms: frozenset[str]
    words: frozenset[str]
    schemes: dict[str, str]
    units: frozenset[str]
    fillers: frozenset[str]


@cache
def _load() -> _Words:
    lists = yaml.safe_load(files("genseg_monai.dicom").joinpath("vocabulary.yaml").read_text("utf-8"))
    fillers = frozenset(lists["fillers"].split())
    words = frozenset(f"{lists['words']} {lists['makers']}".lower().split()) | fillers
    terms, units = frozenset(lists["terms"].split()), frozenset(lists["units"].split())
    return _Words(terms, words, lists["schemes"], units, fillers)


def is_term(value: str) -> bool:
    """Tell whether a coded string (CS) is a term of the standard, or made of words of the vocabulary."""
    known, text = _load(), value.strip("\0 ")
    if text in known.terms or not text:
        return True
    if len(text) > 16 or not re.fullmatch(r"[A-Z0-9_ ]+", text):
        return False
    parts = re.split(r"[_ ]", text)
    return all(part in known.terms or part.lower() in known.words or not part for part in parts)


def clean_text(text: str, banned: Collection[str] = (), allowed: Collection[str] = ()) -> str:
    """Return what of a text may stay.

    Args:
        text: any text.
        banned: words, lower case, that identify this patient or a person in this file; they go even if known.
        allowed: names, lower case, that may stay as they are when the text is nothing else.

    Example:
        >>> clean_text("Liver portal venous 3mm, for Mrs Doe 12.03.1950")
        'Liver portal venous 3mm for'
        >>> clean_text("GTV-n Doe", allowed={"gtv-n doe"})
        'GTV-n Doe'
    """
    whole = " ".join(text.split())
    known, banned = _load(), frozenset(banned)
    if whole.lower() in allowed or (whole in known.terms and whole.lower() not in banned):
        return whole
    kept = [token for raw in _TOKEN.findall(text) if (token := raw.strip(".-")) and _may_stay(token, known, banned)]
    return " ".join(kept) if any(token.lower() not in known.fillers for token in kept) else ""


def _may_stay(token: str, known: _Words, banned: frozenset[str]) -> bool:
    lower = token.lower()
    parts = lower.split("-")
    if lower in banned or any(part in banned for part in parts):
        return False
    if all(part in known.words for part in parts):
        return True
    number = _NUMBER.match(token)
    return bool(_SHORT.match(token)) or (number is not None and number[2].lower() in known.units)


def clean_code(value: str, scheme: str, meaning: str, banned: Collection[str] = ()) -> tuple[str, str, str]:
    """Return value, scheme and meaning of a code: only public schemes stay, and of the meaning what may stay."""
    form = _load().schemes.get(scheme)
    if form is None or not re.fullmatch(form, value) or value.lower() in banned:
        return "REMOVED", "99GENSEG", "removed"
    if value == meaning:
        return value, scheme, meaning
    return value, scheme, clean_text(meaning, banned) or "removed"


def withhold(name: str, digest: str, allowed: Collection[str] = ()) -> str:
    """Return a name if the vocabulary or the user knows all of it, else a stand-in with the start of a digest."""
    whole = " ".join(name.split())
    return whole if clean_text(whole, allowed=allowed).lower() == whole.lower() else f"[withheld {digest[:8]}]"
