"""`genseg incontext`: masks for images from a few labelled ones, without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genseg_monai.apps.predict import refuse_clashes
from genseg_monai.apps.workflow import open_workflow, shipped_bundle
from genseg_monai.errors import UserError

__all__ = ["check_numbers", "incontext", "universeg_weights"]


def incontext(
    *,
    support: str,
    input: str,
    output: str,
    support_size: int = 40,
    ensemble: int = 8,
    size: int = 128,
    weights: str | None = None,
    generator: str | None = None,
    synthetic: int = 2,
    score: bool = False,
    uncertainty: bool = False,
    label_dir: str | None = None,
    dicom_seg: bool = False,
    fractional: bool = False,
    codes: str | None = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
) -> str:
    """Segment images by a few labelled ones, without any training: each mask gets the size and position of its image.

    A pre-trained network (UniverSeg) is shown up to --support-size labelled images, those most like the image, and
    segments it alike; --ensemble such passes are averaged. Volumes are segmented plane by plane. PNG, JPEG and TIFF
    give PNG with the class number in each pixel; NIfTI and DICOM series give NIfTI. An image that cannot be read is
    reported and left out; the exit code is then 1.

    Args:
        support: the labelled images: a data set in any layout `train` reads; its training split, where it has one
        input: an image, a folder of images, a DICOM series or a folder of series
        output: the folder for the masks
        support_size: labelled images (of volumes: planes) shown in a pass; fewer are faster
        ensemble: passes averaged; 1 is fastest
        size: pixels on a side that the network sees; 64 takes a quarter of the time and misses what is small
        weights: the weights of the network; those the package ships, or UniverSeg's own checkpoint
        generator: what a training left: its generator adds synthetic images to the labelled ones
        synthetic: with --generator: synthetic images for each labelled one
        score: the input is a labelled data set: segment its test cases and print their Dice (with --generator also
            without the synthetic images)
        uncertainty: also write a map of the uncertainty of each mask, and uncertainty.csv
        label_dir: the folder of masks of a data set, where there are several
        dicom_seg: for DICOM series: also write each mask as DICOM SEG, which `push` sends to an archive
        fractional: with --dicom-seg: the probabilities of the classes instead of a mask
        codes: a YAML file with the codes of the classes for the DICOM SEG, such as {liver: {type: 10200004 SCT Liver}}
        seed: of the draws
        device: cpu, cuda or cuda:N; the GPU if there is one
        overwrite: replace masks that are there already

    Returns:
        What was done; with --score, the Dice.

    Raises:
        UserError: nothing to do it with, nothing to do it to, or a mask is there already.
        RunFailed: some images could not be read.

    Example:
        genseg incontext --support labelled --input new_images --output masks
        genseg incontext --support liver --input new_series --output masks --dicom-seg --uncertainty
        genseg incontext --support feet --input feet --output masks --generator runs/feet --score
    """
    path = universeg_weights(weights)
    if "://" not in input and not Path(input).exists():
        raise UserError(input, "wanted images, there is no such file or folder")
    if (fractional or codes is not None) and not dicom_seg:
        raise UserError("--fractional" if fractional else "--codes", "goes with --dicom-seg; add it, or leave this out")
    check_numbers(support_size, ensemble, size)
    if synthetic < 1:
        raise UserError("--synthetic", f"wanted 1 or more, got {synthetic}")
    workflow = open_workflow(
        shipped_bundle(),
        "incontext",
        support_dir=_resolved(support),
        label_dir=label_dir,
        dataset_dir=_resolved(input),
        output_dir=str(Path(output).resolve()),
        weights=str(path),
        generator=None if generator is None else str(Path(generator).resolve()),
        synthetic=synthetic,
        size=size,
        uncertainty=uncertainty or None,
        dicom_seg=("fractional" if fractional else "binary") if dicom_seg else None,
        codes=str(Path(codes).resolve()) if codes is not None else None,
        seed=seed,
        device=device,
        overwrite=overwrite,
        **{"settings#support_size": support_size, "settings#ensemble": ensemble},
    )
    parser = workflow.parser
    supports = parser.get_parsed_content("support_cases")
    if score:
        from genseg_monai.apps.support_scores import cases_to_score

        parser["dataset#data"] = cases_to_score(_resolved(input), supports, label_dir)
    cases = parser.get_parsed_content("dataset").data
    endings = [".png", ".nii.gz", *[".dcm"] * dicom_seg]
    endings += ["_uncertainty.png", "_uncertainty.nii.gz"] * uncertainty
    refuse_clashes([case["case"] for case in cases], Path(output), tuple(endings), overwrite)
    workflow.run()
    more = len(parser.get_parsed_content("synthetic_cases"))
    by = f"{len(supports)} labelled cases" + (f" and {more} synthetic ones" if more else "")
    dicom = ", as DICOM SEG too" if dicom_seg else ""
    done = f"{len(cases)} mask{'s' if len(cases) != 1 else ''} written to {output} by {by}{dicom}"
    return f"{_told(parser, cases, Path(output))}\n{done}" if score else done


def check_numbers(support_size: int, ensemble: int, size: int) -> None:
    """Refuse numbers out of range.

    Raises:
        UserError: naming the flag.
    """
    for flag, number, least in (("--support-size", support_size, 1), ("--ensemble", ensemble, 1), ("--size", size, 16)):
        if number < least:
            raise UserError(flag, f"wanted {least} or more, got {number}")


def universeg_weights(given: str | None) -> Path:
    """Return the file of the weights.

    Args:
        given: the file, or None for the one that comes with the package.

    Raises:
        UserError: it is not there.
    """
    path = Path(given) if given is not None else shipped_bundle() / "models" / "universeg" / "model.pt"
    if not path.is_file():
        todo = "correct the path" if given is not None else "give --weights FILE, such as UniverSeg's own checkpoint"
        raise UserError(path, f"wanted the weights of UniverSeg, there is no such file; {todo}")
    return path


def _resolved(path: str) -> str:
    return path if "://" in path else str(Path(path).resolve())


def _told(parser: Any, cases: list[dict[str, Any]], output: Path) -> str:
    """Return the table of the Dice of the masks written and, with synthetic supports, of those without."""
    from tqdm import tqdm

    from genseg_monai.apps.support_scores import dice_table, score_masks
    from genseg_monai.data.read import LabelReader
    from genseg_monai.inferers.in_context_segmenter import InContextSegmenter
    from genseg_monai.transforms.save import file_name

    names = ("support_cases", "synthetic_cases", "support_plan", "settings", "network", "size", "device", "axis")
    supports, synthetic, plan, settings, network, size, device, axis = map(parser.get_parsed_content, names)
    reader = LabelReader()

    def written(case: Mapping[str, Any]) -> Any:
        stem = file_name(case["case"])
        path = next(path for end in (".png", ".nii.gz") if (path := output / f"{stem}{end}").is_file())
        return reader.get_data(reader.read(path))[0]

    count = len(supports)
    columns = {
        f"{count} labelled + {len(synthetic)} synthetic" if synthetic else f"{count} labelled": score_masks(
            cases, plan, written
        )
    }
    if synthetic:
        plain = InContextSegmenter(network, supports, settings, plan=plan, size=size, axis=axis, device=device)
        bar = tqdm(cases, desc="without synthetic", disable=None)
        columns[f"{count} labelled"] = score_masks(bar, plan, lambda case: plain.segment(case).mask.as_tensor())
    return dice_table(columns)
