"""Why a series is refused: a closed list of reasons, and the one error that carries them.

No message holds a value of the data set that could name a patient: only numbers of the geometry, counts and
transfer-syntax UIDs appear.
"""

from __future__ import annotations

from enum import StrEnum

from genseg_monai.errors import UserError

__all__ = ["SeriesError", "SeriesFault"]


class SeriesFault(StrEnum):
    """The reasons for which a file or a series is refused."""

    NOT_DICOM = "not_dicom"
    """Neither a DICOM file nor a data set without file meta information."""
    NOT_AN_IMAGE = "not_an_image"
    """A report, a plan, a structure set, a segmentation, a dose: DICOM, but no image to segment."""
    NO_IMAGES = "no_images"
    """The folder holds no image at all."""
    UNREADABLE = "unreadable"
    """The header cannot be parsed, is nested too deep, or holds impossible values."""
    TRUNCATED = "truncated"
    """The file ends before its pixels do."""
    BAD_UID = "bad_uid"
    """A UID holds other characters than digits and points, or more than 64 of them."""
    TOO_LARGE = "too_large"
    """More pixels, or more inflated bytes, than the limits allow."""
    TRANSFER_SYNTAX = "transfer_syntax"
    """A transfer syntax that is unknown, or for which no pinned decoder exists (video, for example)."""
    PIXELS = "pixels"
    """The decoder failed, ran out of memory or time, or gave another size than the header says."""
    COLOUR = "colour"
    """Colour or palette pixels: no grey values to read."""
    VALUES = "values"
    """Stored values cannot be turned into grey values by slope and intercept (a look-up table, floats)."""
    SEVERAL_SERIES = "several_series"
    """More than one series where one was wanted."""
    LOCALIZER = "localizer"
    """Only localizer (scout) images or screen shots."""
    MIXED_ORIENTATION = "mixed_orientation"
    """Slices of one series that are not parallel, or lie in different frames of reference."""
    MIXED_SIZE = "mixed_size"
    """Slices of one series with different rows, columns, pixel spacing, modality or pixel format."""
    DUPLICATE = "duplicate"
    """Two files of the same SOP instance with different content."""
    SAME_POSITION = "same_position"
    """Several slices at one position: phases, echoes or acquisitions in one series."""
    NO_POSITION = "no_position"
    """Several slices, or frames, without a position and an orientation in the patient."""
    GEOMETRY = "geometry"
    """Position, orientation or spacing with impossible values, or slices that do not lie on one line."""
    GANTRY_TILT = "gantry_tilt"
    """The slices are stacked at an angle to their normal."""
    MISSING_SLICE = "missing_slice"
    """Uneven steps between the slices."""
    INCOMPLETE = "incomplete"
    """Fewer, or more, instances than the archive has, or one of them cannot be read."""


class SeriesError(UserError):
    """A file or series that is not read, and why.

    Args:
        where: the file or folder.
        reason: the fault, a `SeriesFault` or its value.
        problem: what was wanted, what came, what to do; without any value that could name a patient.

    Example:
        >>> error = SeriesError("scan", "gantry_tilt", "wanted slices stacked along their normal, got 12.0 degrees")
        >>> error.reason is SeriesFault.GANTRY_TILT
        True
    """

    def __init__(self, where: object, reason: SeriesFault | str, problem: str) -> None:
        super().__init__(where, problem)
        self.reason = SeriesFault(reason)
        self.args = (self.where, self.reason, problem)  # what pickling hands to __init__
