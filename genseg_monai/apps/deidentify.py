"""`genseg deidentify`: DICOM files without names, dates and marks of a person."""

from __future__ import annotations

from genseg_monai._outcome import RunFailed, report_only_kind
from genseg_monai.apps.progress import bars
from genseg_monai.dicom.folder import deidentify_folder
from genseg_monai.dicom.profile import load_profile
from genseg_monai.dicom.uids import Key

__all__ = ["deidentify", "tell_refused"]


def deidentify(source: str, out: str, *, profile: str | None = None, key_file: str | None = None) -> str:
    """De-identify the DICOM files of a folder, by the profile of PS3.15 Annex E.

    What is suspected of burned-in text, a screen shot or a face, and what cannot be read, is left where it is and
    listed in OUT/quarantine.csv. Run again, it goes on where it stopped.

    Args:
        source: the folder of DICOM files
        out: the folder to write to, apart from the first
        profile: a YAML file with options and quarantine rules; none is the basic profile
        key_file: the secret behind all pseudonyms, mode 0600; or the variable GENSEG_KEY_FILE.
            (umask 077; head -c 32 /dev/urandom > key) makes one; keep it apart from OUT

    Returns:
        What was done.

    Raises:
        UserError: the folders, the profile or the key do not fit.
        RunFailed: not one file could be de-identified.

    Example:
        genseg deidentify incoming clean --profile profile.yaml --key-file key
    """
    with report_only_kind("deidentify"), bars() as tell:
        summary = deidentify_folder(
            source,
            out,
            profile=load_profile(profile),
            key=Key.load(key_file),
            progress=lambda number, total: tell("de-identify", number, total),
        )
    told = f"{summary.written} objects written, {tell_refused(summary.refused)}"
    if not summary.written:
        raise RunFailed("deidentify", f"wanted at least one DICOM file that may be written, got none: {told}")
    return told


def tell_refused(refused: dict[str, int]) -> str:
    """Return how much was refused for what, in words."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in refused.items())
    return f"{sum(refused.values())} refused" + (f" ({reasons}), listed in quarantine.csv" if reasons else "")
