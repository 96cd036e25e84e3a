"""Our own app of MONAI Label with a folder of images: one server, asked as 3D Slicer asks it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from genseg_monai.apps.predict import predict
from genseg_monai.networks.universeg import UniverSeg
from tests.apps.label.server import LabelServer, genseg_label, label_python, quick_bundle, running, write_cases

# one server for all of them, also where the tests are shared out among processes
pytestmark = pytest.mark.xdist_group("label")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("label")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LabelServer]:
    """A server over eight cases, none of them labelled, and an untrained bundle."""
    label_python()
    write_cases(folder / "studies", 8)
    torch.manual_seed(0)
    torch.save(UniverSeg(features=(4, 4, 4, 4)).state_dict(), folder / "universeg.pt")
    more = ("--bundle", str(quick_bundle(folder / "bundle")), "--weights", str(folder / "universeg.pt"))
    with running(genseg_label(str(folder / "studies"), *more), folder) as made:
        yield made


@pytest.fixture(scope="module")
def untrained(server: LabelServer, folder: Path) -> dict[str, object]:
    """What the server answers before the first label, with one label, with two, and with three."""
    told: dict[str, object] = {"info": server.info()}
    told["genseg"], told["universeg"] = server.infer("genseg", "case7"), server.infer("universeg", "case7")
    told["next"] = server.ask("POST", "/activelearning/disagreement", json={}).json()
    told["upload"] = _label(server, folder, 0)
    told["one label"] = server.mask("universeg", "case7", folder / "one.nii.gz")
    _label(server, folder, 1)
    told["two, waited for"] = server.train_and_wait()
    _label(server, folder, 2)
    told["three"], told["three, waited for"] = server.train(), server.train_and_wait()
    told["next after three"] = server.ask("POST", "/activelearning/disagreement", json={}).json()
    told["sure"] = server.ask("POST", "/activelearning/uncertainty", json={}).json()
    return told


@pytest.fixture(scope="module")
def trained(server: LabelServer, folder: Path, untrained: object) -> dict:
    """The status of a training with four labels."""
    _label(server, folder, 3)
    return server.train(budget="", search=False)


def _label(server: LabelServer, folder: Path, i: int) -> dict:
    reply = server.upload(f"case{i}", folder / "studies" / "truth" / f"case{i}.nii.gz")
    assert reply.status_code == 200, reply.text
    return reply.json()


def _predicted(folder: Path, bundle: Path, case: str) -> nibabel.Nifti1Image:
    out = folder / "predicted"
    shutil.rmtree(out, ignore_errors=True)
    predict(bundle=str(bundle), input=str(folder / "studies" / f"{case}.nii.gz"), output=str(out), device="cpu")
    return nibabel.load(out / f"{case}.nii.gz")


def _same(one: nibabel.Nifti1Image, other: nibabel.Nifti1Image) -> None:
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)


def test_what_it_offers(untrained: dict) -> None:
    info = untrained["info"]
    assert list(info["models"]) == ["genseg", "universeg"]
    assert {"disagreement", "uncertainty"} <= set(info["strategies"])
    assert list(info["scoring"]) == ["cases"]
    options = info["trainers"]["genseg"]["config"]
    assert (options["budget"], options["search"], options["segmenter"][0]) == ("", True, "unet_small")
    assert options["max_epochs"] == 1
    assert info["datastore"] == {"total": 8, "completed": 0, "label_tags": {}}


def test_what_cannot_be_done_yet_is_told(untrained: dict) -> None:
    for model, said in (("genseg", "wanted a trained bundle"), ("universeg", "wanted a labelled case")):
        assert untrained[model].status_code == 400
        assert untrained[model].json()["detail"].startswith(f"{model}: {said}")


def test_before_the_first_label_any_case_is_next(untrained: dict) -> None:
    assert untrained["next"]["id"] == "case0"


def test_one_label_is_enough_for_universeg(untrained: dict, folder: Path) -> None:
    image = nibabel.load(folder / "studies" / "case7.nii.gz")
    mask = untrained["one label"]
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}
    assert untrained["upload"] == {"image": "case0", "label": "case0"}


def test_two_or_three_labels_are_too_few_to_train_on_and_the_client_is_told(untrained: dict) -> None:
    said = "wanted at least 4 for the search, got 3; label more or hold out fewer"
    assert untrained["two, waited for"].status_code == 400
    assert said.replace("got 3", "got 2") in untrained["two, waited for"].json()["detail"]
    assert untrained["three"]["status"] == "ERROR"
    assert untrained["three"]["details"][-1] == f"genseg: training cases: {said}"
    assert untrained["three, waited for"].status_code == 400
    assert said in untrained["three, waited for"].json()["detail"]


def test_before_the_first_training_universeg_says_which_case_is_next(untrained: dict) -> None:
    for answer in (untrained["next after three"], untrained["sure"]):
        assert set(answer["scores"]) == {f"case{i}" for i in range(3, 8)}
        assert answer["weight"] == max(answer["scores"].values())


def test_training_shows_its_progress_and_leaves_scores(trained: dict, server: LabelServer) -> None:
    assert trained["status"] == "DONE", trained["details"]
    assert any("iteration 6 of 6" in line for line in trained["details"])
    stats = server.info()["train_stats"]["genseg"]
    assert stats["finished"]
    assert (stats["epoch"], stats["total_epochs"]) == (6, 6)
    assert stats["total_time"] > 0
    assert stats["cases"]["training"] == 4, "none is held out where that would leave too few"


def test_the_search_is_off_where_the_client_says_so(trained: dict, folder: Path) -> None:
    assert json.loads((folder / "bundle" / "run.json").read_text())["settings"]["outer_every"] == 0


def test_the_mask_is_that_of_predict(trained: dict, server: LabelServer, folder: Path) -> None:
    mask = server.mask("genseg", "case7", folder / "genseg.nii.gz")
    _same(mask, _predicted(folder, folder / "bundle", "case7"))
    assert server.info()["models"]["genseg"]["labels"] == {"foreground": 1}


def test_the_mask_as_slicer_and_ohif_ask_for_it(trained: dict, server: LabelServer, folder: Path) -> None:
    expected = np.asarray(server.mask("genseg", "case7", folder / "genseg.nii.gz").dataobj)
    reply = server.infer("genseg", "case7", result_extension=".nrrd", result_dtype="uint8", result_compress=False)
    assert reply.status_code == 200, reply.text
    header, _, voxels = reply.content.partition(b"\n\n")
    assert header.startswith(b"NRRD")
    assert b"sizes: 21 24 12" in header
    np.testing.assert_array_equal(np.frombuffer(voxels, np.uint8).reshape(expected.shape, order="F"), expected)


def test_new_weights_are_taken_by_the_next_inference(trained: dict, server: LabelServer, folder: Path) -> None:
    weights = folder / "bundle" / "models" / "model.pt"
    held = torch.load(weights, weights_only=True)
    kept = weights.read_bytes()
    torch.manual_seed(1)
    torch.save({name: torch.randn_like(value) * 0.1 for name, value in held.items()}, weights)
    mask = server.mask("genseg", "case7", folder / "other.nii.gz")
    _same(mask, _predicted(folder, folder / "bundle", "case7"))
    weights.write_bytes(kept)


def test_the_next_case_is_one_without_a_label(trained: dict, server: LabelServer) -> None:
    for strategy in ("disagreement", "uncertainty"):
        answer = server.ask("POST", f"/activelearning/{strategy}", json={"candidates": 3}).json()
        assert answer["id"] in answer["scores"]
        assert set(answer["scores"]) <= {f"case{i}" for i in range(4, 8)}
        assert len(answer["scores"]) == 3


def test_scores_of_each_case(trained: dict, server: LabelServer, folder: Path) -> None:
    kept = server.ask("POST", "/infer/genseg?image=case0&output=json", data={"params": '{"save_label": true}'})
    assert kept.status_code == 200, kept.text
    scores = server.ask("POST", "/scoring/cases?run_sync=true", json={}).json()
    assert set(scores) == {f"case{i}" for i in range(4)}
    assert [scores[f"case{i}"]["of"] for i in (0, 1)] == ["original", "segmented now"]
    mask = np.asarray(_predicted(folder, folder / "bundle", "case0").dataobj) > 0
    truth = np.asarray(nibabel.load(folder / "studies" / "truth" / "case0.nii.gz").dataobj) > 0
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert scores["case0"]["foreground"]["dice"] == pytest.approx(dice, abs=1e-5)


def test_a_wrong_option_is_told(server: LabelServer, trained: dict) -> None:
    reply = server.train_and_wait(budget="soon")
    assert reply.status_code == 400
    assert "wanted a time such as 90s, 30m or 1.5h, got 'soon'" in reply.json()["detail"]
