"""A bundle with random weights, as a training would leave it, for tests of what comes after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from genseg_monai.data.bundle_files import copy_bundle, describe, write_block
from genseg_monai.inferers.generator_files import GeneratorShape, save_generator
from genseg_monai.networks.genotype import Genotype
from genseg_monai.networks.segmenters import make_segmenter

__all__ = ["PLAN_2D", "PLAN_3D", "make_bundle"]

SHIPPED = Path(__file__).resolve().parents[2] / "bundle"

PLAN_2D: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "classes": ["background", "lesion"],
    "label_values": {0: 0, 255: 1},
    "size": [32, 32],
    "spacing": None,
    "normalisation": "range",
    "lower": 0.0,
    "upper": 255.0,
    "modality": "picture",
}
PLAN_3D = PLAN_2D | {
    "spatial_dims": 3,
    "classes": ["background", "organ", "lesion"],
    "label_values": {0: 0, 1: 1, 2: 2},
    "size": [32, 32, 32],
    "spacing": [4.0, 4.0, 4.0],
    "normalisation": "window",
    "lower": -200.0,
    "upper": 300.0,
    "modality": "CT",
}


def make_bundle(out: Path, plan: dict[str, Any] | None = None, *, generator: bool = False, scene: bool = False) -> Path:
    """Write a bundle folder to `out`; `generator` adds one with a depth of 2, of scenes if `scene`."""
    plan = plan or PLAN_2D
    copy_bundle(SHIPPED, out)
    for name in ("inference", "evaluate", "generate"):
        write_block(out / "configs" / f"{name}.yaml", "plan", plan)
    describe(out / "configs" / "metadata.json", plan)
    classes = len(plan["classes"])
    network = make_segmenter(
        "unet_small",
        spatial_dims=plan["spatial_dims"],
        in_channels=plan["in_channels"],
        out_channels=classes,
        image_size=plan["size"],
    )
    torch.save(network.state_dict(), out / "models" / "model.pt")
    if generator:
        genotype = Genotype("paper", encoder=("conv_4", "conv_6"), decoder=("conv_4", "conv_8"))
        shape = GeneratorShape(
            plan["spatial_dims"], classes, plan["in_channels"], tuple(plan["size"]), base_width=2, scene=scene
        )
        save_generator(out / "models" / "generator", shape.build(genotype), genotype, shape)
    return out
