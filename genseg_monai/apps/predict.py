"""`genseg predict`: masks for images, with a trained bundle."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from genseg_monai.apps.workflow import check_weights, open_workflow
from genseg_monai.errors import UserError

__all__ = ["predict"]


def predict(*, bundle: str, input: str, output: str, device: str | None = None, overwrite: bool = False) -> str:
    """Segment images: each mask gets the size and position of its image.

    PNG, JPEG and TIFF give PNG with the class number in each pixel; NIfTI and DICOM series give NIfTI. An image that
    cannot be read is reported and left out; the exit code is then 1.

    Args:
        bundle: the folder of a bundle, such as what a training left
        input: an image, a folder of images, a DICOM series or a folder of series
        output: the folder for the masks
        device: cpu, cuda or cuda:N; the GPU if there is one
        overwrite: replace masks that are there already

    Returns:
        What was done.

    Raises:
        UserError: nothing to do it with, nothing to do it to, or a mask is there already.
        RunFailed: some images could not be read.

    Example:
        genseg predict --bundle runs/feet --input new_images --output masks
    """
    check_weights(bundle)
    if not Path(input).exists():
        raise UserError(input, "wanted images, there is no such file or folder")
    workflow = open_workflow(
        bundle,
        "inference",
        dataset_dir=str(Path(input).resolve()),
        output_dir=str(Path(output).resolve()),
        device=device,
        overwrite=overwrite,
    )
    cases = [case["case"] for case in workflow.parser.get_parsed_content("dataset").data]
    _refuse_clashes(cases, Path(output), overwrite)
    workflow.run()
    count = len(cases)
    return f"{count} mask{'s' if count != 1 else ''} written to {output}"


def _refuse_clashes(cases: list[str], output: Path, overwrite: bool) -> None:
    """Tell before the work, not amid it, that two masks would share a file or one is there already."""
    twice = [case for case, count in Counter(cases).items() if count > 1]
    if twice:
        raise UserError("--input", f"wanted images of different names, got several called {twice[0]!r}; rename them")
    there = [path for case in cases for end in (".png", ".nii.gz") if (path := output / f"{case}{end}").exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(there[0], f"there is a mask already{more}; choose another --output or give --overwrite")
