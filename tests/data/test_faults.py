from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from genseg_monai.data import Fingerprint, take_fingerprint
from genseg_monai.data.facts import look_at_all
from genseg_monai.data.fault import FaultKind, Severity
from genseg_monai.data.faults import Fault, find_faults
from genseg_monai.data.layouts import read_layout
from tests.data.sets import picture, pictures, splits, volume, volumes


def kinds(faults: list[Fault]) -> list[str]:
    return [str(fault.kind) for fault in faults]


def test_a_good_set_has_none(tmp_path: Path) -> None:
    assert find_faults(pictures(tmp_path / "a")) == []
    assert find_faults(volumes(tmp_path / "b", 6)) == []


def test_all_faults_are_listed_at_once_errors_first(tmp_path: Path) -> None:
    root = pictures(tmp_path, 9)
    (root / "images" / "c0.png").write_bytes(b"torn")
    picture(root / "masks" / "c1.png", np.zeros((5, 5), np.uint8))
    picture(root / "masks" / "c2.png", np.zeros((20, 24), np.uint8))
    shutil.copy(root / "images" / "c3.png", root / "images" / "c4.png")
    (root / "masks" / "c5.png").unlink()
    (root / "images" / "c6.png").unlink()
    picture(root / "images" / "c7.png", np.full((20, 24), 7, np.uint8))
    (root / "cases.csv").write_text("case,group\nc1,P\nc2,P\n")
    splits(root, train=["c0", "c1", "c9"], val=["c2", "c0"])
    faults = find_faults(root)
    assert Counter(kinds(faults)) == {
        "unreadable": 1, "size": 1, "empty mask": 2, "duplicate": 1, "unpaired": 2, "constant image": 1, "splits": 3,
    }  # fmt: skip
    errors = [fault.severity is Severity.ERROR for fault in faults]
    assert errors == sorted(errors, reverse=True)
    assert all("\n" not in str(fault) and fault.where in str(fault) for fault in faults)
    text = "\n".join(map(str, faults))
    assert "wanted the size of its image, 20 x 24, got 5 x 5; draw it on the image" in text
    assert "got 'c9' in train, not among them" in text
    assert "got 'c0' in train and val" in text
    assert "got 'P' in train, val" in text
    assert "got the pixels of c3.png again" in text


def test_a_folder_of_no_layout_is_one_fault(tmp_path: Path) -> None:
    assert kinds(find_faults(tmp_path)) == ["layout"]


def test_label_values(tmp_path: Path) -> None:
    root = pictures(tmp_path, 6)
    odd = np.zeros((20, 24), np.uint8)
    odd[3:9, 3:9], odd[10:12] = 255, 3
    picture(root / "masks" / "c1.png", odd)
    assert kinds(find_faults(root, label_values={0: 0, 255: 1})) == ["label values"]
    assert kinds(find_faults(root, label_values={0: 0, 3: 1, 255: 1})) == []
    rare = pictures(tmp_path / "many", 30)
    picture(rare / "masks" / "c1.png", odd)
    faults = find_faults(rare)
    assert [(fault.kind, fault.severity) for fault in faults] == [(FaultKind.LABEL_VALUES, Severity.WARNING)]
    assert "got 3, which 1 of 30 labels have" in str(faults[0])
    volume(root / "masks" / "c2.nii", np.full((20, 24), 0.5))
    (root / "masks" / "c2.png").unlink()
    assert "wanted whole label values from 0 on, got 0.5" in "\n".join(map(str, find_faults(root)))


def test_image_and_label_must_share_a_place(tmp_path: Path) -> None:
    volumes(tmp_path, 6)
    label = np.zeros((10, 12, 8), np.uint8)
    label[2:4, 2:4, 2:4] = 1
    volume(tmp_path / "labelsTr" / "v0.nii.gz", label, np.diag([2.0, 2, 5, 1]))
    faults = find_faults(tmp_path)
    assert kinds(faults) == ["place"]
    assert "got one 2 mm away" in str(faults[0])


