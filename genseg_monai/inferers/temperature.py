"""The temperature of a trained bundle, which a training leaves in ``models/calibration/temperature.json``."""

from __future__ import annotations

import json
import math
from pathlib import Path

from genseg_monai.errors import UserError

__all__ = ["read_temperature"]


def read_temperature(bundle: str | Path) -> float:
    """Return the temperature of a bundle, 1 where it has none.

    Args:
        bundle: the folder of a bundle.

    Raises:
        UserError: the file is there and holds no temperature.

    Example:
        >>> read_temperature("a bundle without calibration")
        1.0
    """
    path = Path(bundle) / "models" / "calibration" / "temperature.json"
    if not path.is_file():
        return 1.0
    try:
        temperature = float(json.loads(path.read_text(encoding="utf-8"))["temperature"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(path, f"wanted a temperature, cannot read it ({error}); copy the file again") from error
    if not (math.isfinite(temperature) and temperature > 0):
        raise UserError(path, f"wanted a temperature above 0, got {temperature}; remove the file or train again")
    return temperature
