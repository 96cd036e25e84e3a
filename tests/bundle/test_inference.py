"""The inference side of the bundle as MONAI and MONAI Label use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, onnx_export, verify_net_in_out
from monai.transforms import LoadImaged, SaveImaged
from PIL import Image

import genseg_monai
from genseg_monai.data.bundle_files import copy_bundle, describe
from genseg_monai.data.plan import propose_plan
from genseg_monai.data.splits import read_splits
from tests.bundle.tiny import PLAN_2D, PLAN_3D, SHIPPED, make_bundle

CONFIGS = ("inference", "evaluate", "generate")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", generator=True)


@pytest.fixture(scope="module")
def bundle_3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny3d", PLAN_3D)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, size in enumerate([(50, 31), (32, 32)]):  # rows, columns
        pixels = np.random.default_rng(i).integers(0, 255, size, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"p{i}.png")
    return folder


def _workflow(bundle: Path, config: str = "inference", **overrides: Any) -> ConfigWorkflow:
    return ConfigWorkflow(
        str(bundle / "configs" / f"{config}.yaml"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(bundle),
        device="cpu",
        **overrides,
    )


@pytest.mark.parametrize("config", ["inference", "evaluate"])
def test_properties(bundle: Path, config: str) -> None:
    workflow = _workflow(bundle, config, dataset_dir="phantom://2d?cases=6&size=32")
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_shipped_bundle_has_the_properties_too() -> None:
    """Its weights are loaded only by a run, so they need not be there."""
    workflow = _workflow(SHIPPED)
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize("run_id", ["run", "inference"])
def test_run_from_another_folder(bundle: Path, pictures: Path, tmp_path: Path, run_id: str) -> None:
    assert Path.cwd() != bundle
    workflow = _workflow(bundle, run_id=run_id, dataset_dir=str(pictures), output_dir=str(tmp_path / "out"))
    workflow.initialize()
    workflow.run()
    sizes = {path.name: np.asarray(Image.open(path)).shape for path in sorted((tmp_path / "out").iterdir())}
    assert sizes == {"p0.png": (50, 31), "p1.png": (32, 32)}


def test_the_bundle_finds_itself(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    path = str(bundle / "configs" / "inference.yaml")
    overrides = {"dataset_dir": str(pictures), "output_dir": str(tmp_path / "out")}
    workflow = ConfigWorkflow(path, workflow_type="infer", logging_file=False, **overrides)
    workflow.initialize()
    assert Path(workflow.bundle_root) == bundle
    workflow.run()
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_run_in_the_folder_of_the_bundle(
    bundle: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle)
    workflow = ConfigWorkflow(
        "configs/inference.yaml", workflow_type="infer", dataset_dir=str(pictures), output_dir=str(tmp_path / "out"),
        logging_file=False,
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_an_empty_run_id_runs_once(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    """MONAI resolves "" to the whole config; a second run would find the masks of the first and refuse."""
    workflow = _workflow(bundle, run_id="", dataset_dir=str(pictures), output_dir=str(tmp_path / "out"))
    workflow.initialize()
    workflow.run()
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("config", CONFIGS)
def test_nothing_runs_before_run(bundle: Path, config: str, tmp_path: Path) -> None:
    workflow = _workflow(bundle, config, dataset_dir=str(tmp_path / "missing"), output_dir=str(tmp_path / "out"))
    workflow.initialize()
    assert not (tmp_path / "out").exists()


def test_monai_itself_runs_it_and_tells_failures_in_one_line(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    """A process of its own, as a user types it; it has to import all of MONAI."""
    (pictures / "q.png").write_bytes(b"nothing")
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file"]
    command += [str(bundle / "configs" / "inference.yaml"), "--dataset_dir", str(pictures), "--output_dir", "out"]
    environment = os.environ | {"PYTHONPATH": str(SHIPPED.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("genseg: predict: 1 of 3 inputs failed, each told above\n")
    assert "Traceback" not in done.stderr
    assert f"{pictures / 'q.png'}: wanted an image, it cannot be read" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p0.png", "p1.png"]


def test_the_device_can_be_a_string(bundle: Path) -> None:
    workflow = _workflow(bundle)
    workflow.initialize()
    assert workflow.parser.get_parsed_content("evaluator").state.device == torch.device("cpu")


@pytest.mark.parametrize("name", ["bundle", "bundle_3d"])
def test_the_network_is_what_the_metadata_say(name: str, request: pytest.FixtureRequest) -> None:
    configs = request.getfixturevalue(name) / "configs"
    verify_net_in_out(
        "network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.yaml"),
        device="cpu",
    )


def _loaded(bundle: Path, plan: dict[str, Any]) -> tuple[torch.nn.Module, torch.Tensor]:
    parser = ConfigParser(ConfigParser.load_config_file(str(bundle / "configs" / "inference.yaml")))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    return network, torch.rand(1, plan["in_channels"], *plan["size"])


@pytest.mark.parametrize(("name", "plan"), [("bundle", PLAN_2D), ("bundle_3d", PLAN_3D)])
def test_export_to_torchscript(name: str, plan: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bundle = request.getfixturevalue(name)
    configs, exported = bundle / "configs", tmp_path / "model.ts"
    ckpt_export(
        "network_def",
        filepath=str(exported),
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.yaml"),
    )
    extra = {"metadata.json": "", "inference.json": ""}
    network, image = _loaded(bundle, plan)
    scripted = torch.jit.load(str(exported), _extra_files=extra)
    torch.testing.assert_close(scripted(image), network(image))
    assert json.loads(extra["metadata.json"])["version"] == genseg_monai.__version__


def test_export_to_onnx(bundle: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    configs, exported = bundle / "configs", tmp_path / "model.onnx"
    onnx_export(
        "network_def",
        filepath=str(exported),
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.yaml"),
    )
    network, image = _loaded(bundle, PLAN_2D)
    session = runtime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    [out] = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), network(image).detach(), atol=1e-4, rtol=1e-4)


def _volume(path: Path) -> np.ndarray:
    """Write a volume of odd size and oblique affine; return the affine."""
    turned = np.array([[0, -1.7, 0.1, 10], [1.9, 0, 0.2, -20], [0.1, 0.3, -4.0, 5], [0, 0, 0, 1]], dtype=np.float64)
    array = np.random.default_rng(0).integers(-200, 300, (37, 22, 9)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, turned), path)
    return turned


def test_as_monai_label_infers(bundle_3d: Path, tmp_path: Path) -> None:
    """Do what its bundle task does: one image, SaveImaged left out, `image_only` switched off, ids overridden."""
    affine = _volume(tmp_path / "case.nii.gz")
    parser = ConfigParser()
    parser.read_config(str(bundle_3d / "configs" / "inference.yaml"))
    parser.config.update({"bundle_root": str(bundle_3d), "device": "cpu"})
    pre = parser.get_parsed_content("preprocessing", instantiate=True)
    for transform in pre.transforms:
        if isinstance(transform, LoadImaged):
            transform._loader.image_only = False
    data = pre({"image": str(tmp_path / "case.nii.gz")})
    network = parser.get_parsed_content("network_def", instantiate=True).eval()
    network.load_state_dict(torch.load(bundle_3d / "models" / "model.pt", weights_only=True))
    with torch.no_grad():
        data["pred"] = parser.get_parsed_content("inferer", instantiate=True)(data["image"][None], network)[0]
    post = parser.get_parsed_content("postprocessing", instantiate=True)
    kept = [transform for transform in post.transforms if not isinstance(transform, SaveImaged)]
    assert len(kept) == len(post.transforms) - 1
    for transform in kept:
        data = transform(data)
    assert data["pred"].shape == (1, 37, 22, 9)
    np.testing.assert_allclose(data["pred"].affine, affine, atol=1e-6)


def test_ids_monai_label_asks_for() -> None:
    config = ConfigParser.load_config_file(str(SHIPPED / "configs" / "inference.yaml"))
    wanted = {"network_def", "preprocessing", "postprocessing", "inferer", "device", "bundle_root"}
    assert wanted <= set(config)
    channels = json.loads((SHIPPED / "configs" / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    assert list(channels["channel_def"].values()) == config["plan"]["classes"]


@pytest.mark.parametrize("config", CONFIGS)
def test_all_configs_have_one_plan(config: str) -> None:
    plans = [ConfigParser.load_config_file(str(SHIPPED / "configs" / f"{name}.yaml"))["plan"] for name in CONFIGS]
    assert plans[CONFIGS.index(config)] == plans[0]


def test_the_plan_is_that_of_the_phantom() -> None:
    """It is what a training on the default data writes, and what the metadata tell."""
    config = ConfigParser.load_config_file(str(SHIPPED / "configs" / "inference.yaml"))
    assert config["plan"] == propose_plan(read_splits(config["dataset_dir"]).train).as_dict()


def test_describing_the_shipped_plan_changes_nothing(tmp_path: Path) -> None:
    shipped = SHIPPED / "configs" / "metadata.json"
    again = copy_bundle(SHIPPED, tmp_path / "b") / "configs" / "metadata.json"
    describe(again, ConfigParser.load_config_file(str(SHIPPED / "configs" / "inference.yaml"))["plan"])
    assert json.loads(again.read_text()) == json.loads(shipped.read_text())


def test_metadata_are_complete() -> None:
    metadata = json.loads((SHIPPED / "configs" / "metadata.json").read_text())
    mandatory = {"version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task"}
    mandatory |= {"description", "authors", "copyright", "network_data_format", "changelog", "generator_data_format"}
    assert mandatory <= set(metadata)
    keys = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def"}
    for network in ("network_data_format", "generator_data_format"):
        for side in ("inputs", "outputs"):
            for tensor in metadata[network][side].values():
                assert keys <= set(tensor)
                assert len(tensor["channel_def"]) == tensor["num_channels"]


def test_the_license_is_that_of_the_code(repository: Path) -> None:
    assert (SHIPPED / "LICENSE").read_bytes() == (repository / "LICENSE").read_bytes()


def test_no_file_of_the_shipped_bundle_leads_out_of_it() -> None:
    for path in SHIPPED.rglob("*"):
        assert not path.is_symlink()
    models = (
        [name for name in os.listdir(SHIPPED / "models") if name.endswith(".pt")]
        if (SHIPPED / "models").is_dir()
        else []
    )
    assert models in ([], ["model.pt"])
