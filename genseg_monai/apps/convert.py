"""`genseg convert`: a folder of DICOM files to a data set that `genseg train` reads."""

from __future__ import annotations

from genseg_monai._outcome import RunFailed, report_only_kind
from genseg_monai.apps.command_line import one_of
from genseg_monai.apps.deidentify import tell_refused
from genseg_monai.apps.progress import bars
from genseg_monai.dicom.convert import convert_folder
from genseg_monai.dicom.dataset import load_labels
from genseg_monai.dicom.geometry import Gaps, Tilt
from genseg_monai.dicom.profile import load_profile
from genseg_monai.dicom.uids import Key

__all__ = ["convert"]


def convert(
    source: str,
    out: str,
    *,
    labels: str | None = None,
    key_file: str | None = None,
    profile: str | None = None,
    tilt: str = "refuse",
    gaps: str = "refuse",
) -> str:
    """Convert DICOM series, with the SEG and RTSTRUCT objects that refer to them, to NIfTI in the Decathlon layout.

    Names and dates are left behind; every file name is a pseudonym. A series that cannot be read rightly is refused,
    with the reason. Run again, it goes on where it stopped.

    Args:
        source: the folder of DICOM files
        out: the folder for the data set, apart from the first
        labels: a YAML file such as {liver: 1, tumour: 2}; none numbers the names found, as far as they are known words
        key_file: the secret behind all pseudonyms, mode 0600; or the variable GENSEG_KEY_FILE.
            (umask 077; head -c 32 /dev/urandom > key) makes one; keep it apart from OUT
        profile: a YAML file with quarantine rules; none refuses all that may show text or a face
        tilt: what to do with a tilted gantry: refuse, shear or resample
        gaps: what to do with one missing slice: refuse or fill

    Returns:
        What was done.

    Raises:
        UserError: the folders, the labels, the profile or the key do not fit.
        RunFailed: not one series could be converted.

    Example:
        genseg convert clean dataset --labels labels.yaml --key-file key
    """
    with report_only_kind("convert"), bars() as tell:
        result = convert_folder(
            source,
            out,
            None if labels is None else load_labels(labels),
            key=Key.load(key_file),
            profile=load_profile(profile),
            tilt=one_of("--tilt", tilt, Tilt),
            gaps=one_of("--gaps", gaps, Gaps),
            progress=lambda number, total: tell("convert", number, total),
        )
    unknown = f"; names without a class: {', '.join(result.unknown)}" if result.unknown else ""
    counts = f"{result.labelled} cases with labels, {result.unlabelled} without"
    told = f"{counts}, {tell_refused(result.refused)}{unknown}"
    if not result.labelled + result.unlabelled:
        raise RunFailed("convert", f"wanted at least one series that can be read, got none: {told}")
    return told