def test_one_kind_of_image(tmp_path: Path) -> None:
    root = pictures(tmp_path, 8)
    picture(root / "images" / "c1.png", np.random.default_rng(1).integers(0, 255, (20, 24, 3), dtype=np.uint8))
    (root / "images" / "c2.png").unlink()
    (root / "masks" / "c2.png").unlink()
    for kind in ("images", "masks"):
        volume(
            root / kind / "c2.nii",
            np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16) % (2 if kind == "masks" else 99),
        )
    faults = find_faults(root)
    assert kinds(faults) == ["channels", "channels"]
    assert [fault.severity for fault in faults] == [Severity.ERROR, Severity.WARNING]


def test_too_few(tmp_path: Path) -> None:
    few = find_faults(pictures(tmp_path / "a", 3))
    assert [(fault.kind, fault.severity) for fault in few] == [
        (FaultKind.TOO_FEW, Severity.ERROR),
        (FaultKind.TOO_FEW, Severity.WARNING),
    ]
    four = find_faults(pictures(tmp_path / "b", 4))
    assert [fault.severity for fault in four] == [Severity.WARNING]
    one = pictures(tmp_path / "c", 6)
    (one / "cases.csv").write_text("case,group\n" + "".join(f"c{i},P\n" for i in range(6)))
    assert "wanted training cases of at least 2 patients, got 1" in str(find_faults(one)[0])


def test_a_twin_across_splits_is_told(tmp_path: Path) -> None:
    root = splits(pictures(tmp_path, 6), train=["c0", "c1", "c2", "c3"], val=["c4"], test=["c5"])
    shutil.copy(root / "images" / "c0.png", root / "images" / "c5.png")
    assert "got the pixels of c0.png again, in test and train" in str(find_faults(root)[0])


def take(root: Path) -> Fingerprint:
    return take_fingerprint(look_at_all(read_layout(root).cases))


def test_the_fingerprint_is_what_numpy_says(tmp_path: Path) -> None:
    root = pictures(tmp_path, 5)
    taken = take(root)
    from PIL import Image

    images = np.stack([np.asarray(Image.open(p)) for p in sorted((root / "images").iterdir())])
    masks = np.stack([np.asarray(Image.open(p)) for p in sorted((root / "masks").iterdir())])
    np.testing.assert_allclose(taken.intensities, np.percentile(images, [0, 0.5, 50, 99.5, 100]))
    np.testing.assert_allclose(taken.foreground, np.percentile(images[masks > 0], [0, 0.5, 50, 99.5, 100]))
    assert taken.values == {0: (masks == 0).mean(), 255: (masks > 0).mean()}
    assert taken.cases_with == {0: 5, 255: 5}
    assert (taken.channels, taken.dtypes, taken.spacing, taken.pictures) == ({1: 5}, {"uint8": 5}, None, True)
    assert json.loads(json.dumps(taken.as_dict()))["cases"] == 5


def test_the_sample_of_a_large_image_is_fair() -> None:
    from genseg_monai.data.facts import _sample

    random = np.random.default_rng(0)
    array = random.normal(size=(1, 400, 512)) + np.linspace(0, 5, 512)
    got, whole = _sample(array), array.ravel()
    assert len(got) <= 20_000
    np.testing.assert_allclose(np.percentile(got, [1, 50, 99]), np.percentile(whole, [1, 50, 99]), atol=0.15)
    assert _sample(np.array([np.nan, 1.0, np.inf])).tolist() == [1.0]


@pytest.mark.parametrize(
    ("name", "label_dir", "expected"),
    [
        ("fuseg", None, {"empty mask": 6, "duplicate": 1}),
        ("jsrt", "masks_multiclass", {}),
        ("busi", None, {"empty mask": 10}),
        ("wbc1", None, {"duplicate": 1}),
        ("hippocampus_3d", None, {}),
        ("odd_3d", None, {}),
    ],
)
def test_the_faults_of_real_sets(real_data: Path, name: str, label_dir: str | None, expected: dict[str, int]) -> None:
    faults = find_faults(real_data / name, label_dir=label_dir)
    assert Counter(kinds(faults)) == expected
    assert not [fault for fault in faults if fault.severity is Severity.ERROR]
