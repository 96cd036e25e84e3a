"""The two segmenters of the server: made once, and again when what they rest on has changed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from genseg_monai.apps.label import models
from genseg_monai.apps.label.models import Models
from genseg_monai.errors import UserError
from tests.bundle.tiny import PLAN_3D, make_bundle


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Models, list[str]]:
    """Return the models of a trained bundle, and the devices for which its network is built."""
    built: list[str] = []

    class Counted(models.TrainedSegmenter):
        def __init__(self, bundle: Path, device: str) -> None:
            built.append(device)
            super().__init__(bundle, "cpu")

    monkeypatch.setattr(models, "TrainedSegmenter", Counted)
    make_bundle(tmp_path / "bundle", PLAN_3D)
    return Models(tmp_path / "bundle", list), built


def test_the_network_is_built_once_for_each_device_and_not_for_the_classes(made: tuple[Models, list[str]]) -> None:
    found, built = made
    for _ in range(3):
        for device in ("cuda:0", "cpu"):
            found.trained(device)
            assert found.trained_plan().classes == tuple(PLAN_3D["classes"])
    assert built == ["cuda:0", "cpu"]


def test_a_new_temperature_is_taken(made: tuple[Models, list[str]]) -> None:
    found, built = made
    assert found.trained().temperature == 1
    place = found.bundle / "models" / "calibration"
    place.mkdir()
    (place / "temperature.json").write_text('{"temperature": 2.0}')
    assert found.trained().temperature == 2
    assert len(built) == 2


def test_the_state_changes_with_a_corrected_label(made: tuple[Models, list[str]], tmp_path: Path) -> None:
    label = tmp_path / "label.nii.gz"
    label.write_bytes(b"one")
    found = Models(made[0].bundle, lambda: [{"image": str(label), "label": str(label)}])
    before = found.state()
    assert found.state() == before
    label.write_bytes(b"other")
    assert found.state() != before


class Slow(dict[str, Any]):
    """A dictionary that gives other threads time between what is put in and what is taken out."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        time.sleep(0.002)


def test_each_thread_gets_what_it_asked_for(made: tuple[Models, list[str]]) -> None:
    found, given = made[0], dict[str, Any]()
    found._kept = Slow()
    threads = [
        threading.Thread(
            target=lambda key=f"without case{i}": given.update({key: found._once("shown", key, lambda: key)})
        )
        for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == len(threads)
    assert all(key == got for key, got in given.items())


def test_an_untrained_bundle_has_no_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wanted a trained bundle"):
        Models(models.shipped_bundle(), list).trained_plan()
