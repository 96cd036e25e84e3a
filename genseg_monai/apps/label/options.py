"""What an annotator may change, as the clients show it, and the ids of the training config it sets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genseg_monai.engines.estimate import parse_budget
from genseg_monai.errors import UserError
from genseg_monai.networks.segmenters import Segmenter

__all__ = ["count", "extended_plan", "share", "switch", "training_ids", "training_options"]

_OUTER_EVERY = 4  # of a search in a bundle that had none; the one of the shipped bundle


def training_options(segmenter: str, outer_every: int = _OUTER_EVERY) -> dict[str, Any]:
    """Return the options of a training with their defaults; a list is a choice, its first entry the default.

    Args:
        segmenter: the one the bundle has now.
        outer_every: iterations between two steps of the search, as the bundle has it; 0 where it does not search.

    Example:
        >>> training_options("unet")["segmenter"][:2]
        ['unet', 'unet_small']
    """
    simple_first = sorted(map(str, Segmenter), key=lambda name: (name != Segmenter.UNET_SMALL, name))
    return {
        "budget": "",
        "size": "",
        "search": outer_every > 0,
        "segmenter": [segmenter, *(name for name in simple_first if name != segmenter)],
        "compare": False,
    }


def training_ids(options: Mapping[str, Any], segmenter: str, outer_every: int = _OUTER_EVERY) -> dict[str, Any]:
    """Return ids of the training config and their values, from the options as a client gave them.

    Args:
        options: some of those of `training_options`: `budget`, a time such as ``30m`` in place of the epochs; `size`,
            of the working grid, such as ``32, 48, 32``, in place of what the images suggest; `search`, whether the
            generator's architecture is searched; `segmenter`; `compare`, whether segmenters without synthetic images
            are trained beside it.
        segmenter: the one the bundle has now, the default.
        outer_every: as the bundle has it now.

    Raises:
        UserError: a value means nothing.

    Example:
        >>> training_ids({"budget": "10m", "size": "64, 64", "search": False}, "unet_small")
        {'segmenter': 'unet_small', 'budget': '10m', 'size': [64, 64], 'outer_every': 0, 'baselines': []}
    """
    wanted = options.get("segmenter") or segmenter
    wanted = wanted[0] if isinstance(wanted, list) else wanted
    if wanted not in list(Segmenter):
        raise UserError("segmenter", f"wanted one of {', '.join(Segmenter)}, got {wanted!r}")
    ids: dict[str, Any] = {"segmenter": str(wanted)}
    if budget := options.get("budget"):
        parse_budget(budget)
        ids["budget"] = budget
    if size := options.get("size"):
        ids["size"] = _size(size)
    search = switch(options.get("search", outer_every > 0), "search")
    if search != (outer_every > 0):
        ids["outer_every"] = _OUTER_EVERY if search else 0
    if not switch(options.get("compare", False), "compare"):
        ids["baselines"] = []
    return ids


def extended_plan(held: Mapping[str, Any], values: Iterable[int], size: Sequence[int] | None = None) -> dict[str, Any]:
    """Return the plan of a training that goes on with new labels: their new values become classes, after the others.

    Args:
        held: the plan that the bundle has now.
        values: that occur in the labels.
        size: another working size, such as ``[32, 48, 32]``.

    Raises:
        UserError: the size has not one number an axis.

    Example:
        >>> held = {"spatial_dims": 2, "classes": ["background", "cell"], "label_values": {0: 0, 255: 1}}
        >>> extended_plan(held, [0, 7, 255])["classes"]
        ['background', 'cell', 'class_7']
    """
    if size and len(size) != held["spatial_dims"]:
        raise UserError("size", f"wanted {held['spatial_dims']} numbers, one an axis of the images, got {list(size)}")
    table, names = dict(held["label_values"]), list(held["classes"])
    for value in sorted(set(values) - set(table)):
        table[value] = len(names)
        names.append(f"class_{value}")
    return {**held, "label_values": table, "classes": names, **({"size": list(size)} if size else {})}


def _size(value: Any) -> list[int]:
    """Read the working size: ``32, 48, 32`` or ``[32, 48, 32]``."""
    words = value if isinstance(value, list) else re.findall(r"[^\s,\[\]x]+", str(value))
    try:
        sides = [int(word) for word in words]
    except ValueError:
        sides = []
    if len(sides) not in (2, 3) or any(side < 16 or side % 16 for side in sides):
        raise UserError("size", f"wanted two or three multiples of 16, such as 32, 48, 32, got {value!r}")
    return sides


def switch(value: Any, name: str) -> bool:
    """Read a switch as the clients send it: true, "True", 1 and the like.

    Raises:
        UserError: it is none.
    """
    known = {"true": True, "false": False, "1": True, "0": False}
    if str(value).lower() not in known:
        raise UserError(name, f"wanted true or false, got {value!r}")
    return known[str(value).lower()]


def count(value: Any, name: str) -> int:
    """Read a number of things as the clients send it: 16, "16".

    Raises:
        UserError: it is no whole number from 1 on.
    """
    found = re.fullmatch(r"\s*(\d+)(\.0*)?\s*", str(value))
    if not found or int(found[1]) < 1:
        raise UserError(name, f"wanted a whole number from 1 on, got {value!r}")
    return int(found[1])


def share(value: Any, name: str) -> float:
    """Read a share as the clients send it: 0.2, "0.2"; what is below 0 is 0.

    Raises:
        UserError: it is no number below 1.
    """
    try:
        found = max(float(value), 0.0)
    except (TypeError, ValueError):
        found = math.nan
    if not found < 1:
        raise UserError(name, f"wanted a share below 1, such as 0.2, got {value!r}")
    return found
