"""Weights of UniverSeg from a file: ours, or a user's copy of the official checkpoint; the names are the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genseg_monai.errors import UserError
from genseg_monai.networks.universeg import UniverSeg

__all__ = ["load_universeg", "read_universeg"]

_LAST = "out_conv.conv.weight"  # by this name a network of this kind is told, whatever stands before it
_SHOWN = 8  # rows of a table of errors


def read_universeg(path: str | Path) -> dict[str, Tensor]:
    """Return the weights in a file under their official names.

    Args:
        path: a state dict; also one wrapped with other entries, or with a prefix such as ``module.`` before its names.

    Raises:
        UserError: no such file, not readable as weights alone, or no weights of UniverSeg.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "wanted weights of UniverSeg, there is no such file; correct the path")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        remedy = "give a file that holds a state dict and nothing else"
        raise UserError(path, f"wanted weights, cannot read them ({type(error).__name__}); {remedy}") from error
    for weights in _dictionaries(held):
        for name in weights:
            if str(name).endswith(_LAST):
                prefix = str(name)[: -len(_LAST)]
                return {key[len(prefix) :]: value for key, value in weights.items() if str(key).startswith(prefix)}
    names = ", ".join(map(str, list(held)[:4])) if isinstance(held, Mapping) else type(held).__name__
    raise UserError(path, f"wanted weights of UniverSeg with {_LAST} among them, got {names or 'none'}; give others")


def load_universeg(
    path: str | Path, *, cross_activation: bool = False, support_chunk: int | None = None, recompute: bool = False
) -> UniverSeg:
    """Return the network that a file of weights describes.

    Dimensions, channels and widths are told by the weights' shapes.

    Args:
        path: as of `read_universeg`.
        cross_activation: as of `UniverSeg`; no weight tells it.
        support_chunk: as of `UniverSeg`.
        recompute: as of `UniverSeg`.

    Raises:
        UserError: as of `read_universeg`, or weights missing, unknown or of wrong shapes, listed as a table.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(UniverSeg(features=(4, 8)).state_dict(), f"{folder}/model.pt")
        ...     load_universeg(f"{folder}/model.pt").enc_blocks[1].cross.cross_conv.weight.shape
        torch.Size([8, 8, 3, 3])
    """
    weights = read_universeg(path)
    last = weights[_LAST]
    widths: list[int] = []
    while (name := f"enc_blocks.{len(widths)}.cross.cross_conv.weight") in weights:
        widths.append(len(weights[name]))
    first = weights.get("enc_blocks.0.cross.cross_conv.weight")
    if first is None or last.ndim not in (4, 5):
        raise UserError(
            path, f"wanted weights of UniverSeg, got {_LAST} {_shape(last)} and no first block; give others"
        )
    network = UniverSeg(
        spatial_dims=last.ndim - 2,
        in_channels=max(1, (first.shape[1] - 1) // 2),  # C of the query, C + 1 of a support
        out_channels=len(last),
        features=widths,
        cross_activation=cross_activation,
        support_chunk=support_chunk,
        recompute=recompute,
    )
    wanted = network.state_dict()
    rows = [
        f"{name} | {_shape(wanted.get(name))} | {_shape(weights.get(name))}"
        for name in [*wanted, *(weights.keys() - wanted.keys())]
        if _shape(wanted.get(name)) != _shape(weights.get(name))
    ]
    if rows:
        more = [f"and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else []
        table = "; ".join(["name | expected | got", *rows[:_SHOWN], *more])
        raise UserError(path, f"wanted {len(wanted)} weights of UniverSeg, {len(rows)} differ: {table}")
    network.load_state_dict(weights)
    return network


def _dictionaries(held: Any) -> list[Mapping[Any, Tensor]]:
    """Return the dictionary and those directly in it."""
    if not isinstance(held, Mapping):
        return []
    return [held, *(value for value in held.values() if isinstance(value, Mapping))]


def _shape(tensor: Any) -> str:
    return "none" if tensor is None else " ".join(map(str, getattr(tensor, "shape", ["no tensor"])))
