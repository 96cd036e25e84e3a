"""`genseg train`: the three-stage training, as the MONAI bundle run it prints."""

from __future__ import annotations

import difflib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from genseg_monai.apps.workflow import checked_device, quiet, shipped_bundle, shipped_presets
from genseg_monai.errors import UserError

__all__ = ["check_ids", "config_files", "spelt", "train"]

_RUN_ID = "training"
_EPISODIC = "universeg"
"""How the names of presets begin that train UniverSeg on episodes; they need no data."""
_PYTHON = {"true": "True", "false": "False", "null": "None", "none": "None"}


def train(
    *,
    data: str | None = None,
    out: str | None = None,
    preset: str | None = None,
    budget: str | None = None,
    seed: str | None = None,
    device: str | None = None,
    resume: str | None = None,
    **overrides: str,
) -> None:
    """Train generator, architecture and segmenter on a few labelled cases.

    Prints the `python -m monai.bundle run training ...` line that does the same, and runs it. Any further --ID VALUE is
    handed on as an override of bundle/configs/train.yaml, such as --max_epochs 40 or --segmenter deeplab.

    Args:
        data: folder of images/ and masks/, Decathlon, nnU-Net, a datalist, or phantom://2d (drawn on the spot)
        out: folder for the result, itself a bundle; --resume is how to go on with one that is there
        preset: name of a file in configs/
        budget: wall-clock time, such as 30m or 2h, instead of the number of epochs
        seed: of every draw; 0 if not given
        device: cpu, cuda or cuda:N; the GPU if there is one
        resume: folder of a run to continue; everything else is taken from it
        **overrides: any id of the config and its value

    Raises:
        UserError: wrong use or wrong data.
        RunFailed: a loss exploded.

    Example:
        genseg train --data my_cases --out runs/mine --budget 30m
        genseg train --resume runs/mine
        genseg train --preset universeg_synthetic --out runs/universeg
    """
    if resume is not None:
        configs, given = _continued(Path(resume), data, out, [preset, budget, seed])
    else:
        configs, given = _fresh(data, out, preset)
        given |= {name: value for name, value in {"budget": budget, "seed": seed}.items() if value is not None}
    if device is not None:
        given["device"] = checked_device(device)
    check_ids(configs, overrides)
    given |= spelt(overrides)
    sys.stderr.write(command_line(configs, given) + "\n")
    _run(configs, given)


def command_line(configs: list[Path], given: dict[str, str]) -> str:
    """Return the MONAI command that does the same.

    Example:
        >>> command_line([Path("train.yaml")], {"dataset_dir": "my cases", "output_dir": "out"})
        "python -m monai.bundle run training --config_file train.yaml --dataset_dir 'my cases' --output_dir out"
    """
    files = [str(path) for path in configs]
    words = ["--config_file", files[0] if len(files) == 1 else str(files)]
    for name, value in given.items():
        words += [f"--{name}", str(value)]
    return "python -m monai.bundle run training " + " ".join(shlex.quote(word) for word in words)


def _fresh(data: str | None, out: str | None, preset: str | None) -> tuple[list[Path], dict[str, str]]:
    needless = preset is not None and preset.startswith(_EPISODIC)
    if out is None or (data is None and not needless):
        missing = "--data" if data is None and not needless else "--out"
        raise UserError(missing, "wanted, but not given: train --data DATA --out OUT, or train --resume OUT")
    if data is None:
        return config_files(preset), {"output_dir": out}
    if not data.startswith("phantom://") and not Path(data).exists():
        raise UserError(data, "wanted a data set, there is no such file or folder")
    return config_files(preset), {"dataset_dir": data, "output_dir": out}


def _continued(
    run: Path, data: str | None, out: str | None, others: list[str | None]
) -> tuple[list[Path], dict[str, str]]:
    record, config = run / "run.json", run / "configs" / "train.yaml"
    for path in (record, config):
        if not path.is_file():
            raise UserError(str(run), f"wanted the folder of a run to continue, it has no {path.relative_to(run)}")
    if out is not None or any(value is not None for value in others):
        raise UserError(
            "--resume", "takes everything but --device from the run: leave --out, --preset, --budget, --seed out"
        )
    dataset = data or json.loads(record.read_text(encoding="utf-8"))["dataset_dir"]
    given = {"output_dir": str(run), "resume": "True"}
    return [config], given if dataset is None else {"dataset_dir": str(dataset), **given}


def config_files(preset: str | None = None) -> list[Path]:
    """Return the config files of a training: that of the bundle, and that of a preset over it.

    Args:
        preset: name of a file in configs/.

    Raises:
        UserError: there is no such preset.
    """
    base = "universeg_train" if preset is not None and preset.startswith(_EPISODIC) else "train"
    configs = [_near(shipped_bundle() / "configs" / f"{base}.yaml")]
    if preset is not None:
        path = shipped_presets() / f"{preset}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in shipped_presets().glob("*.yaml"))) or "none"
            raise UserError("--preset", f"wanted one of {known}, got {preset!r}")
        configs.append(_near(path))
    return configs


def check_ids(configs: list[Path], overrides: dict[str, str]) -> None:
    """Refuse an override of an id that no config has: MONAI would add it silently and train with the default.

    Args:
        configs: the config files.
        overrides: ids, perhaps with # between the levels, and their values.

    Raises:
        UserError: naming the id, and one that is spelt like it.
    """
    known = {str(key) for path in configs for key in yaml.safe_load(path.read_text(encoding="utf-8"))}
    for name in overrides:
        top = name.replace("::", "#").split("#")[0]
        if top not in known:
            near = difflib.get_close_matches(top, sorted(known), n=1)
            advice = f"did you mean --{near[0]}?" if near else f"see the ids of {configs[0]}"
            raise UserError(f"--{name}", f"wanted a flag of `train` or an id of its config, found neither; {advice}")


def spelt(overrides: dict[str, str]) -> dict[str, str]:
    """Spell switches as MONAI's command line reads them: to it `false`, as in the config files, is a text, thus true.

    Args:
        overrides: ids and their values.

    Example:
        >>> spelt({"compile": "true", "fused": "null", "segmenter": "unet"})
        {'compile': 'True', 'fused': 'None', 'segmenter': 'unet'}
    """
    return {name: _PYTHON.get(value.lower(), value) for name, value in overrides.items()}


def _near(path: Path) -> Path:
    """Return ``path`` as a user would type it: relative where it lies below the working folder."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _run(configs: list[Path], given: dict[str, str]) -> None:
    # imported late: this takes seconds, and `--help` should not
    import fire.parser
    from monai.bundle import ConfigWorkflow

    quiet()
    # text stays text; numbers, lists and dictionaries are read as MONAI's own command line reads them
    literal: dict[str, Any] = {
        name: value if name in ("dataset_dir", "output_dir", "budget") else fire.parser.DefaultParseValue(value)
        for name, value in given.items()
    }
    files = [str(path) for path in configs]
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", logging_file=False, run_id=_RUN_ID, **literal)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
