"""More supports from a trained generator: the masks of the labelled cases, warped, and an image for each."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from genseg_monai._outcome import RunFailed
from genseg_monai.data.cases import find_cases
from genseg_monai.data.plan import Plan
from genseg_monai.data.read import CaseReader, LabelReader
from genseg_monai.errors import UserError
from genseg_monai.transforms.normalise import Normalisation

__all__ = ["synthetic_supports"]


def synthetic_supports(
    generator: str | Path | None,
    cases: Sequence[Mapping[str, Any]],
    plan: Plan,
    *,
    count: int = 2,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[dict[str, Any]]:
    """Make synthetic pairs of the masks of labelled cases.

    Args:
        generator: the folder of what a training left; None makes none.
        cases: with `label`, a path.
        plan: of the supports; the generator has to know as many classes.
        count: pairs a case; the first shows its mask as it is, the others show it warped.
        seed: of the warps.
        device: where the generator runs.

    Returns:
        Cases with `image` and `label` in memory, in the intensities the generator was trained on.

    Raises:
        UserError: no generator, or one of other classes or dimensions.
        RunFailed: a mask does not fit it.
    """
    if generator is None:
        return []
    config = Path(generator) / "configs" / "generate.yaml"
    if not config.is_file():
        raise UserError(generator, "wanted the folder of what a training left, it has no configs/generate.yaml")
    parser = ConfigParser()
    parser.read_config(str(config))
    drawn = Plan.from_dict(parser["plan"])
    if (len(drawn.classes), drawn.spatial_dims) != (len(plan.classes), plan.spatial_dims):
        raise UserError(
            generator, f"wanted a generator of {len(plan.classes)} classes in {plan.spatial_dims}D, as the supports, "
            f"got one of {len(drawn.classes)} in {drawn.spatial_dims}D; give another one"
        )  # fmt: skip
    # masks come and go in the values of the supports, which need not be those of the training
    parser["plan"]["label_values"] = dict(plan.label_values)
    with tempfile.TemporaryDirectory() as folder:
        parser.update({
            "bundle_root": str(generator), "output_dir": folder, "count": count, "seed": seed, "device": str(device),
        })  # fmt: skip
        parser["image_dir"] = "of each case"  # so that images are read where the generator draws into them
        parser["dataset"]["data"] = [
            {"label": case["label"], "image": case["image"], "case": f"support_{i}"} for i, case in enumerate(cases)
        ]
        synthesis, loader = (parser.get_parsed_content(name) for name in ("synthesis", "dataloader"))
        synthesis.run()
        if loader.failures:
            raise RunFailed(generator, f"cannot make images for {len(loader.failures)} supports: {loader.failures[0]}")
        return [_in_memory(case, drawn) for case in find_cases(folder)]


def _in_memory(case: Mapping[str, Any], drawn: Plan) -> dict[str, Any]:
    """Return a pair as arrays, its intensities those of the data the generator was trained on."""
    image, meta = CaseReader().get_data(CaseReader().read(case["image"]))
    label, _ = LabelReader().get_data(LabelReader().read(case["label"]))
    values = torch.as_tensor(image).float() / (255 if drawn.spatial_dims == 2 else 1)
    if drawn.normalisation is not Normalisation.PERCENTILE:
        values = drawn.lower + values * (drawn.upper - drawn.lower)
    name = f"synthetic_{case['case']}"
    affine = torch.as_tensor(meta["affine"])
    return {
        "image": MetaTensor(values, affine=affine),
        "label": MetaTensor(torch.as_tensor(label), affine=affine),
        "case": name,
        "group": name,
    }
