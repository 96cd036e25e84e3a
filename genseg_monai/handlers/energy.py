"""Energy that the machine has used, where it can be read: processors by RAPL, NVIDIA's GPUs by NVML.

RAPL's counters (Linux, ``/sys/class/powercap``; Intel and AMD) count whole processors, so other work on the machine is
in them; most systems let only root read them. NVML is asked where the package ``pynvml`` is installed.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

__all__ = ["EnergyMeter"]

_POWERCAP = Path("/sys/class/powercap")
_PACKAGE = "intel-rapl:[0-9]*"  # `intel-rapl:0` is a processor, `intel-rapl:0:1` a part of it


class EnergyMeter:
    """Add up what the counters advance by. Read it every few minutes: RAPL's start again from 0 within the hour.

    Args:
        powercap: folder of RAPL's counters.
        cuda: index of the GPU that is used; None for none.

    Example:
        >>> EnergyMeter(Path("a folder that is not there")).watt_hours() is None
        True
    """

    def __init__(self, powercap: Path = _POWERCAP, cuda: int | None = None) -> None:
        self._joules = 0.0
        self._processors = [path for path in sorted(powercap.glob(_PACKAGE)) if path.name.count(":") == 1]
        self._gpu = _gpu(cuda) if cuda is not None else None
        self._last = self._read()
        self.known = bool(self._last)

    def watt_hours(self) -> float | None:
        """Return the energy since the meter was made, None where nothing can be read."""
        now = self._read()
        for name, joules in now.items():
            advance = joules - self._last.get(name, joules)
            if advance < 0:
                advance += self._range(name)
            self._joules += advance
        self._last = now
        return self._joules / 3600 if self.known else None

    def _read(self) -> dict[str, float]:
        """Return joules by counter."""
        found = {}
        for path in self._processors:
            try:
                found[path.name] = int((path / "energy_uj").read_text()) / 1e6
            except (OSError, ValueError):  # only root may read it
                continue
        if self._gpu is not None:
            found["gpu"] = self._gpu()
        return found

    def _range(self, name: str) -> float:
        """Return where a counter starts again from 0."""
        for path in self._processors:
            if path.name == name:
                return int((path / "max_energy_range_uj").read_text()) / 1e6
        return 0.0


def _gpu(index: int) -> Any:
    """Return a function that reads joules of a GPU, None where it cannot be asked."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # not installed, no driver, or a GPU without the counter: NVML has an error of its own for each
        return None
    return lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
