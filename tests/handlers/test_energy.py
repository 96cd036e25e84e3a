"""The energy meter, on counters that a test writes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from genseg_monai.handlers.energy import EnergyMeter


def counter(folder: Path, name: str, joules: float) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{round(joules * 1e6)}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{round(1000 * 1e6)}\n")


def test_what_the_processors_advance_by(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 100)
    counter(tmp_path, "intel-rapl:1", 500)
    counter(tmp_path, "intel-rapl:0:0", 40)  # a part of the first: not counted twice
    meter = EnergyMeter(tmp_path)
    assert meter.watt_hours() == 0
    counter(tmp_path, "intel-rapl:0", 460)
    counter(tmp_path, "intel-rapl:0:0", 80)
    assert meter.watt_hours() == pytest.approx(0.1)
    counter(tmp_path, "intel-rapl:1", 220)  # 500 to 1000, then from 0 to 220
    assert meter.watt_hours() == pytest.approx(0.3)


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    assert EnergyMeter(tmp_path).watt_hours() is None


def test_a_gpu_through_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = [5_000]  # millijoules
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: used[0],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = EnergyMeter(tmp_path, cuda=0)
    used[0] += 7_200_000
    assert meter.watt_hours() == pytest.approx(2.0)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter(tmp_path, cuda=0).watt_hours() is None
