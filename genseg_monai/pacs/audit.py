"""What a pull writes down: a line of the sealed log for each series, and a ledger of what need not be fetched again.

Neither holds an original value: series are named by keyed pseudonyms (`genseg_monai.dicom.audit` seals the lines).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genseg_monai.dicom.audit import AuditLog
from genseg_monai.dicom.output import Progress
from genseg_monai.dicom.uids import Key
from genseg_monai.pacs.choose import Wanted
from genseg_monai.pacs.records import SeriesRecord

__all__ = ["Ledger"]


class Ledger:
    """Remembers the series of an output folder.

    Args:
        out: the output folder.
        key: names series and seals lines.
        geometry: what was to be done with tilted and incomplete stacks: a refused one is not tried again.

    Raises:
        UserError: the folder was written with another key or geometry, or its log was changed.
    """

    def __init__(self, out: Path, key: Key, geometry: Sequence[str] = ()) -> None:
        self.key, self._log = key, out / "audit.jsonl"
        settings = {"command": "pull", "key": key.fingerprint, "geometry": list(geometry)}
        self._done = Progress(out / ".genseg" / "pull", settings)

    def name(self, series: SeriesRecord) -> str:
        """Return the pseudonym of a series."""
        return self.key.name("series", series.series_uid)

    def has(self, wanted: Wanted) -> bool:
        """Say whether a series, with the same instances and annotations, is in the data set or was refused."""
        record = self._done.records.get(self.name(wanted.images))
        return record is not None and record["signature"] == self._signature(wanted)

    def settle(self, wanted: Wanted, reason: str = "") -> None:
        """Remember a series as done."""
        self._done.add(self.name(wanted.images), signature=self._signature(wanted), reason=reason)

    def write(self, event: str, **facts: object) -> None:
        """Append a line to the audit log; `facts` must hold no original value."""
        with AuditLog(self._log, self.key) as log:
            log.write(event, **facts)

    def _signature(self, wanted: Wanted) -> str:
        parts = (wanted.images, *wanted.annotations)
        lines = ["/".join((one.series_uid, *sorted(i.uid for i in one.instances), str(one.count))) for one in parts]
        return self.key.name("wanted", "\n".join(sorted(lines)))
