from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genseg_monai.apps.check import check
from genseg_monai.errors import UserError
from tests.data.sets import picture, pictures, volumes


def test_a_good_set_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(str(volumes(tmp_path, 6)), forecast=False)
    text = capsys.readouterr().out
    for line in (
        "6 labelled cases of 6 patients",
        "errors: 0, warnings: 0",
        "size: 10 x 12 x 8",
        "spacing: 2 x 2 x 3 mm; axes RAS",
        "label value 2: 1.25 % of voxels, in 6 cases",
        "split: 5 train, 1 validate, 0 test",
        "working size: 32 x 32 x 32, 2 x 2 x 3 mm",
        "classes: 0 background (from 0), 1 liver (from 1), 2 tumour (from 2)",
        "0.5 to 99.5 (% of each image) become 0 to 1; modality MR",
    ):
        assert line in text


def test_errors_are_all_shown_then_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path, 6)
    for i in (1, 2):
        picture(root / "masks" / f"c{i}.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(UserError, match="wanted a data set without errors, got 2, listed above"):
        check(str(root), forecast=False)
    text = capsys.readouterr().out
    assert text.count("error: ") == 2
    assert "errors: 2, warnings: 2" in text
    assert "label value 255" in text


def test_the_flags_of_train_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path, 6, masks="masks_b")
    check(str(root), forecast=False, label_dir="masks_b", size="[32,48]", label_values="{0: 0, 255: 1}")
    assert "working size: 32 x 48" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--labeldir: there is no such id in train.yaml; did you mean label_dir\?"):
        check(str(root), forecast=False, labeldir="masks_b")
    with pytest.raises(UserError, match="--preset: wanted one of"):
        check(str(root), preset="no_such")
    with pytest.raises(UserError, match="wanted images/ with masks/"):
        check(str(tmp_path / "none"))


@pytest.mark.slow
def test_time_and_memory_are_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    """Slow: it builds a whole training from the bundle and takes steps of every phase."""
    small = {"generator_width": "4", "discriminator_width": "4", "batch_size": "2"}
    check("phantom://2d?cases=6&size=32", device="cpu", max_epochs="2", epoch_length="10", **small)
    line = capsys.readouterr().out.splitlines()[-1]
    assert " minutes for 20 steps" in line
    assert " GiB of memory, on this CPU" in line


@pytest.mark.parametrize("name", ["odd_3d", "montgomery"])
def test_sets_for_testing_only(real_data: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    check(str(real_data / name))
    assert "this data set is for testing" in capsys.readouterr().out
