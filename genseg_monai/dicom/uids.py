"""Keyed pseudonyms: the same UID, patient id, file name and date shift for the same original in every run and object.

Each is an HMAC-SHA256 of the original under a secret key, with a label of its own so that no two kinds can be compared:
no table of originals has to be kept, and without the key nothing leads back. Whoever holds the key apart can recompute
the pseudonym of a known patient, which is the way to re-identify.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import NoReturn

from pydicom.uid import UID, UID_dictionary

from genseg_monai.errors import UserError

__all__ = ["KEY_VARIABLE", "Key"]

KEY_VARIABLE = "GENSEG_KEY_FILE"
_BYTES = 32
_YEAR = 364  # 52 weeks: a shift by a multiple of 7 keeps the day of the week


class Key:
    """The secret behind every pseudonym. It is never printed, pickled or written into an output.

    Args:
        secret: at least 32 bytes.

    Example:
        >>> key = Key(bytes(32))
        >>> key.uid("1.2.3") == key.uid("1.2.3"), len(key.uid("1.2.3")) <= 44, key.uid("1.2.840.10008.1.2.1")
        (True, True, '1.2.840.10008.1.2.1')
        >>> key.patient("4711")
        '4KEW3T25ICUHSRI4'
        >>> key
        Key(fingerprint='9b6920b022580970')
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _BYTES:
            raise UserError("key", f"wanted at least {_BYTES} bytes, got {len(secret)}; make one with Key.create")
        self._secret = bytes(secret)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Key:
        """Read a key file: 64 hexadecimal digits, or at least 32 raw bytes.

        Args:
            path: the file; None takes the environment variable `GENSEG_KEY_FILE`.

        Raises:
            UserError: no file is named, it cannot be read, others than its owner may read it, or it is too short.
        """
        chosen = path or os.environ.get(KEY_VARIABLE)
        if not chosen:
            raise UserError(
                "--key-file", f"wanted the file of the secret key, got none; name one here or in {KEY_VARIABLE}"
            )
        try:
            # one open file for both questions, so that nobody can swap it in between
            with open(chosen, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(4096)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError(
                chosen, f"wanted a readable key file, got {reason}; `genseg deidentify --help` tells how"
            ) from None
        if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
            raise UserError(
                chosen,
                f"wanted a file of mode 0600, got {stat.S_IMODE(mode):04o}; run: chmod 600 on it, and ask who read it",
            )
        text = content.strip()
        if len(text) == 2 * _BYTES:
            try:
                return cls(bytes.fromhex(text.decode("ascii")))
            except ValueError:
                pass  # 64 raw bytes, not 64 digits
        if len(content) < _BYTES:
            raise UserError(
                chosen, f"wanted 64 hexadecimal digits or at least {_BYTES} bytes, got {len(content)} bytes"
            )
        return cls(content)

    @classmethod
    def create(cls, path: str | Path) -> Key:
        """Write a new random key to a file of mode 0600 that must not exist, and return it."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise UserError(
                path, "wanted a new file for the key, got one that exists; a lost key cannot be remade"
            ) from None
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
        return cls.load(path)

    @property
    def fingerprint(self) -> str:
        """Return what tells two keys apart and gives none away."""
        return self._digest("fingerprint", "").hex()[:16]

    def uid(self, original: str) -> str:
        """Return the new UID, `2.25.` and the decimal of 128 bits; UIDs that the standard itself defines stay."""
        text = original.strip("\0 ")
        if text in UID_dictionary:
            return text
        return UID(f"2.25.{int.from_bytes(self._digest('uid', text)[:16], 'big')}")

    def patient(self, original: str) -> str:
        """Return the pseudonym of a patient id: 16 letters and digits."""
        return self.name("patient", original.strip("\0 "))

    def name(self, kind: str, original: str) -> str:
        """Return 16 letters and digits for an original of that kind, fit for a file name."""
        return base64.b32encode(self._digest(kind, original)[:10]).decode()

    def days(self, patient: str, whole_weeks: bool = False) -> int:
        """Return by how many days every date of a patient goes back: 1 to 365, or a multiple of 7 up to 364."""
        number = int.from_bytes(self._digest("days", patient.strip("\0 "))[:8], "big")
        return 7 * (1 + number % (_YEAR // 7)) if whole_weeks else 1 + number % 365

    def sign(self, message: bytes) -> str:
        """Return the seal of a line of the audit log."""
        return hmac.new(self._secret, b"audit\0" + message, hashlib.sha256).hexdigest()

    def _digest(self, label: str, original: str) -> bytes:
        message = label.encode() + b"\0" + original.encode("utf-8", "surrogateescape")
        return hmac.new(self._secret, message, hashlib.sha256).digest()

    def __repr__(self) -> str:
        return f"Key(fingerprint={self.fingerprint!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled: it must not reach a checkpoint or a cache")
