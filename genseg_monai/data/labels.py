"""From raw values in labels to named classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genseg_monai.data.fingerprint import Fingerprint
from genseg_monai.data.layouts import read_json
from genseg_monai.errors import UserError

__all__ = ["class_table", "described"]

logger = logging.getLogger(__name__)

_MOST_CLASSES = 256
_FEW = 8  # values in pictures that need no second look
_STRAY = 0.05  # share of voxels beyond the two commonest values below which many values are noise, not classes


def class_table(
    fingerprint: Fingerprint,
    label_values: Mapping[int, int] | None = None,
    names: Mapping[int, str] | None = None,
    declared: Sequence[int] = (),
    where: str = "labels",
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Give each raw label value its class index and each class its name.

    Two values are background and foreground; more become classes in rising order, 0 (or the lowest) the background.

    Args:
        fingerprint: says which values there are.
        label_values: raw value -> class index; nothing is guessed then.
        names: raw value -> name.
        declared: values the data set says it has.
        where: a label, for the message.

    Returns:
        Raw value -> class index, and the names by class index.

    Raises:
        UserError: there is no foreground, the values are noise or not whole, or `label_values` leaves some out.
    """
    names = names or {}
    found = sorted(fingerprint.values)
    if not found:
        raise UserError(where, "wanted labels to learn from, got images alone; add their masks")
    if label_values is not None:
        return _given(found, {int(k): int(v) for k, v in label_values.items()}, names, where)
    if not fingerprint.whole:
        odd = next(v for v in found if v != int(v) or v < 0)
        raise UserError(where, f"wanted whole label values from 0 on, got {odd:g} among others; write class numbers")
    if _noisy(fingerprint):
        raise UserError(
            where,
            f"wanted one value a class, got {len(found)} values, as lossy compression leaves them; save the masks as "
            "PNG with 0 and 255, or give label_values ({raw: class, ...})",
        )
    raw = sorted({int(v) for v in found} | set(declared)) if len(found) > 2 or declared else [int(v) for v in found]
    if len(raw) < 2:
        raise UserError(where, f"wanted background and a foreground, got the value {raw[0]} alone; check the masks")
    if len(raw) > _MOST_CLASSES:
        raise UserError(
            where, f"wanted at most {_MOST_CLASSES} classes, got {len(raw)} values; join some by label_values"
        )
    if raw[0] != 0:
        logger.warning("no label has the value 0: %d is taken for the background", raw[0])
    table = {value: index for index, value in enumerate(raw)}
    only = len(raw) == 2 and raw[1] not in names
    return table, tuple(
        names.get(value) or ("background" if index == 0 else "foreground" if only else f"class_{value}")
        for value, index in table.items()
    )


def described(case: Mapping[str, Any]) -> tuple[dict[int, str], str, list[int]]:
    """Return class names, modality and declared label values of the data set a case lies in.

    They stand in the ``dataset.json`` two folders above the label; without one there is nothing to tell. Both forms are
    read: ``{"1": "liver"}`` of the Decathlon and ``{"liver": 1}`` of nnU-Net.
    """
    label = case.get("label")
    label = label[0] if isinstance(label, list) and label else label
    file = Path(str(label)).parent.parent / "dataset.json" if label else None
    if file is None or not file.is_file():
        return {}, "", []
    content = read_json(file)
    labels = content.get("labels") if isinstance(content, dict) else None
    names: dict[int, str] = {}
    for key, value in (labels if isinstance(labels, dict) else {}).items():
        for number, name in ((key, value), (value, key)):
            if isinstance(name, str) and isinstance(number, str | int) and str(number).isdigit():
                names[int(number)] = name.strip()
                break
    modalities = content.get("modality") or content.get("channel_names") if isinstance(content, dict) else None
    said = str(next(iter(modalities.values()), "")) if isinstance(modalities, dict) else ""
    known = {"ct": "CT", "mri": "MR", "mr": "MR"}
    modality = next((known[word] for word in said.lower().replace("-", " ").split() if word in known), "")
    return names, modality, sorted(names)


def _noisy(fingerprint: Fingerprint) -> bool:
    """Whether many rare values lie round two common ones in pictures; volumes hold rare organs and no JPEG."""
    if not fingerprint.pictures:
        return False
    shares = sorted(fingerprint.values.values(), reverse=True)
    return (fingerprint.lossy and len(shares) > 2) or (len(shares) > _FEW and sum(shares[2:]) < _STRAY)


def _given(
    found: Sequence[float], table: dict[int, int], names: Mapping[int, str], where: str
) -> tuple[dict[int, int], tuple[str, ...]]:
    missing = [f"{value:g}" for value in found if value not in table]
    if missing:
        more = ", ..." if len(missing) > 8 else ""
        raise UserError(
            "label_values", f"wanted a class for every value, got none for {', '.join(missing[:8])}{more}; add it"
        )
    indices = sorted(set(table.values()))
    if indices != list(range(len(indices))) or len(indices) < 2:
        raise UserError("label_values", f"wanted class indices 0, 1, ... without gaps, got {indices}; number them so")
    first = {index: min(raw for raw, i in table.items() if i == index) for index in indices}
    only = len(indices) == 2 and first[1] not in names
    return dict(sorted(table.items())), tuple(
        names.get(first[index]) or ("background" if index == 0 else "foreground" if only else f"class_{index}")
        for index in indices
    )
