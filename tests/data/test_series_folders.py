from __future__ import annotations

from pathlib import Path

import pytest

from genseg_monai.data.series_folders import series_images
from genseg_monai.dicom.series import SeriesError, SeriesFault, read_series
from tests.dicom.slices import make_slices, write_slices


def test_a_cut_slice_stays_with_its_series(tmp_path: Path) -> None:
    """Of two series in a folder, that of the cut file is refused when it is read, and the other is not."""
    folder = write_slices(tmp_path / "scan", make_slices())
    for path in sorted(folder.iterdir()):
        path.rename(path.with_stem(f"first_{path.stem}"))
    write_slices(folder, make_slices(series=2))
    last = folder / "019.dcm"
    last.write_bytes(last.read_bytes()[:-100])
    cut, whole = (image["image"] for image in series_images(tmp_path))
    assert str(last) in cut
    with pytest.raises(SeriesError) as caught:
        read_series(cut)
    assert caught.value.reason is SeriesFault.TRUNCATED
    assert read_series(whole).array.shape[2] == 20
