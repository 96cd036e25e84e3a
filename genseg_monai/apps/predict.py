"""`genseg predict`: masks for images, with a trained bundle."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import yaml

from genseg_monai.apps.workflow import check_weights, open_workflow
from genseg_monai.errors import UserError

__all__ = ["predict"]


def predict(
    *,
    bundle: str,
    input: str,
    output: str,
    dicom_seg: bool = False,
    fractional: bool = False,
    codes: str | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> str:
    """Segment images: each mask gets the size and position of its image.

    PNG, JPEG and TIFF give PNG with the class number in each pixel; NIfTI and DICOM series give NIfTI. An image that
    cannot be read is reported and left out; the exit code is then 1.

    Args:
        bundle: the folder of a bundle, such as what a training left
        input: an image, a folder of images, a DICOM series or a folder of series
        output: the folder for the masks
        dicom_seg: for DICOM series: also write each mask as DICOM SEG, which `push` sends to an archive
        fractional: with --dicom-seg: the probabilities of the classes instead of a mask
        codes: a YAML file with the codes of the classes for the DICOM SEG, such as {liver: {type: 10200004 SCT Liver}}
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
    """
    check_weights(bundle)
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
    )
    if dicom_seg and "dicom_seg" not in yaml.safe_load(
        (Path(bundle) / "configs" / "inference.yaml").read_text("utf-8")
    ):
        raise UserError(bundle, "wanted a bundle that writes DICOM SEG, its configs/inference.yaml has no dicom_seg")
    cases = [case["case"] for case in workflow.parser.get_parsed_content("dataset").data]
    endings = (".png", ".nii.gz", ".dcm") if dicom_seg else (".png", ".nii.gz")
    _refuse_clashes(cases, Path(output), endings, overwrite)
    workflow.run()
    count = len(cases)
    return f"{count} mask{'s' if count != 1 else ''} written to {output}{', as DICOM SEG too' if dicom_seg else ''}"


def _refuse_clashes(cases: list[str], output: Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Tell before the work, not amid it, that two masks would share a file or one is there already."""
    twice = [case for case, count in Counter(cases).items() if count > 1]
    if twice:
        raise UserError("--input", f"wanted images of different names, got several called {twice[0]!r}; rename them")
    there = [path for case in cases for end in endings if (path := output / f"{case}{end}").exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(there[0], f"there is a mask already{more}; choose another --output or give --overwrite")
