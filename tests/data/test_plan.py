from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from genseg_monai.data import Plan, find_cases, propose_plan, read_splits
from genseg_monai.errors import UserError
from tests.data.sets import picture, pictures, volume, volumes

PLAN = Plan(classes=("background", "lesion"), label_values={0: 0, 255: 1}, size=(64, 48))


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        Plan(
            spatial_dims=3, in_channels=2, classes=("background", "a", "b"), label_values={0: 0, 5: 1, 6: 1, 7: 2},
            size=(48, 64, 48), spacing=(1.0, 1.0, 2.5), normalisation="window", lower=-160, upper=240, modality="CT",
        ),
    ],
)  # fmt: skip
def test_a_plan_survives_yaml(plan: Plan) -> None:
    assert Plan.from_dict(yaml.safe_load(yaml.safe_dump(plan.as_dict()))) == plan
    as_text = plan.as_dict() | {"label_values": {str(raw): i for raw, i in plan.label_values.items()}}
    assert Plan.from_dict(as_text) == plan  # an override typed on the command line has text keys


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [60, 64]}, "plan: size: wanted 2 multiples of 16, got"),
        ({"size": [64]}, "plan: size"),
        ({"spatial_dims": 4}, "wanted 2 or 3, got 4"),
        ({"classes": ["background"]}, "wanted background and at least one more"),
        ({"label_values": {0: 0, 255: 2}}, "plan: label_values"),
        ({"lower": 9, "upper": 1}, "wanted lower < upper"),
        ({"normalisation": "magic"}, "got one of another kind"),
        ({"spacing": [1, -1]}, "plan: spacing"),
        ({"colour": 1}, "got colour besides"),
    ],
)
def test_a_wrong_plan_is_told(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Plan.from_dict(PLAN.as_dict() | change)
    with pytest.raises(UserError, match="got no classes"):
        Plan.from_dict({"size": [64, 64], "label_values": {0: 0}})


def test_pictures_are_shrunk_to_fit(tmp_path: Path) -> None:
    cases = find_cases(pictures(tmp_path, 4, size=(300, 200)))
    plan = propose_plan(cases)
    assert (plan.size, plan.spacing, plan.in_channels) == ((128, 96), None, 1)
    assert (plan.normalisation, plan.lower, plan.upper) == ("range", 0, 255)
    assert propose_plan(cases, device="cuda").size == (256, 176)
    assert propose_plan(cases, size=(60, 70)).size == (64, 80)
    with pytest.raises(UserError, match="wanted 2 positive numbers"):
        propose_plan(cases, size=(64, 64, 64))


def test_image_and_label_are_enough(tmp_path: Path) -> None:
    cases = [{"image": c["image"], "label": c["label"]} for c in find_cases(pictures(tmp_path, 4))]
    assert propose_plan(cases).label_values == {0: 0, 255: 1}


def test_names_come_from_the_data_set(tmp_path: Path) -> None:
    plan = propose_plan(find_cases(volumes(tmp_path)))
    assert plan.classes == ("background", "liver", "tumour")
    assert (plan.modality, plan.normalisation) == ("MR", "percentile")
    assert (plan.size, plan.spacing) == ((32, 32, 32), (2.0, 2.0, 3.0))


def test_axes_are_counted_in_patient_order(tmp_path: Path) -> None:
    stored = np.array([[0, 0, 1.0, 0], [2.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 0, 1]])  # axes: front, head, right
    plan = propose_plan(find_cases(volumes(tmp_path, affine=stored)))
    assert plan.spacing == (1.0, 2.0, 4.0)
    volume(tmp_path / "imagesTr" / "v0.nii.gz", np.zeros((40, 12, 8)), stored)
    volume(tmp_path / "labelsTr" / "v0.nii.gz", np.eye(40, 12, dtype=np.uint8)[..., None].repeat(8, -1), stored)
    assert propose_plan(find_cases(tmp_path)).size == (32, 48, 32)


def test_a_volume_too_large_gets_coarser_finest_axes_first(tmp_path: Path) -> None:
    for i in range(2):
        volume(tmp_path / "images" / f"{i}.nii", np.arange(256 * 256 * 4, dtype=np.float32).reshape(256, 256, 4),
               np.diag([0.5, 0.5, 6, 1]))  # fmt: skip
        volume(
            tmp_path / "masks" / f"{i}.nii",
            np.indices((256, 256, 4), dtype=np.uint8).sum(0, dtype=np.uint8) % 2,
            np.diag([0.5, 0.5, 6, 1]),
        )
    plan = propose_plan(find_cases(tmp_path))
    assert (plan.size, plan.spacing) == ((64, 64, 32), (2.0, 2.0, 6.0))
    assert propose_plan(find_cases(tmp_path), device="cuda").size == (128, 128, 32)


def test_ct_gets_a_window(tmp_path: Path) -> None:
    cases = find_cases("phantom://3d?cases=3&size=32")
    plan = propose_plan(cases)
    assert (plan.normalisation, plan.lower, plan.upper, plan.modality) == ("window", -160, 240, "CT")
    assert propose_plan(cases, modality="MR").normalisation == "percentile"
    bare = [{"image": c["image"], "label": c["label"]} for c in cases]
    for case in bare:  # away from dataset.json: air tells
        image = tmp_path / Path(case["image"]).name
        image.write_bytes(Path(case["image"]).read_bytes())
        label = tmp_path / "x" / "y" / image.name
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_bytes(Path(case["label"]).read_bytes())
        case |= {"image": str(image), "label": str(label)}
    assert propose_plan(bare).modality == "CT"


def test_deep_pictures_go_by_percentiles(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    for i in range(2):
        picture(tmp_path / "images" / f"c{i}.png", np.arange(480, dtype=np.uint16).reshape(20, 24) * 9)
    plan = propose_plan(find_cases(tmp_path))
    assert (plan.normalisation, plan.lower, plan.upper) == ("percentile", 0.5, 99.5)


def test_masks_saved_as_jpeg_need_explaining(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    for path in sorted((tmp_path / "masks").iterdir()):
        Image.open(path).save(path.with_suffix(".jpg"), quality=60)
        path.unlink()
    cases = find_cases(tmp_path)
    with pytest.raises(UserError, match="wanted one value a class, got .* values, as lossy .*; save the masks as PNG"):
        propose_plan(cases)
    values = {value: int(value > 127) for value in range(256)}
    assert propose_plan(cases, label_values=values).classes == ("background", "foreground")


@pytest.mark.parametrize(
    ("values", "label_values", "message"),
    [
        ((0, 0), None, "wanted background and a foreground, got the value 0 alone"),
        ((0, 3, 9), {0: 0, 9: 1}, "wanted a class for every value, got none for 3"),
        ((0, 9), {0: 0, 9: 2}, "wanted class indices 0, 1, ... without gaps"),
    ],
)
def test_label_values_that_do_not_fit(tmp_path: Path, values, label_values, message: str) -> None:
    pictures(tmp_path, 2)
    for path in (tmp_path / "masks").iterdir():
        picture(path, np.resize(np.array(values, np.uint8), (20, 24)))
    with pytest.raises(UserError, match=message):
        propose_plan(find_cases(tmp_path), label_values=label_values)


def test_labels_without_zero_take_the_lowest_for_background(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path, 2)
    for path in (tmp_path / "masks").iterdir():
        picture(path, np.resize(np.array((1, 2), np.uint8), (20, 24)))
    assert propose_plan(find_cases(tmp_path)).label_values == {1: 0, 2: 1}
    assert "1 is taken for the background" in caplog.text


def test_fractions_are_no_classes(tmp_path: Path) -> None:
    volumes(tmp_path, 2)
    volume(tmp_path / "labelsTr" / "v0.nii.gz", np.full((10, 12, 8), 0.5, np.float32), np.diag([2.0, 2, 3, 1]))
    with pytest.raises(UserError, match="wanted whole label values from 0 on, got 0.5"):
        propose_plan(find_cases(tmp_path))


def test_a_broken_case_is_named(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    (tmp_path / "images" / "c1.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"c1.png: wanted an image, it cannot be read"):
        propose_plan(find_cases(tmp_path))
    with pytest.raises(UserError, match="wanted at least one, got none"):
        propose_plan([])


@pytest.mark.parametrize(
    ("name", "label_dir", "expected"),
    [
        ("fuseg", None, {"size": [128, 128], "in_channels": 3, "label_values": {0: 0, 255: 1}}),
        ("jsrt", None, {"size": [128, 128], "in_channels": 1, "classes": ["background", "foreground"]}),
        ("jsrt", "masks_multiclass", {"label_values": {i: i for i in range(6)}}),
        ("wbc1", None, {"size": [128, 128], "label_values": {0: 0, 128: 1, 255: 2}}),
        ("busi", None, {"size": [112, 128], "in_channels": 3}),
        ("hippocampus_3d", None, {"size": [48, 64, 48], "spacing": [1.0] * 3, "normalisation": "percentile",
                                  "classes": ["background", "Anterior", "Posterior"], "modality": "MR"}),
        ("odd_3d", None, {"spatial_dims": 3, "size": [64, 64, 32]}),
    ],
)  # fmt: skip
def test_plans_of_real_sets(real_data: Path, name: str, label_dir: str | None, expected: dict) -> None:
    cases = find_cases(real_data / name, label_dir)
    parts = read_splits(real_data / name, cases)
    plan = propose_plan(parts.train or cases).as_dict()
    assert {key: plan[key] for key in expected} == expected
