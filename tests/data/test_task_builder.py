from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from genseg_monai.__main__ import main
from genseg_monai.data.cases import find_cases
from genseg_monai.data.task_builder import PlaneSettings, build_tasks, read_tasks
from genseg_monai.errors import UserError
from tests.data.sets import pictures, splits, volume, volumes

SMALL = PlaneSettings(size=32)


def test_pictures(tmp_path: Path) -> None:
    [row] = build_tasks([pictures(tmp_path / "feet")], tmp_path / "out", SMALL)
    assert (row.name, row.dataset, row.modality, row.label) == (
        "feet/picture/foreground",
        "feet",
        "picture",
        "foreground",
    )
    assert (row.entries, row.subjects, row.axis, row.subset) == (6, 6, "", "")
    [task] = read_tasks(tmp_path / "out")
    assert task.images.shape == task.labels.shape == (6, 1, 32, 32)
    assert task.labels.unique().tolist() == [0, 1]
    assert float(task.images.max()) <= 1
    assert task.groups[:2] == ("feet-0000", "feet-0001")
    # 20 x 24 pixels enlarged by 32 / 24: the label of c0 is 5 x 3 pixels
    assert int(task.labels[0].sum()) == pytest.approx(5 * 3 * (32 / 24) ** 2, abs=6)


def test_volumes_give_a_task_an_axis_plane_and_label(tmp_path: Path) -> None:
    rows = build_tasks([volumes(tmp_path / "ct")], tmp_path / "out", SMALL)
    assert {(row.axis, row.subset, row.label) for row in rows} >= {
        (axis, "largest", label) for axis in "xyz" for label in ("liver", "tumour")
    }
    assert all(row.entries == row.subjects == 5 for row in rows if row.subset == "largest")
    # the middle along x, 5 of 10, lies between the objects; along y, 6 of 12, behind them
    assert not [row for row in rows if row.subset == "middle" and row.axis in "xy"]
    tasks = {task.path[1:]: task for task in read_tasks(tmp_path / "out")}
    assert len(tasks) == len(rows)
    liver = tasks["largest", "MR", "z", "liver"]
    # an axial plane is 12 x 10 voxels of 2 mm; the label 3 x 3
    assert int(liver.labels[0].sum()) == pytest.approx(9 * (32 / 12) ** 2, abs=16)
    assert len(set(liver.groups)) == 5


def test_the_largest_plane(tmp_path: Path) -> None:
    for i in range(2):
        label, image = np.zeros((16, 16, 6), np.uint8), np.full((16, 16, 6), -900, np.int16)
        label[2:14, 2:14, 4], label[6:9, 6:9, 3], image[..., 4], image[0] = 1, 1, 250 + i, 1500
        volume(tmp_path / "d" / "imagesTr" / f"v{i}.nii.gz", image)
        volume(tmp_path / "d" / "labelsTr" / f"v{i}.nii.gz", label)
    build_tasks([tmp_path / "d"], tmp_path / "out", PlaneSettings(size=16))
    tasks = {(task.axis, task.subset): task for task in read_tasks(tmp_path / "out")}
    assert int(tasks["z", "largest"].labels[0].sum()) == 144
    assert int(tasks["z", "middle"].labels[0].sum()) == 9
    # CT: -500 to 1000 HU become 0 to 1
    torch.testing.assert_close(tasks["z", "largest"].images[0, 0, 5, 5], torch.tensor(0.5), atol=0.01, rtol=0)
    assert float(tasks["z", "middle"].images[0, 0, 5, 5]) == 0


def test_only_the_training_split_and_no_names(tmp_path: Path) -> None:
    root = splits(pictures(tmp_path / "d"), train=["c0", "c1", "Brown"], test=["c2"])
    for file in list(root.glob("*/c4.*")):
        file.rename(file.with_stem("Brown"))
    (root / "cases.csv").write_text("case,group\nc0,Miller^Anna\nc1,Miller^Anna\nBrown,Jones\n")
    [row] = build_tasks([root], tmp_path / "out", SMALL)
    assert (row.entries, row.subjects) == (3, 2)
    [task] = read_tasks(tmp_path / "out")
    assert task.groups[0] == task.groups[1] != task.groups[2]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for secret in (b"Miller", b"Jones", b"Brown"):
        assert not [file for file in files if secret in file.read_bytes() or secret in file.name.encode()]


