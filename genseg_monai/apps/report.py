"""`genseg report`: what a training or a study found, as one page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genseg_monai.errors import UserError

__all__ = ["report"]

logger = logging.getLogger(__name__)


def report(out: str, *, data: str | None = None, device: str = "cpu", pictures: bool = True) -> str:
    """Write report.html, one file that needs no network, and report.md, its twin without pictures.

    It tells whether GenSeg helped (and says no when the answer is no), shows the scores with their intervals, the
    curves, the best, the median and the worst case, synthetic images and what they are worth, the architecture found,
    calibration, cost, and what is needed to repeat it. The HTML file holds images of your cases.

    Args:
        out: the output folder of a training or of a study
        data: the data set, if it is no longer where the training read it
        device: cpu, cuda or cuda:N, for looking at cases and synthetic images
        pictures: whether cases and synthetic images are looked at; --pictures false leaves out all that needs the data

    Returns:
        The verdict, and what was written.

    Raises:
        UserError: no such folder, or nothing in it to report on.

    Example:
        genseg report runs/feet
        genseg report runs/study
    """
    from genseg_monai.apps.reporting.page import write_page
    from genseg_monai.apps.reporting.run_report import run_page
    from genseg_monai.apps.reporting.sources import read_run
    from genseg_monai.apps.workflow import checked_device, quiet

    quiet()
    folder = Path(out)
    if not folder.is_dir():
        raise UserError(out, "wanted the output folder of a training or a study, there is no such folder")
    options: dict[str, Any] = {"data": data, "device": checked_device(device), "pictures": pictures}
    make: Callable[[], Any] = lambda: run_page(read_run(folder), **options)  # noqa: E731
    if (folder / "summary.json").is_file():
        from genseg_monai.apps.reporting.study_report import study_page

        make = lambda: study_page(folder, **options)  # noqa: E731
    page = make()
    html, markdown = write_page(page, folder)
    return f"{page.verdict}\nwritten to {html} (holds images of your cases) and {markdown.name}"
