"""`genseg generate`: images for masks, with the generator of a trained bundle."""

from __future__ import annotations

from pathlib import Path

from genseg_monai.apps.workflow import open_workflow
from genseg_monai.errors import UserError

__all__ = ["generate"]


def generate(
    *,
    bundle: str,
    masks: str,
    output: str,
    images: str | None = None,
    count: int = 1,
    seed: int = 0,
    device: str | None = None,
) -> str:
    """Make synthetic images for masks; writes images/ and masks/ at the working size of the bundle.

    The first image of a mask shows the mask as it is; each further one shows it moved and bent a little.

    Args:
        bundle: the folder of what a training left
        masks: a mask or a folder of masks, with the label values of the training data
        output: the folder for images/ and masks/
        images: images of the same names, for a generator trained with --synthesis styles or scenes
        count: images for each mask
        seed: of the random numbers that bend the masks
        device: cpu, cuda or cuda:N; the GPU if there is one

    Returns:
        What was done.

    Raises:
        UserError: no generator, no masks, or a file is there already.
        RunFailed: some masks could not be read.

    Example:
        genseg generate --bundle runs/feet --masks feet/masks --output synthetic --count 5
    """
    if not Path(masks).exists():
        raise UserError(masks, "wanted masks, there is no such file or folder")
    if images is not None and not Path(images).exists():
        raise UserError(images, "wanted images, there is no such file or folder")
    workflow = open_workflow(
        bundle,
        "generate",
        dataset_dir=str(Path(masks).resolve()),
        image_dir=None if images is None else str(Path(images).resolve()),
        output_dir=str(Path(output).resolve()),
        count=count,
        seed=seed,
        device=device,
    )
    workflow.run()
    written = len(workflow.parser.get_parsed_content("synthesis").written)
    return f"{written} image{'s' if written != 1 else ''} and masks written to {output}"
