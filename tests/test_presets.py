"""Every preset: its promise, its ids, and that a trainer is built with it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from monai.bundle import ConfigParser
from PIL import Image

from genseg_monai.apps.train import check_ids, config_files
from genseg_monai.engines.estimate import parse_budget
from tests.data.sets import pictures

ROOT = Path(__file__).resolve().parent.parent
# the other presets are for other configs of the bundle
TASKS = sorted(p.stem for p in (ROOT / "configs").glob("*.yaml") if not p.stem.startswith("universeg"))
PAPER = {
    *("skin_isic", "lungs", "polyps_cvc", "polyps_kvasir", "wound_fuseg", "breast_busi", "fluid_icfluid"),
    *("vessels_fetreg", "hippocampus_3d", "liver_3d"),
}


def text(name: str) -> str:
    return (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8")


def test_the_papers_tasks_are_there() -> None:
    assert set(TASKS) >= PAPER


@pytest.mark.parametrize("name", TASKS)
def test_the_head_is_a_promise(name: str) -> None:
    lines = text(name).splitlines()
    head = [line for line in lines if line.startswith("#") and "_target_" not in line]
    assert 15 <= len(lines) <= 40
    told = " ".join(head)
    for word in ("Data:", "Split:", "Expected Dice:", f"train --preset {name} --data"):
        assert word in told, word
    if name in PAPER:
        assert re.search(r"[Tt]ime(,| and) memory:", told)
        assert f"study --preset {name} --data" in told


@pytest.mark.parametrize("name", TASKS)
def test_its_commands_can_be_typed(name: str) -> None:
    joined = re.sub(r"\\\n#", " ", text(name))
    commands = re.findall(r"^# +python -m genseg_monai (.*)$", joined, flags=re.MULTILINE)
    assert commands
    for command in commands:
        words = shlex.split(command)
        given = dict(zip(words[1::2], words[2::2], strict=True))
        assert words[0] in ("train", "study")
        assert given["--preset"] == name
        assert {"--data", "--out"} <= set(given)
        if "--budget" in given:
            assert parse_budget(given["--budget"]) > 0


@pytest.mark.parametrize("name", TASKS)
def test_its_ids_are_those_of_the_training(name: str) -> None:
    held = yaml.safe_load(text(name))
    check_ids(config_files(), dict.fromkeys(held, ""))
    for key in ("warp_ranges", "augment"):
        if key in held:
            assert held[key]["_target_"].startswith("genseg_monai.transforms.")
    assert all(side % 16 == 0 for side in held["size"])
    values = held.get("label_values", {0: 0, 1: 1})
    if isinstance(values, str):
        values = ConfigParser({"label_values": values}).get_parsed_content("label_values")
    assert sorted(set(values.values())) == [0, 1]


def test_the_jpeg_masks_of_kvasir(tmp_path: Path) -> None:
    pictures(tmp_path, 8, size=(64, 64))
    for path in sorted((tmp_path / "masks").iterdir()):
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"), quality=75)
        path.unlink()
    parser = ConfigParser()
    parser.read_config([str(path) for path in config_files("polyps_kvasir")])
    parser["dataset_dir"], parser["size"] = str(tmp_path), [32, 32]
    plan = parser.get_parsed_content("plan")
    assert plan["classes"] == ["background", "foreground"]
    case = parser.get_parsed_content("train#dataset")[0]
    assert case["label"].unique().tolist() == [0, 1]
