"""A bundle folder made from the shipped one: its configs and its description fitted to a data set.

The shipped bundle describes the phantom. A training leaves a bundle of its own, whose configs hold the plan of its data
and whose metadata tell their channels, classes and size. Everything else in the YAML files, comments included, stays.
"""

from __future__ import annotations

import filecmp
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from genseg_monai._atomic import whole_file
from genseg_monai.errors import UserError

__all__ = ["channel_files", "copy_bundle", "describe", "write_block"]

_COPIED = ("configs", "docs", "LICENSE")


def copy_bundle(source: str | Path, out: str | Path) -> Path:
    """Copy a bundle without its models.

    Args:
        source: the folder of a bundle.
        out: the new folder; where it is a bundle, files of the same name are replaced; other files stay.

    Returns:
        `out`, with ``configs``, ``docs``, ``LICENSE`` and an empty ``models``.

    Raises:
        UserError: `source` is no bundle, or `out` is none and has files of these names, such as a licence of its own.
    """
    source, out = Path(source), Path(out)
    if not (source / "configs" / "metadata.json").is_file():
        raise UserError(source, "wanted the folder of a bundle, it has no configs/metadata.json")
    if not (out / "configs" / "metadata.json").is_file():
        _refuse_to_replace(source, out)
    for name in _COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, out / name, dirs_exist_ok=True)
        elif (source / name).is_file():
            out.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, out / name)
    (out / "models").mkdir(exist_ok=True)
    return out


def _refuse_to_replace(source: Path, out: Path) -> None:
    """Refuse a folder with other files where those of the bundle would go."""
    files = [path for name in _COPIED for path in (source / name, *(source / name).rglob("*")) if path.is_file()]
    for path in files:
        there = out / path.relative_to(source)
        if there.is_file() and not filecmp.cmp(path, there, shallow=False):
            raise UserError(there, "wanted a folder for a bundle, this file of something else is in it; choose another")


def channel_files(cases: Sequence[Mapping[str, Any]]) -> int:
    """Return how many files an image of a data set has, for the entry of that name in ``inference.yaml``.

    Args:
        cases: with ``image``, a path or a list of paths.

    Example:
        >>> channel_files([{"image": ["a_0000.nii.gz", "a_0001.nii.gz"]}])
        2
    """
    return max((len(case["image"]) for case in cases if isinstance(case["image"], list)), default=1)


def write_block(path: str | Path, name: str, value: Any) -> None:
    r"""Replace one top-level entry of a YAML file; all other lines, comments included, stay as they are.

    Args:
        path: the YAML file.
        name: the entry, which has to be there.
        value: numbers, text, lists and dictionaries.

    Raises:
        UserError: the file has no such entry.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "a.yaml")
        >>> _ = path.write_text("a: 1\n# the plan\nplan:\n  size: [1, 2]\n\nb: 2\n")
        >>> write_block(path, "plan", {"size": [64, 64]})
        >>> print(path.read_text(), end="")
        a: 1
        # the plan
        plan:
          size: [64, 64]
        <BLANKLINE>
        b: 2
    """
    text = Path(path).read_text(encoding="utf-8")
    block = re.compile(rf"^{re.escape(name)}:.*\n(?:[ \t]+\S.*\n|[ \t]*\n(?=[ \t]+\S)|-.*\n)*", flags=re.MULTILINE)
    if not block.search(text):
        raise UserError(path, f"wanted the entry {name}: at the top level, found none")
    if isinstance(value, Mapping):
        told = f"{name}:\n" + "".join(f"  {key}: {_flow(entry)}\n" for key, entry in value.items())
    else:
        told = f"{name}: {_flow(value)}\n"
    with whole_file(path) as temporary:
        Path(temporary).write_text(block.sub(lambda _: told, text, count=1), encoding="utf-8")


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    text: str = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def describe(metadata: str | Path, plan: Mapping[str, Any]) -> None:
    """Tell in ``metadata.json`` what the networks of a plan take and give.

    Args:
        metadata: the file.
        plan: with ``classes``, ``in_channels``, ``size`` and ``modality``.
    """
    path = Path(metadata)
    held = json.loads(path.read_text(encoding="utf-8"))
    classes: Sequence[str] = plan["classes"]
    channels, size = int(plan["in_channels"]), [int(n) for n in plan["size"]]
    named = {str(i): str(name) for i, name in enumerate(classes)}
    images = {"0": "image"} if channels == 1 else {str(i): f"image_{i}" for i in range(channels)}
    networks = (held["network_data_format"], held["generator_data_format"])
    image_tensors = (networks[0]["inputs"]["image"], networks[1]["outputs"]["image"])
    mask_tensors = (networks[0]["outputs"]["pred"], networks[1]["inputs"]["mask"])
    for tensor in image_tensors:
        tensor |= {"num_channels": channels, "channel_def": images, "modality": str(plan["modality"])}
    for tensor in mask_tensors:
        tensor |= {"num_channels": len(classes), "channel_def": named}
    for tensor in (*image_tensors, *mask_tensors):
        tensor["spatial_shape"] = size
    held["image_classes"] = f"{channels} channel(s), intensities brought to [0, 1]"
    held["label_classes"] = "index mask: " + ", ".join(f"{i} {name}" for i, name in named.items())
    held["pred_classes"] = f"{len(classes)} channels: " + ", ".join(named.values())
    with whole_file(path) as temporary:
        Path(temporary).write_text(json.dumps(held, indent=2) + "\n", encoding="utf-8")
