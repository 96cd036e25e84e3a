"""`genseg pull`: a de-identified, checked data set from an archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from genseg_monai._outcome import RunFailed, report_only_kind
from genseg_monai.apps.command_line import one_of
from genseg_monai.apps.pacs_check import open_archive
from genseg_monai.apps.progress import bars
from genseg_monai.errors import UserError

__all__ = ["pull"]


def pull(
    *,
    pacs: str,
    out: str,
    route: str = "c-get",
    patient_id: str | None = None,
    accession: str | None = None,
    study_uid: str | None = None,
    series_uid: str | None = None,
    date: str | None = None,
    modality: str | None = None,
    description: str | None = None,
    rules: str | None = None,
    labels: str | None = None,
    profile: str | None = None,
    key_file: str | None = None,
    tilt: str = "refuse",
    gaps: str = "refuse",
    dry_run: bool = False,
) -> str:
    """Fetch image series and their annotations from an archive, and turn them into a data set without names.

    Everything given has to fit; of several values of one kind, one has to. What is fetched waits in a private folder
    beside OUT and is gone at the end. Run again, it goes on where it stopped.

    Args:
        pacs: the YAML file that says how the archive is reached
        out: the folder for the data set
        route: c-get, c-move or dicomweb
        patient_id: patient identifiers, separated by commas, or @FILE with one a line
        accession: accession numbers, in the same way
        study_uid: study UIDs, in the same way
        series_uid: series UIDs, in the same way
        date: study date, 20240101 or 20240101-20241231
        modality: CT, MR, ...; several separated by commas
        description: pattern of the series description: with * and ?, or /regular expression/i
        rules: a YAML file of rules that choose series
        labels: a YAML file that gives names of segments and regions their classes
        profile: a YAML file of de-identification options
        key_file: the secret key, mode 0600; else GENSEG_KEY_FILE names it
        tilt: what to do with a tilted gantry: refuse, shear or resample
        gaps: what to do with one missing slice: refuse or fill
        dry_run: only say what would be fetched

    Returns:
        What was done.

    Raises:
        UserError: wrong use, or a file that does not say what it should.
        RunFailed: the archive could not be reached, some series did not arrive, or the data set is empty.

    Example:
        genseg pull --pacs pacs.yaml --out liver --date 20240101-20241231 --modality CT --key-file key --dry-run
    """
    from genseg_monai.dicom.dataset import load_labels
    from genseg_monai.dicom.geometry import Gaps, Tilt
    from genseg_monai.dicom.profile import load_profile
    from genseg_monai.dicom.uids import Key
    from genseg_monai.pacs.pull import look
    from genseg_monai.pacs.pull import pull as fetch
    from genseg_monai.pacs.records import Query
    from genseg_monai.pacs.rules import load_rules

    query = Query(
        patient_id=_several("--patient-id", patient_id),
        accession=_several("--accession", accession),
        study_uid=_several("--study-uid", study_uid),
        series_uid=_several("--series-uid", series_uid),
        date=date or "",
        modality=_several("--modality", modality),
        description=description or "",
    )
    chosen = load_rules(rules)
    classes = load_labels(labels) if labels else None
    kept = load_profile(profile)
    geometry = {"tilt": one_of("--tilt", tilt, Tilt), "gaps": one_of("--gaps", gaps, Gaps)}
    key = None if dry_run else Key.load(key_file)
    with open_archive(pacs, route) as archive, bars() as tell, report_only_kind("pull"):
        if key is None:
            return _report(look(archive, query, chosen, tell))
        done = fetch(archive, query, out, key=key, rules=chosen, labels=classes, profile=kept, tell=tell, **geometry)
    lines = [
        _report(done.choice),
        f"data set: {done.labelled} labelled and {done.unlabelled} unlabelled cases in {out}",
    ]
    if done.refused:
        lines.append(f"refused: {_counts(done.refused)}; quarantine.csv lists them")
    if done.unknown:
        lines.append(f"names without a class: {', '.join(done.unknown)}; add them to labels.yaml")
    problem = ""
    if done.failed or done.choice.failed:
        counts = _counts(done.failed + done.choice.failed)
        problem = f"some series did not arrive ({counts}); run it again, what arrived is kept"
    elif not done.labelled + done.unlabelled:
        problem = "the data set is empty: no study matches, no series fits the rules, or every one was refused"
    if problem:
        for line in lines:
            print(line)
        raise RunFailed("pull", problem)
    return "\n".join(lines)


def _report(choice: object) -> str:
    from genseg_monai.pacs.choose import Choice

    assert isinstance(choice, Choice)
    count: Callable[[object], int] = lambda s: len(s.instances) or s.count or 0  # type: ignore[attr-defined]  # noqa: E731
    images = [one.images for one in choice.wanted]
    notes = {s.series_uid: s for one in choice.wanted for s in one.annotations}
    lines = [
        f"archive: {choice.studies} studies match, with {_counts(choice.seen) or 'no'} series",
        f"rules: {choice.passed} image series fit, {len(images)} chosen ({sum(map(count, images))} instances)",
        f"annotations in their studies: {_counts(Counter(s.modality for s in notes.values())) or 'none'}",
    ]
    if choice.failed:
        lines.append(f"could not be looked at: {_counts(choice.failed)}")
    return "\n".join(lines)


def _counts(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


def _several(flag: str, value: str | None) -> tuple[str, ...]:
    """Read a list: separated by commas, or one a line in a file named after an @."""
    if value is None:
        return ()
    if value.startswith("@"):
        try:
            lines = Path(value[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(flag, "wanted a readable file behind the @, with one value a line") from None
        found = tuple(line.strip() for line in lines if line.strip())
    else:
        found = tuple(one.strip() for one in value.split(",") if one.strip())
    if not found:
        raise UserError(flag, "wanted at least one value, got none")
    return found
