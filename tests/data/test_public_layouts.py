"""Data sets as they are published: tiny folders with the names and suffixes of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genseg_monai.apps.check import check
from genseg_monai.data import find_cases, propose_plan, read_splits
from genseg_monai.data.cases import list_cases
from genseg_monai.data.facts import look_at
from genseg_monai.data.read import CaseReader, LabelReader
from tests.data.sets import picture


def put(root: Path, *paths: str, mask: bool = False, box: tuple[int, int] = (4, 12)) -> None:
    """Draw pictures: noise, or masks with a box in columns ``box``."""
    for number, path in enumerate(paths):
        array = np.random.default_rng(number).integers(0, 200, (24, 20), dtype=np.uint8)
        if mask:
            array = np.zeros((24, 20), np.uint8)
            array[6:16, box[0] : box[1]] = 255
        picture(root / path, array)


def names(found: list[dict[str, Any]]) -> list[str]:
    return [case["case"] for case in found]


def test_isic(tmp_path: Path) -> None:
    for split, numbers in (("Training", "01"), ("Validation", "2"), ("Test_v2", "3")):
        put(tmp_path, *(f"ISIC-2017_{split}_Data/ISIC_000000{n}.jpg" for n in numbers))
        put(tmp_path, *(f"ISIC-2017_{split}_Data/ISIC_000000{n}_superpixels.png" for n in numbers))
        folder = f"ISIC-2017_{split}_Part1_GroundTruth"
        put(tmp_path, *(f"{folder}/ISIC_000000{n}_segmentation.png" for n in numbers), mask=True)
    listing = list_cases(tmp_path)
    assert sorted(names(listing.cases)) == [f"ISIC_000000{n}" for n in range(4)]
    assert listing.unlabelled == listing.orphans == []
    splits = read_splits(tmp_path)
    assert sorted(names(splits.train)) == ["ISIC_0000000", "ISIC_0000001"]
    assert (names(splits.val), names(splits.test)) == (["ISIC_0000002"], ["ISIC_0000003"])


def test_isic_in_two_folders(tmp_path: Path) -> None:
    put(tmp_path, "images/ISIC_0000000.jpg", "images/ISIC_0000001.jpg")
    put(tmp_path, "masks/ISIC_0000000_segmentation.png", "masks/ISIC_0000001_segmentation.png", mask=True)
    assert names(find_cases(tmp_path)) == ["ISIC_0000000", "ISIC_0000001"]


def test_ph2(tmp_path: Path) -> None:
    for name in ("IMD002", "IMD003"):
        place = f"PH2 Dataset images/{name}/{name}"
        put(tmp_path, f"{place}_Dermoscopic_Image/{name}.bmp")
        put(tmp_path, f"{place}_lesion/{name}_lesion.bmp", f"{place}_roi/{name}_R1_Label4.bmp", mask=True)
    listing = list_cases(tmp_path)
    assert names(listing.cases) == ["IMD002", "IMD003"]
    assert listing.cases[0]["label"].endswith("IMD002_lesion.bmp")
    assert listing.unlabelled == []


def test_dermis(tmp_path: Path) -> None:
    for kind in ("melanoma", "notmelanoma"):
        put(tmp_path, f"skin/{kind}/dermis/SSM1_orig.jpg")
        put(tmp_path, f"skin/{kind}/dermis/SSM1_contour.png", mask=True)
    found = find_cases(tmp_path / "skin" / "melanoma")
    assert names(found) == ["SSM1"]


def test_dermis_where_numbers_start_again(tmp_path: Path) -> None:
    for kind in ("melanoma", "notmelanoma"):
        put(tmp_path, f"{kind}/1_orig.jpg", f"{kind}/2_orig.jpg")
        put(tmp_path, f"{kind}/1_contour.png", f"{kind}/2_contour.png", mask=True)
    found = find_cases(tmp_path)
    assert names(found) == ["melanoma_1", "melanoma_2", "notmelanoma_1", "notmelanoma_2"]
    assert all(Path(case["image"]).parent == Path(case["label"]).parent for case in found)


def test_busi(tmp_path: Path) -> None:
    root = tmp_path / "Dataset_BUSI_with_GT"
    for kind in ("benign", "malignant", "normal"):
        put(root, f"{kind}/{kind} (1).png", f"{kind}/{kind} (2).png")
        put(root, f"{kind}/{kind} (1)_mask.png", f"{kind}/{kind} (2)_mask.png", mask=True)
    put(root, "benign/benign (1)_mask_1.png", "benign/benign (1)_mask_2.png", mask=True, box=(14, 18))
    listing = list_cases(tmp_path)  # the folder above is entered
    assert len(listing.cases) == 6
    assert listing.orphans == listing.unlabelled == []
    [several] = [case for case in listing.cases if case["case"] == "benign (1)"]
    assert len(several["label"]) == 3
    reader = LabelReader()
    united, _ = reader.get_data(reader.read(several["label"]))
    assert united.shape == (1, 24, 20)
    assert set(np.unique(united)) == {0, 255}
    assert (united[0, 8] == 255).sum() == 8 + 4
    facts = look_at(several)
    assert not facts.errors
    assert facts.values[255.0] == 10 * 12


def test_buid(tmp_path: Path) -> None:
    for kind in ("Benign", "Malignant"):
        for n in (1, 2):
            put(tmp_path, f"{kind}/{n} {kind} Image.bmp", f"{kind}/{n} {kind} Lesion.bmp")
            put(tmp_path, f"{kind}/{n} {kind} Mask.tif", mask=True)
    listing = list_cases(tmp_path)
    assert names(listing.cases) == ["1 Benign", "2 Benign", "1 Malignant", "2 Malignant"]
    assert listing.unlabelled == listing.orphans == []


def test_cvc_clinicdb(tmp_path: Path) -> None:
    put(tmp_path, *(f"Original/{n}.tif" for n in (1, 2, 3)))
    put(tmp_path, *(f"Ground Truth/{n}.tif" for n in (1, 2, 3)), mask=True)
    (tmp_path / "metadata.csv").write_text("frame_id,sequence_id\n1,1\n2,1\n3,2\n")
    found = find_cases(tmp_path)
    assert names(found) == ["1", "2", "3"]
    assert [case["group"] for case in found] == ["sequence 1", "sequence 1", "sequence 2"]


def test_cvc_clinicdb_in_two_formats(tmp_path: Path) -> None:
    """As Kaggle has it: the same frames as PNG and as TIF, which are no two patients."""
    for form in ("PNG", "TIF"):
        put(tmp_path, *(f"{form}/Original/{n}.{form.lower()}" for n in (1, 2, 3)))
        put(tmp_path, *(f"{form}/Ground Truth/{n}.{form.lower()}" for n in (1, 2, 3)), mask=True)
    (tmp_path / "metadata.csv").write_text("frame_id,sequence_id\n1,1\n2,1\n3,2\n")
    found = find_cases(tmp_path)
    assert names(found) == ["1", "2", "3"]
    assert {Path(case["image"]).suffix for case in found} == {".png"}
    assert [case["group"] for case in found] == ["sequence 1", "sequence 1", "sequence 2"]


def test_kvasir(tmp_path: Path) -> None:
    put(tmp_path, "images/cju0.jpg", "images/cju1.jpg")
    put(tmp_path, "masks/cju0.png", "masks/cju1.png", mask=True)
    assert names(find_cases(tmp_path)) == ["cju0", "cju1"]


def test_fuseg(tmp_path: Path) -> None:
    for split, numbers in (("train", (1, 2)), ("validation", (3,))):
        put(tmp_path, *(f"{split}/images/{n:04d}.png" for n in numbers))
        put(tmp_path, *(f"{split}/labels/{n:04d}.png" for n in numbers), mask=True)
    put(tmp_path, "test/images/0009.png")
    splits = read_splits(tmp_path)
    assert [names(part) for part in (splits.train, splits.val, splits.test)] == [["0001", "0002"], ["0003"], []]


def test_fetreg(tmp_path: Path) -> None:
    for video in ("Video001", "Video002"):
        frames = [f"anon{video[-3:]}_{n}" for n in (1, 2)]
        put(tmp_path, *(f"{video}/images/{frame}.png" for frame in frames))
        put(tmp_path, *(f"{video}/labels/{frame}.png" for frame in frames), mask=True)
    found = find_cases(tmp_path)
    assert [case["group"] for case in found] == ["Video001", "Video001", "Video002", "Video002"]
    assert names(found)[0] == "Video001_anon001_1"


def test_montgomery(tmp_path: Path) -> None:
    put(tmp_path, "CXR_png/MCUCXR_0001_0.png", "CXR_png/MCUCXR_0002_0.png", "CXR_png/MCUCXR_0003_1.png")
    for side, box in (("leftMask", (12, 18)), ("rightMask", (2, 8))):
        put(tmp_path, *(f"ManualMask/{side}/MCUCXR_{n}.png" for n in ("0001_0", "0002_0")), mask=True, box=box)
    put(tmp_path, "ManualMask/leftMask/MCUCXR_0003_1.png", mask=True)
    listing = list_cases(tmp_path)
    assert names(listing.cases) == ["MCUCXR_0001_0", "MCUCXR_0002_0"]
    assert [path.stem for path in listing.unlabelled] == ["MCUCXR_0003_1"]  # one lung is no label
    reader = LabelReader()
    both, _ = reader.get_data(reader.read(listing.cases[0]["label"]))
    assert (both[0, 8] == 255).sum() == 12


def test_shenzhen(tmp_path: Path) -> None:
    put(tmp_path, "CXR_png/CHNCXR_0001_0.png", "CXR_png/CHNCXR_0002_0.png", "CXR_png/CHNCXR_0003_0.png")
    put(tmp_path, "mask/CHNCXR_0001_0_mask.png", "mask/CHNCXR_0002_0_mask.png", mask=True)
    listing = list_cases(tmp_path)
    assert names(listing.cases) == ["CHNCXR_0001_0", "CHNCXR_0002_0"]
    assert len(listing.unlabelled) == 1


def test_jsrt(tmp_path: Path) -> None:
    (tmp_path / "All247images").mkdir()
    raw = np.full((2048, 2048), 4000, dtype=">u2")
    raw[:1024] = 100
    for name in ("JPCLN001", "JPCLN002"):
        raw.tofile(tmp_path / "All247images" / f"{name}.IMG")
    (tmp_path / "All247images" / "readme.img").write_bytes(b"no radiograph")
    for fold, name in (("fold1", "JPCLN001"), ("fold2", "JPCLN002")):
        for lung, columns in (("left lung", slice(600, 900)), ("right lung", slice(100, 400))):
            mask = np.zeros((1024, 1024), np.uint8)
            mask[200:800, columns] = 255
            picture(tmp_path / "scratch" / fold / "masks" / lung / f"{name}.gif", mask)
        picture(tmp_path / "scratch" / fold / "masks" / "heart" / f"{name}.gif", mask)
    found = find_cases(tmp_path)
    assert names(found) == ["JPCLN001", "JPCLN002"]
    reader, labels = CaseReader(), LabelReader()
    image, _ = reader.get_data(reader.read(found[0]["image"]))
    label, _ = labels.get_data(labels.read(found[0]["label"]))
    assert image.shape == label.shape == (1, 1024, 1024)
    assert (image[0, 0, 0], image[0, -1, -1]) == (3995, 95)  # film: what was dark in the file is bright
    assert (label > 0).sum() == 600 * 600
    assert reader.verify_suffix(found[0]["image"])
    assert not reader.verify_suffix(str(tmp_path / "All247images" / "readme.img"))


def test_a_published_set_goes_all_the_way_to_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(1, 8):
        put(tmp_path, f"benign/benign ({n}).png")
        picture(
            tmp_path / f"benign/benign ({n}).png",
            np.random.default_rng(n).integers(0, 255, (24, 20), dtype=np.uint8),
        )
        put(tmp_path, f"benign/benign ({n})_mask.png", mask=True)
    put(tmp_path, "benign/benign (1)_mask_1.png", mask=True, box=(14, 18))
    plan = propose_plan(find_cases(tmp_path))
    assert plan.classes == ("background", "foreground")
    assert plan.label_values == {0: 0, 255: 1}
    assert "error" not in str(check(str(tmp_path))).lower()


def test_other_folders_stay_unknown(tmp_path: Path) -> None:
    put(tmp_path, "photos/a.png", "photos/b.png")
    with pytest.raises(ValueError, match="wanted images/ with masks/ or labels/"):
        find_cases(tmp_path)