def test_built_once_and_again_after_a_change(tmp_path: Path) -> None:
    root, out = pictures(tmp_path / "d"), tmp_path / "out"
    other = pictures(tmp_path / "e", 3)
    build_tasks([root], out, SMALL)
    build_tasks([other], out, SMALL)
    with (out / "tasks.csv").open() as file:
        assert [row["dataset"] for row in csv.DictReader(file)] == ["d", "e"]
    made = (out / "d" / "0000.npz").stat().st_mtime_ns
    build_tasks([root], out, SMALL)
    assert (out / "d" / "0000.npz").stat().st_mtime_ns == made
    path = Path(find_cases(root)[0]["image"])
    os.utime(path, ns=(1, 1))
    build_tasks([root], out, SMALL)
    again = (out / "d" / "0000.npz").stat().st_mtime_ns
    assert again != made
    [row] = build_tasks([root], out, PlaneSettings(size=48))
    assert [task.images.shape[-1] for task in read_tasks(out)] == [48, 32]
    splits(root, train=["c0", "c1"])
    assert build_tasks([root], out, SMALL)[0].entries == 2
    assert not list(out.glob(".draft*"))


def test_a_folder_of_data_sets(tmp_path: Path) -> None:
    splits(pictures(tmp_path / "all" / "a", 3), train=["c0", "c1"])
    volumes(tmp_path / "all" / "b", 2)
    (tmp_path / "all" / "notes").mkdir()
    assert {row.dataset for row in build_tasks([tmp_path / "all"], tmp_path / "out", SMALL)} == {"a", "b"}


def test_a_broken_label_is_told_and_the_tasks_of_before_stay(tmp_path: Path) -> None:
    root = pictures(tmp_path / "d")
    build_tasks([root], tmp_path / "out", SMALL)
    label = root / "masks" / "c2.png"
    label.write_bytes(label.read_bytes()[:60])
    with pytest.raises(UserError, match=r"c2.png: wanted an image, it cannot be read"):
        build_tasks([root], tmp_path / "out", SMALL)
    assert len(read_tasks(tmp_path / "out")) == 1, "those of before"


def test_what_cannot_be_built(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="an empty folder"):
        build_tasks([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(UserError, match="wanted a folder of tasks, it has no tasks.csv"):
        read_tasks(tmp_path / "empty")
    with pytest.raises(UserError, match="labels that two cases or more share"):
        build_tasks([pictures(tmp_path / "one", 1)], tmp_path / "out")
    with pytest.raises(UserError, match="data sets of different names, got 'a' twice"):
        build_tasks([pictures(tmp_path / "a", 2), pictures(tmp_path / "x" / "a", 2)], tmp_path / "out")
    with pytest.raises(UserError, match="window: wanted two intensities in HU, the lower first"):
        PlaneSettings(window=(3, 1))
    assert not (tmp_path / "out" / "tasks.csv").exists()


@pytest.mark.parametrize("there", ["the data", "a folder", "a file", "half"])
def test_what_is_no_folder_of_tasks_is_never_removed(tmp_path: Path, there: str) -> None:
    root = pictures(tmp_path / "wbc")
    out = tmp_path if there == "the data" else tmp_path / "out"
    out.mkdir(exist_ok=True)
    if there == "a file":
        (out / "wbc").write_text("mine")
    elif there != "the data":
        (out / "wbc").mkdir()
        (out / "wbc" / ("key" if there == "half" else "notes.txt")).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="wbc: wanted a place for tasks, something else is there; give another --out"):
        build_tasks([root], out, SMALL)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_listing_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tasks.csv").write_text("who,what\nAnna,mow the lawn\n")
    with pytest.raises(UserError, match="tasks.csv: wanted the listing of tasks"):
        build_tasks([pictures(tmp_path / "d")], tmp_path / "out", SMALL)
    assert "mow the lawn" in (tmp_path / "out" / "tasks.csv").read_text()


def test_a_damaged_task(tmp_path: Path) -> None:
    build_tasks([pictures(tmp_path / "d")], tmp_path / "out", SMALL)
    (tmp_path / "out" / "d" / "0000.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match="0000.npz: wanted a task, cannot read it"):
        read_tasks(tmp_path / "out")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = pictures(tmp_path / "d"), tmp_path / "out"
    assert main(["tasks", str(root), "--out", str(out), "--size", "32"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1].split() == ["d/picture/foreground", "6", "6"]
    assert told[-1] == f"1 tasks in {out / 'tasks.csv'}"
    assert main(["tasks", str(root), "--out", str(out), "--window", "5"]) == 2
    assert "--window: wanted LOWER,UPPER in HU" in capsys.readouterr().err
    assert main(["tasks", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert "wanted a data set, there is no such file or folder" in capsys.readouterr().err
