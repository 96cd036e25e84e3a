"""`genseg push`: predictions back to an archive."""

from __future__ import annotations

from genseg_monai._outcome import RunFailed, report_only_kind
from genseg_monai.apps.progress import bars

__all__ = ["push"]


def push(path: str, *, pacs: str, route: str = "c-store") -> str:
    """Send DICOM files, such as `genseg predict --dicom-seg` writes, to an archive.

    Args:
        path: a DICOM file or a folder of them
        pacs: the YAML file that says how the archive is reached
        route: c-store or stow-rs

    Returns:
        What was done.

    Raises:
        UserError: wrong use, or nothing to send.
        RunFailed: the archive could not be reached, or did not take everything.

    Example:
        genseg push masks --pacs pacs.yaml --route stow-rs
    """
    from genseg_monai.dicom.output import hash_file
    from genseg_monai.pacs.push import push as send
    from genseg_monai.pacs.settings import load_settings

    settings = load_settings(pacs)
    with bars() as tell, report_only_kind("push"):
        done = send(path, settings, route, progress=lambda number, total: tell("send", number, total))
    if done.failed:
        for refused, reason in done.refused:  # by its digest, as in quarantine.csv: a name may be a patient's
            print(f"not taken: {'' if reason == 'unreadable' else hash_file(refused)} {reason}")
        reasons = ", ".join(f"{number} {name}" for name, number in sorted(done.failed.items()))
        raise RunFailed("push", f"{done.sent} objects sent, {sum(done.failed.values())} not taken ({reasons})")
    return f"{done.sent} object{'s' if done.sent != 1 else ''} sent"
