"""Run one config of a bundle as ``python -m monai.bundle run`` does, without its noise."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from genseg_monai.errors import UserError

__all__ = ["check_weights", "checked_device", "open_workflow", "quiet", "shipped_bundle", "shipped_presets"]

_NOISY = ("ignite", "monai.bundle.workflows", "monai.data.nvimgcodec_pydicom_plugin")


def open_workflow(bundle: str | Path, config: str, **overrides: Any) -> Any:
    """Read a config of a bundle and prepare to run it.

    Args:
        bundle: the folder of a bundle: the shipped one, or what a training left.
        config: the name of the file in its ``configs``, without ``.yaml``.
        **overrides: ids of the config and their values; None leaves the value of the config.

    Returns:
        An initialised MONAI ``ConfigWorkflow``.

    Raises:
        UserError: the folder is no bundle, or the device is not there.
    """
    root = Path(bundle).resolve()
    path = root / "configs" / f"{config}.yaml"
    if not path.is_file():
        raise UserError(bundle, f"wanted the folder of a bundle, it has no configs/{config}.yaml")
    given = {name: value for name, value in overrides.items() if value is not None}
    if "device" in given:
        given["device"] = checked_device(str(given["device"]))
    # imported late: this takes seconds, and `--help` should not
    from monai.bundle import ConfigWorkflow

    quiet()
    workflow = ConfigWorkflow(
        config_file=str(path), workflow_type="infer", logging_file=False, bundle_root=str(root), **given
    )
    workflow.initialize()
    return workflow


def quiet() -> None:
    """Silence the loggers that repeat what is also raised or shown otherwise."""
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def shipped_bundle() -> Path:
    """Return the bundle folder that comes with this package: installed inside it, or beside it in a checkout."""
    return _shipped("bundle")


def shipped_presets() -> Path:
    """Return the folder of task presets."""
    return _shipped("configs")


def _shipped(name: str) -> Path:
    package = Path(__file__).resolve().parents[1]
    installed = package / "_shipped" / name
    return installed if installed.is_dir() else package.parent / name


def check_weights(bundle: str | Path) -> None:
    """Refuse a bundle whose segmenter cannot be loaded.

    Args:
        bundle: the folder of a bundle.

    Raises:
        UserError: ``models/model.pt`` is missing or damaged.
    """
    path = Path(bundle) / "models" / "model.pt"
    if not path.is_file():
        raise UserError(path, "wanted the weights of a trained segmenter, there is no such file; train first")
    import torch

    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(
            path, f"wanted weights, cannot read them ({type(error).__name__}); copy the file again"
        ) from error


def checked_device(name: str) -> str:
    """Return the name of a device that is there.

    Raises:
        UserError: it is no device, or not on this machine.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError("--device", f"wanted cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError("--device", f"wanted {name}, there are {torch.cuda.device_count()} CUDA devices; give cpu")
    return name
