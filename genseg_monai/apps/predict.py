"""`genseg predict`: masks for images, with a trained bundle."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import yaml

from genseg_monai.apps.workflow import check_weights, open_workflow
from genseg_monai.errors import UserError

__all__ = ["predict", "refuse_clashes"]


def predict(
    *,
    bundle: str,
    input: str,
    output: str,
    dicom_seg: bool = False,
    fractional: bool = False,
    codes: str | None = None,
    uncertainty: bool = False,
    device: str | None = None,
    overwrite: bool = False,
) -> str:
    """Segment images: each mask gets the size and position of its image.

    PNG, JPEG and TIFF give PNG with the class number in each pixel; NIfTI and DICOM series give NIfTI. An image that
    cannot be read is reported and left out; the exit code is then 1.

    With --uncertainty each case also gets a map of how unsure the model is (NAME_uncertainty, 0 sure to 1, or to 255 in
    a PNG) and a number in uncertainty.csv, from an ensemble: the model and the snapshots of its training, or several
    bundles, each also on the mirrored image where the training mirrored. The mask is then that of the ensemble.

    Args:
        bundle: the folder of a bundle, such as what a training left; with --uncertainty several, as A,B,C
        input: an image, a folder of images, a DICOM series or a folder of series
        output: the folder for the masks
        dicom_seg: for DICOM series: also write each mask as DICOM SEG, which `push` sends to an archive
        fractional: with --dicom-seg: the probabilities of the classes instead of a mask
        codes: a YAML file with the codes of the classes for the DICOM SEG, such as {liver: {type: 10200004 SCT Liver}}
        uncertainty: also write a map and a number of how unsure the model is
        device: cpu, cuda or cuda:N; the GPU if there is one
        overwrite: replace masks that are there already

    Returns:
        What was done.

    Raises:
        UserError: nothing to do it with, nothing to do it to, or a mask is there already.
        RunFailed: some images could not be read.

    Example:
        genseg predict --bundle runs/feet --input new_images --output masks
        genseg predict --bundle runs/liver --input new_series --output masks --dicom-seg
        genseg predict --bundle runs/seed0,runs/seed1,runs/seed2 --input new_images --output masks --uncertainty
    """
    bundle, *others = [bundle] if Path(bundle).exists() else bundle.split(",")
    if others and not uncertainty:
        raise UserError("--bundle", "wanted one bundle, got several; add --uncertainty to average them, or give one")
    for one in (bundle, *others):
        check_weights(one)
    if not Path(input).exists():
        raise UserError(input, "wanted images, there is no such file or folder")
    if (fractional or codes is not None) and not dicom_seg:
        raise UserError("--fractional" if fractional else "--codes", "goes with --dicom-seg; add it, or leave this out")
    workflow = open_workflow(
        bundle,
        "inference",
        dataset_dir=str(Path(input).resolve()),
        output_dir=str(Path(output).resolve()),
        device=device,
        overwrite=overwrite,
        dicom_seg=("fractional" if fractional else "binary") if dicom_seg else None,
        codes=str(Path(codes).resolve()) if codes is not None else None,
        uncertainty=uncertainty or None,
        ensemble=[str(Path(one).resolve()) for one in others] or None,
    )
    held = yaml.safe_load((Path(bundle) / "configs" / "inference.yaml").read_text("utf-8"))
    for name, wanted, what in (("dicom_seg", dicom_seg, "DICOM SEG"), ("uncertainty", uncertainty, "uncertainty")):
        if wanted and name not in held:
            raise UserError(bundle, f"wanted a bundle that writes {what}, its configs/inference.yaml has no {name}")
    cases = [case["case"] for case in workflow.parser.get_parsed_content("dataset").data]
    endings: tuple[str, ...] = (".png", ".nii.gz", ".dcm") if dicom_seg else (".png", ".nii.gz")
    if uncertainty:
        endings += ("_uncertainty.png", "_uncertainty.nii.gz")
    refuse_clashes(cases, Path(output), endings, overwrite)
    workflow.run()
    count, more = len(cases), ""
    if uncertainty:
        members = len(workflow.parser.get_parsed_content("inferer").members)
        more = f", with the uncertainty of {members} model{'s' if members != 1 else ''}"
    dicom = ", as DICOM SEG too" if dicom_seg else ""
    return f"{count} mask{'s' if count != 1 else ''} written to {output}{dicom}{more}"


def refuse_clashes(cases: list[str], output: Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Tell before the work, not amid it, that two masks would share a file or one is there already."""
    twice = [case for case, count in Counter(cases).items() if count > 1]
    if twice:
        raise UserError("--input", f"wanted images of different names, got several called {twice[0]!r}; rename them")
    there = [path for case in cases for end in endings if (path := output / f"{case}{end}").exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(there[0], f"there is a mask already{more}; choose another --output or give --overwrite")
