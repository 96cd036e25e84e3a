from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from genseg_monai.data import find_cases, find_images
from genseg_monai.data.cases import data_folder, list_cases
from genseg_monai.errors import UserError
from tests.data.sets import picture, pictures, volumes


def names(cases: list[dict]) -> list[str]:
    return [case["case"] for case in cases]


@pytest.mark.parametrize("folder", ["masks", "labels"])
def test_equal_stems_pair(tmp_path: Path, folder: str) -> None:
    cases = find_cases(pictures(tmp_path, 3, masks=folder))
    assert names(cases) == ["c0", "c1", "c2"]
    assert cases[1] == {
        "image": str(tmp_path / "images" / "c1.png"),
        "label": str(tmp_path / folder / "c1.png"),
        "case": "c1",
        "group": "c1",
    }


def test_label_dir_names_the_folder_of_masks(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    shutil.copytree(tmp_path / "masks", tmp_path / "masks_multiclass")
    assert Path(find_cases(tmp_path, label_dir="masks_multiclass")[0]["label"]).parent.name == "masks_multiclass"
    with pytest.raises(UserError, match="wanted the folder nothing beside images/"):
        find_cases(tmp_path, label_dir="nothing")


def test_decathlon_is_read_by_its_list(tmp_path: Path) -> None:
    volumes(tmp_path, 3)
    (tmp_path / "imagesTr" / "._v0.nii.gz").write_bytes(b"left by a Mac")
    cases = find_cases(tmp_path)
    assert names(cases) == ["v0", "v1", "v2"]
    assert cases[0]["image"] == str(tmp_path / "imagesTr" / "v0.nii.gz")


@pytest.mark.parametrize("listed", [False, True])
def test_nnunet_channels_are_joined(tmp_path: Path, listed: bool) -> None:
    volumes(tmp_path, 3, channels=2, listed=False)
    if listed:  # the second version of nnU-Net describes but does not list
        (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1"}, "labels": {"background": 0}}))
    case = find_cases(tmp_path)[0]
    assert case["case"] == "v0"
    assert [Path(p).name for p in case["image"]] == ["v0_0000.nii.gz", "v0_0001.nii.gz"]


def test_the_first_nnunet_lists_images_without_their_channel(tmp_path: Path) -> None:
    volumes(tmp_path, 2, channels=1, listed=False)
    pairs = [{"image": f"./imagesTr/v{i}.nii.gz", "label": f"./labelsTr/v{i}.nii.gz"} for i in range(2)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": pairs}))
    assert Path(find_cases(tmp_path)[1]["image"]).name == "v1_0000.nii.gz"


def test_labelled_test_folders_are_marked(tmp_path: Path) -> None:
    volumes(tmp_path, 4, listed=False)
    for kind in ("images", "labels"):
        (tmp_path / f"{kind}Ts").mkdir()
        (tmp_path / f"{kind}Tr" / "v3.nii.gz").rename(tmp_path / f"{kind}Ts" / "v3.nii.gz")
    assert [case.get("split") for case in find_cases(tmp_path)] == [None, None, None, "test"]


def test_a_datalist_gives_paths_sections_and_groups(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    entry = {f"c{i}": {"image": f"images/c{i}.png", "label": f"masks/c{i}.png"} for i in range(3)}
    content = {
        "training": [entry["c0"] | {"patient": "P"}, entry["c1"]],
        "validation": [entry["c2"]],
        "testing": ["x.png"],
    }
    (tmp_path / "list.json").write_text(json.dumps(content))
    cases = find_cases(tmp_path / "list.json")
    assert [(case["case"], case["group"], case.get("split")) for case in cases] == [
        ("c0", "P", None),
        ("c1", "c1", None),
        ("c2", "c2", "val"),
    ]


def test_cases_csv_gives_groups_or_the_whole_list(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    table = tmp_path / "cases.csv"
    table.write_text("case,group\nc0,1E5\nc1,1E5\nc2,\n")
    assert [case["group"] for case in find_cases(tmp_path)] == ["1E5", "1E5", "c2"]
    table.write_text("case,group,image,label\none,p,images/c2.png,masks/c2.png\nbare,q,images/c1.png,\n")
    cases = find_cases(tmp_path)
    assert [(case["case"], case["group"]) for case in cases] == [("one", "p")]
    assert [path.name for path in list_cases(tmp_path).unlabelled] == ["c1.png"]


def test_what_belongs_to_nothing_is_counted_not_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path, 3)
    (tmp_path / "masks" / "c1.png").unlink()
    picture(tmp_path / "masks" / "lonely.png", np.zeros((4, 4), np.uint8))
    with caplog.at_level("INFO"):
        assert names(find_cases(tmp_path)) == ["c0", "c2"]
    assert "1 images without a label" in caplog.text
    assert "c1" not in caplog.text
    assert "lonely" not in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "wanted images/ with masks/ or labels/.*got an empty folder"),
        (lambda root: (root / "images").mkdir(), "wanted the folder masks/ or labels/ beside images/"),
        (lambda root: picture(root / "scan.png", np.zeros((4, 4), np.uint8)), "got scan.png; arrange the files so"),
        (lambda root: (root / "dataset.json").write_text("{"), "wanted JSON, it cannot be read"),
        (lambda root: (root / "cases.csv").write_text("a,b\n1,2\n"), "wanted the columns case,group"),
        (lambda root: (pictures(root, 1), (root / "masks" / "c0.png").rename(root / "masks" / "c0_drawn.png")),
         r"got no pair \(seen: c0 and c0_drawn\)"),
        (lambda root: (pictures(root, 1), picture(root / "images" / "c0.jpg", np.zeros((4, 4), np.uint8))),
         "wanted one image a case, got c0.png too"),
        (lambda root: (pictures(root, 1), picture(root / "masks" / "c0.bmp", np.zeros((4, 4), np.uint8))),
         "wanted one label a case, got c0.bmp too"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_in_one_line(tmp_path: Path, make, message: str) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        find_cases(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_path_to_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got nothing there"):
        find_cases(tmp_path / "none")
    with pytest.raises(UserError, match="there is nothing"):
        find_images(tmp_path / "none")


def test_a_listed_file_that_is_not_there_is_an_orphan(tmp_path: Path) -> None:
    volumes(tmp_path, 3)
    (tmp_path / "labelsTr" / "v1.nii.gz").unlink()
    listing = list_cases(tmp_path)
    assert names(listing.cases) == ["v0", "v2"]
    assert [path.name for path in listing.orphans] == ["v1.nii.gz"]


def test_phantoms_are_drawn_once_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSEG_CACHE", str(tmp_path))
    first = data_folder("phantom://2d?cases=3&size=32")
    drawn = first.stat().st_mtime_ns
    assert data_folder("phantom://2d?size=32&cases=3") == first
    assert first.stat().st_mtime_ns == drawn
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert len(find_cases("phantom://3d?cases=3&size=32")) == 3
    for wrong in ("phantom://4d", "phantom://2d?colour=1", "phantom://2d?cases=many", "phantom://2d?cases=1"):
        with pytest.raises(UserError, match="phantom://"):
            data_folder(wrong)


def test_images_to_predict_are_found_in_every_form(tmp_path: Path) -> None:
    pictures(tmp_path / "set", 2)
    assert names(find_images(tmp_path / "set" / "images" / "c1.png")) == ["c1"]
    assert names(find_images(tmp_path / "set" / "images")) == ["c0", "c1"]
    assert names(find_images(tmp_path / "set")) == ["c0", "c1"]  # the masks are no images
    volumes(tmp_path / "nn", 2, channels=2, listed=False)
    found = find_images(tmp_path / "nn")
    assert names(found) == ["v0", "v1"]
    assert len(found[0]["image"]) == 2
    found = find_images(tmp_path / "nn" / "imagesTr", channels=2)
    assert names(found) == ["v0", "v1"]
    with pytest.raises(UserError, match="wanted 3 files of 'v0', got 2"):
        find_images(tmp_path / "nn", channels=3)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="got another kind of file"):
        find_images(tmp_path / "notes.txt")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="got none of them"):
        find_images(tmp_path / "bare")


def test_numbered_pictures_are_not_channels(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"IMG_000{i}.png", np.zeros((4, 4), np.uint8))
    assert len(find_images(tmp_path)) == 3


def test_series_folders_are_found(real_data: Path) -> None:
    dicom = real_data / "dicom"
    one = find_images(dicom / "ct_liver_3slice_series")
    assert one[0]["image"] == str(dicom / "ct_liver_3slice_series")
    tree = names(find_images(dicom / "dicomdir_tree"))
    assert {"CR1", "CT5N", "MR1_1", "MR1_2", "MR1_3"} <= set(tree)  # MR1 holds three series
    assert len(set(tree)) == len(tree)
    with pytest.raises(UserError, match="got none of them"):
        find_images(dicom / "ct_liver_3slice_seg")  # a segmentation is no image


@pytest.mark.parametrize(
    ("name", "label_dir", "count"),
    [
        ("fuseg", None, 250),
        ("jsrt", "masks_multiclass", 150),
        ("busi", None, 60),
        ("wbc1", None, 300),
        ("hippocampus_3d", None, 60),
        ("odd_3d", None, 3),
    ],
)
def test_real_sets_pair_completely(real_data: Path, name: str, label_dir: str | None, count: int) -> None:
    listing = list_cases(real_data / name, label_dir)
    assert (len(listing.cases), listing.orphans, listing.unlabelled) == (count, [], [])
