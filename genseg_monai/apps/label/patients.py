"""Pseudonyms of the patients of an archive."""

from __future__ import annotations

from pathlib import Path

from genseg_monai.dicom.uids import Key

__all__ = ["UNKNOWN", "patient_key"]

UNKNOWN = "UNK"
"""What MONAI Label notes for an attribute that the archive has no value of."""


def patient_key(home: Path) -> Key:
    """Return the secret key of a label server, ``patients.key`` in its folder; it is made at the first call.

    Args:
        home: folder of the server.

    Raises:
        UserError: the file is damaged, or others than its owner may read it.

    Example:
        >>> import tempfile
        >>> home = Path(tempfile.mkdtemp())
        >>> patient_key(home).patient("4711") == patient_key(home).patient("4711")
        True
    """
    path = home / "patients.key"
    return Key.load(path) if path.exists() else Key.create(path)
