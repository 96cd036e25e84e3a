"""The bundle in MONAI Label's own, unmodified app `monaibundle`: a real server, in its own environment."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from genseg_monai.apps.predict import predict
from tests.apps.label.server import LabelServer, label_environment, label_python, quick_bundle, running, write_cases

# one server for all of them, also where the tests are shared out among processes
pytestmark = pytest.mark.xdist_group("monaibundle")
_PREFIX = "import sys; print(sys.prefix)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("monaibundle")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return folder / "app" / "model" / "genseg"


@pytest.fixture(scope="module")
def server(folder: Path, bundle: Path) -> Iterator[LabelServer]:
    """The sample app as it is in the wheel, the shipped bundle in it, seven cases of which six are labelled."""
    python = label_python()
    prefix = subprocess.run([python, "-c", _PREFIX], capture_output=True, text=True, check=True).stdout.strip()
    shutil.copytree(Path(prefix) / "monailabel" / "sample-apps" / "monaibundle", folder / "app")
    quick_bundle(bundle)
    write_cases(folder / "studies", 7, labelled=6)
    words = [python, "-m", "monailabel.main", "start_server", "--app", "app", "--studies", "studies"]
    # `ngc` looks for the bundle in the folder first; the default asks the internet
    words += ["--conf", "models", "genseg", "--conf", "zoo_source", "ngc", "--conf", "sam2", "false"]
    with running([*words, "--host", "127.0.0.1"], folder) as made:
        yield made


@pytest.fixture(scope="module")
def trained(server: LabelServer, bundle: Path) -> dict:
    """A training in the background, as a client starts it."""
    return server.train(max_epochs=1, val_split=0.2, run_id="")


def _trainings(bundle: Path) -> int:
    """Return how often the weights have been written, by the log of the trainings."""
    return (bundle / "logs" / "train.log").read_text("utf-8").count("wrote ")


def _compare_with_predict(server: LabelServer, folder: Path, bundle: Path) -> np.ndarray:
    mask = server.mask("genseg", "case6", folder / "mask.nii.gz")
    shutil.rmtree(folder / "out", ignore_errors=True)
    predict(
        bundle=str(bundle), input=str(folder / "studies" / "case6.nii.gz"), output=str(folder / "out"), device="cpu"
    )
    expected = nibabel.load(folder / "out" / "case6.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(mask.affine, expected.affine, atol=1e-5)
    return np.asarray(mask.dataobj)


def test_it_is_listed_before_the_training(server: LabelServer) -> None:
    info = server.info()
    assert info["models"]["genseg"]["labels"] == {"foreground": 1}
    assert info["models"]["genseg"]["config"]["model_filename"] == ["model.pt"]
    assert info["trainers"]["genseg"]["config"]["run_id"] == ""


def test_an_empty_run_id_trains_the_three_stages_once_on_the_cases_given(trained: dict, bundle: Path) -> None:
    assert trained["status"] == "DONE", trained["details"]
    record = json.loads((bundle / "run.json").read_text())
    assert record["finished"]
    assert record["cases"] == {"training": 5, "search": 5}
    assert record["device"] == "cpu"
    assert set(record["iterations"]) == {"warm_up", "search", "fine_tune", "final_fit"}
    assert sum(record["iterations"].values()) == 6, "one epoch"
    assert _trainings(bundle) == 1
    assert [path.name for path in (bundle / "models").glob("*.pt")] == ["model.pt"]


def test_the_server_that_has_started_with_a_bundle_for_pictures_segments_volumes_now(
    trained: dict, server: LabelServer, folder: Path, bundle: Path
) -> None:
    """The untrained bundle is for pictures; plan, network and weights have changed under the running server."""
    first = _compare_with_predict(server, folder, bundle)
    for i, run_id in enumerate(("run", "training"), start=2):
        reply = server.train_and_wait(max_epochs=1, val_split=0.2, run_id=run_id)
        assert reply.status_code == 200, reply.text
        assert _trainings(bundle) == i
    assert (_compare_with_predict(server, folder, bundle) != first).any(), "the newest weights are taken"


def test_the_largest_part_is_an_option(trained: dict, server: LabelServer, folder: Path) -> None:
    assert server.info()["models"]["genseg"]["config"]["largest_part"] is False
    whole = np.asarray(server.mask("genseg", "case6", folder / "whole.nii.gz").dataobj) > 0
    part = np.asarray(server.mask("genseg", "case6", folder / "part.nii.gz", largest_part=True).dataobj) > 0
    assert not (part & ~whole).any()
    assert ndimage.label(part, np.ones((3, 3, 3)))[1] <= 1
    assert part.any() == whole.any()


def test_too_few_labels_are_told_to_the_client(trained: dict, server: LabelServer, folder: Path, bundle: Path) -> None:
    before = (bundle / "models" / "model.pt").read_bytes()
    for i in range(1, 6):
        server.ask("DELETE", f"/datastore/label?id=case{i}&tag=final").raise_for_status()
    status = server.train(max_epochs=1)
    assert status["status"] == "ERROR"
    assert status["details"][-1].startswith("genseg: training cases: wanted at least 4 for the search, got 1")
    assert (bundle / "models" / "model.pt").read_bytes() == before


def test_the_core_works_in_this_environment() -> None:
    """NumPy 1.26 and pydicom 2.4: tests of reading, transforms, scores, splits and weights pass there too."""
    names = ["transforms/test_working_grid", "transforms/test_normalise", "transforms/test_save", "metrics/test_cases"]
    names += ["data/test_plan", "data/test_splits", "data/test_read", "networks/test_warm_start"]
    tests = [f"tests/{name}.py" for name in names]
    line = [label_python(), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *tests]
    done = subprocess.run(
        line, cwd=Path(__file__).parents[2], env=label_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
