"""`genseg check`: what is wrong with a data set, what it is like, and what training on it would do and cost."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Mapping
from typing import Any

from genseg_monai.apps.check_text import fault_lines, fingerprint_lines, plan_lines, split_line
from genseg_monai.apps.train import config_files
from genseg_monai.apps.workflow import checked_device, quiet
from genseg_monai.errors import UserError

__all__ = ["check"]

_SETTINGS = ("segmenter", "generator_width", "batch_size", "max_epochs", "epoch_length", "budget")


def check(
    data: str,
    *,
    preset: str | None = None,
    device: str | None = None,
    forecast: bool = True,
    **overrides: str,
) -> None:
    """List every fault of a data set at once, describe it, propose settings, and predict time and memory.

    Looks at every case and trains a few steps to time them; writes nothing. Any further --ID VALUE is one that
    `genseg train` takes too, such as --label_dir masks_multiclass or --size "[128,128]". The exit code is 2 if training
    would refuse the data.

    Args:
        data: folder of images/ and masks/, Decathlon, nnU-Net, a datalist, or phantom://2d
        preset: name of a file in configs/
        device: cpu, cuda or cuda:N to predict for; the GPU if there is one
        forecast: predict time and memory (takes up to a minute)
        **overrides: an id of bundle/configs/train.yaml and its value

    Raises:
        UserError: the data set has errors; all of them were printed.

    Example:
        genseg check my_cases
        genseg check my_cases --label_dir masks_multiclass --forecast false
    """
    # imported late: this takes seconds, and `--help` should not
    from monai.bundle import ConfigParser

    from genseg_monai.data.cases import data_folder, list_cases
    from genseg_monai.data.facts import look_at_all
    from genseg_monai.data.fault import Severity
    from genseg_monai.data.faults import faults_in
    from genseg_monai.data.fingerprint import take_fingerprint
    from genseg_monai.data.labels import described
    from genseg_monai.data.plan import plan_from
    from genseg_monai.data.splits import read_splits

    files, given = [str(path) for path in config_files(preset)], _read(overrides)
    config = _merged(files, given)
    listing = list_cases(data, config.get("label_dir"))
    facts = look_at_all(listing.cases)
    values = ConfigParser({"values": config.get("label_values")}).get_parsed_content("values")  # may be an expression
    seed = int(config.get("seed") or 0)
    faults = faults_in(data, listing, facts, label_values=values, seed=seed)
    errors = sum(fault.severity is Severity.ERROR for fault in faults)
    patients = len({case["group"] for case in listing.cases})
    _show(
        f"{data}: {_count(len(listing.cases), 'labelled case')} of {_count(patients, 'patient')}", fault_lines(faults)
    )

    readable = [case for case in facts if case.size]
    if readable:
        _show("what it is like", fingerprint_lines(take_fingerprint(_of_one_kind(readable))))
    if errors:
        raise UserError(data_folder(data), f"wanted a data set without errors, got {errors}, listed above; mend them")

    splits = read_splits(data, listing.cases, seed)
    training = {case["case"] for case in splits.train or listing.cases}
    where = splits.train[0] if splits.train else listing.cases[0]
    names, said, declared = described(where)
    plan = plan_from(
        take_fingerprint([case for case in facts if case.case in training]),
        label_values=values,
        size=config.get("size"),
        patch_size=config.get("patch_size"),
        modality=config.get("modality") or said,
        names=names,
        declared=declared,
        where=str(where["label"]),
    )
    settings = [f"{name}: {config[name]}" for name in _SETTINGS if config.get(name) is not None]
    _show("what training does with it", [split_line(splits), *plan_lines(plan), ", ".join(settings)])
    if not splits.train:
        _show("what it costs", ["-  (no training cases: this data set is for testing)"])
    elif forecast:
        _show("what it costs", [_forecast(files, given | {"dataset_dir": data}, device)])


def _forecast(files: list[str], given: Mapping[str, Any], device: str | None) -> str:
    """Build the training, time a few steps of each phase, and say what all of it takes."""
    from monai.bundle import ConfigWorkflow

    from genseg_monai.engines.estimate import measure

    quiet()
    overrides = dict(given) | ({"device": checked_device(device)} if device else {})
    with tempfile.TemporaryDirectory() as nowhere:
        workflow = ConfigWorkflow(
            config_file=files, workflow_type="train", logging_file=False, output_dir=nowhere, **overrides
        )
        workflow.initialize()
        trainer = workflow.parser.get_parsed_content("train#trainer")
        estimate = measure(trainer)
    minutes, cpu = (estimate.total(trainer.schedule, cpu=cpu) / 60 for cpu in (False, True))
    steps = sum(trainer.schedule.steps.values())
    place = trainer.state.device.type.upper()
    busy = f" as busy as it is now ({cpu:.1f} minutes of CPU time)" if place == "CPU" else ""
    memory = f"{estimate.peak_bytes / 2**30:.1f} GiB of memory"
    return f"{minutes:.1f} minutes for {steps} steps, {memory}, on this {place}{busy}"


def _read(overrides: Mapping[str, str]) -> dict[str, Any]:
    """Read values as MONAI's command line does; the name of a folder stays as typed."""
    import fire.parser

    return {
        name: value if name == "label_dir" else fire.parser.DefaultParseValue(value)
        for name, value in overrides.items()
    }


def _merged(files: list[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the top level of the configuration as it is written, with the overrides of plain ids."""
    from monai.bundle import ConfigParser

    config: dict[str, Any] = dict(ConfigParser.load_config_files(files))
    for name in given:
        first = name.replace("::", "#").partition("#")[0]
        if first not in config:
            near = difflib.get_close_matches(first, config, n=1)
            raise UserError(
                f"--{name}", f"there is no such id in train.yaml; {f'did you mean {near[0]}?' if near else ''}"
            )
    return config | dict(given)


def _of_one_kind(facts: list[Any]) -> list[Any]:
    """Return the pictures or the volumes, whichever are more; a mixture is among the faults."""
    volumes = [case for case in facts if len(case.size) == 3]
    pictures = [case for case in facts if len(case.size) == 2]
    return max(volumes, pictures, key=len)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _show(title: str, lines: list[str]) -> None:
    print("\n".join([title, *(f"  {line}" for line in lines if line)]))
