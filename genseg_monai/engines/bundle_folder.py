"""Make the output of a run a complete bundle folder: configs with the plan filled in, model card, licence.

A run is started by MONAI from config files and overrides. What was merged from them is found in the `ConfigParser`
that is evaluating us, since MONAI offers no reference to it from inside a config.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from genseg_monai._atomic import whole_file
from genseg_monai.data.bundle_files import copy_bundle, describe, write_block
from genseg_monai.engines.state import save_file

__all__ = [
    "DATASET_PLACEHOLDER",
    "locate_bundle",
    "merged_config",
    "write_bundle",
    "write_initial_weights",
    "write_training",
]

DATASET_PLACEHOLDER = "DATASET_DIR"
"""Stands for the data folder in the configs of a finished run, which hold no path of the machine that made them."""

_LOCATE = "$genseg_monai.engines.locate_bundle()"


def _callers(kind: type) -> Iterator[Any]:
    """Yield every ``self`` of ``kind`` among the callers, the nearest first."""
    for record in inspect.stack(context=0):
        owner = record.frame.f_locals.get("self")
        if isinstance(owner, kind):
            yield owner


def locate_bundle() -> str:
    """Return the bundle folder of the config that is being evaluated: the one above its ``configs/``, else ``.``."""
    for workflow in _callers(ConfigWorkflow):
        configs = Path(workflow.config_root_path)
        return str(configs.parent if configs.name == "configs" else configs)
    return "."


def merged_config() -> dict[str, Any]:
    """Return the config that is being evaluated: all files and overrides merged, references as they were written.

    Raises:
        RuntimeError: outside a config.
    """
    for parser in _callers(ConfigParser):
        return {key: value for key, value in copy.deepcopy(parser.config).items() if key != "_meta_"}
    raise RuntimeError("merged_config is for expressions inside a bundle config")


def write_bundle(
    source: str | Path,
    target: str | Path,
    config: Mapping[str, Any],
    plan: Mapping[str, Any],
    shared: Mapping[str, Any],
) -> None:
    """Write everything of a bundle but the weights.

    Args:
        source: bundle folder to take the other configs, model card and licence from.
        target: the run's folder; may be ``source``.
        config: what `merged_config` returned for the training.
        plan: what the data decided; written into every config and into the channel definitions of the metadata.
        shared: entries of the training that the other configs repeat, such as ``segmenter``.
    """
    source, target = Path(source), Path(target)
    if source.resolve() != target.resolve():
        copy_bundle(source, target)
        write_training(target, {**config, "plan": dict(plan), "dataset_dir": DATASET_PLACEHOLDER})
    for path in sorted((target / "configs").glob("*.yaml")):
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name == "train.yaml" or "plan" not in held:
            continue
        for name, value in {"plan": dict(plan), **shared}.items():
            if name in held:
                write_block(path, name, value)
        if held.get("network_def", {}).get("name") == "@segmenter":
            write_block(path, "network_def", _segmenter(held["network_def"], config.get("network_def", {})))
    describe(target / "configs" / "metadata.json", plan)


def write_training(target: str | Path, config: Mapping[str, Any]) -> None:
    """Write ``configs/train.yaml`` of a run, which `train --resume` goes on with.

    Args:
        target: the run's folder.
        config: what `merged_config` returned for the training; where it ran and how it began are left out.
    """
    portable = {**config, "output_dir": "@bundle_root", "bundle_root": _LOCATE, "resume": False, "budget": None}
    with whole_file(Path(target) / "configs" / "train.yaml") as temporary:
        head = "# The training that left this: all config files and overrides of the run, merged.\n"
        temporary.write_text(head + yaml.safe_dump(portable, sort_keys=False, width=120), encoding="utf-8")


def _segmenter(held: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return the segmenter of another config with the settings that the training gave its own, such as ``features``."""
    own = {name: value for name, value in held.items() if name == "_target_" or str(value).startswith(("@", "$"))}
    return {**trained, **own}


def write_initial_weights(bundle: str | Path, seed: int = 0) -> None:
    """Write ``models/model.pt`` of a bundle that has not been trained: its segmenter as ``seed`` draws it."""
    torch.manual_seed(seed)
    parser = ConfigParser()
    parser.read_config(str(Path(bundle) / "configs" / "inference.yaml"))
    network = parser.get_parsed_content("network_def")
    save_file(network.state_dict(), Path(bundle) / "models" / "model.pt")
