"""`genseg study`: does it help on these data, by how much, and how sure is that?"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

from genseg_monai._outcome import RunFailed
from genseg_monai.apps.studies.executors import Executor, share_threads, start_another, submit_and_wait
from genseg_monai.apps.studies.ledger import Ledger, State
from genseg_monai.apps.studies.length import settle
from genseg_monai.apps.studies.progress import StudyProgress
from genseg_monai.apps.studies.settings import StudySettings, read_config
from genseg_monai.apps.studies.words import arm, factor, listed, segmenter, whole
from genseg_monai.apps.train import check_ids, config_files, spelt
from genseg_monai.errors import UserError

__all__ = ["study"]

logger = logging.getLogger(__name__)

_SLURM_JOBS = 4
_ENDED = (State.DONE, State.FAILED)
_ARMS = "plain,augment,separate,no_search,genseg"


def study(
    *,
    data: str,
    out: str,
    arms: str = _ARMS,
    seeds: str = "0,1,2",
    sizes: str | None = None,
    segmenters: str | None = None,
    test: str | None = None,
    budget: str | None = None,
    updates: int | None = None,
    rates: str = "0.3,1,3",
    preset: str | None = None,
    weights: str | None = None,
    ensemble: int = 8,
    device: str | None = None,
    dry_run: bool = False,
    executor: str = "local",
    jobs: int | None = None,
    slurm: str | None = None,
    **overrides: str,
) -> str:
    """Compare GenSeg with what it has to beat on your own cases: same cases, updates and images for every arm.

    Arms: plain, augment (the bar), rotate, flip, translate, combine, copy_paste, wgan, separate, no_search, genseg,
    paper, scenes, styles, nnunet_style, incontext. Every cell is a bundle in OUT/cells; run the same command again and
    it goes on where it stopped, with more arms, seeds or sizes if they are given. On several GPUs one process runs on
    each; --jobs 4 runs four at a time, on the CPU or on GPUs that have room. Results: OUT/summary.json, summary.csv,
    scores.csv. Further --ID VALUE are overrides of train.yaml for all arms alike.

    Args:
        data: the data set, in any layout the training reads
        out: folder of the study
        arms: what to compare, with commas between
        seeds: of the trainings and of the draw of training cases
        sizes: numbers of training cases, such as 10,20,40; smaller sets are parts of larger ones; all if not given
        segmenters: such as unet,deeplab; that of the configuration if not given
        test: other data sets to score on too, with commas between
        budget: wall-clock time of the whole study, such as 60m, turned once into the number of updates of every cell
        updates: of the segmenter in every cell, instead of a budget; 2000 if neither is given
        rates: factors on each arm's learning rate, of which the validation cases choose one; 1 chooses nothing
        preset: name of a file in configs/
        weights: file of UniverSeg's weights for the arm incontext
        ensemble: passes that the arm incontext averages; 1 is fastest
        device: cpu, cuda or cuda:N; all GPUs if not given
        dry_run: print the cells and what they will take, and run nothing
        executor: local, or slurm: jobs of a cluster with a GPU each (needs submitit, OUT on a shared disk, --updates)
        jobs: cells at a time; one for every GPU if not given, or four jobs of slurm
        slurm: what its jobs want, such as partition=gpu,timeout_min=600,cpus_per_task=8
        **overrides: any id of train.yaml and its value

    Returns:
        The results as a table.

    Raises:
        UserError: wrong use or wrong data.
        RunFailed: some cells failed; the others are done.

    Example:
        genseg study --data my_cases --out runs/study --budget 8h --arms plain,augment,genseg
    """
    from genseg_monai.apps.studies.labels import check_labels
    from genseg_monai.apps.studies.run_cell import study_cases
    from genseg_monai.apps.studies.worker import work

    folder = Path(out)
    config = read_config(preset)
    check_ids(config_files(preset), overrides)
    settings = StudySettings(
        data=data,
        arms=listed("--arms", arms, arm),
        seeds=listed("--seeds", seeds, whole),
        sizes=tuple(sorted(listed("--sizes", sizes, whole))) if sizes else (1,),
        segmenters=listed("--segmenters", segmenters, segmenter) if segmenters else (str(config["segmenter"]),),
        test=listed("--test", test, str) if test else (),
        preset=preset,
        rates=listed("--rates", rates, factor),
        overrides=spelt(overrides),
        weights=weights,
        rate_size=1,
        ensemble=ensemble,
    )
    if ensemble < 1:
        raise UserError("--ensemble", f"wanted 1 or more, got {ensemble}")
    everyone, scored = study_cases(settings)
    chosen = settings.sizes if sizes else (len(everyone),)
    if max(chosen) > len(everyone):
        raise UserError("--sizes", f"wanted at most the {len(everyone)} training cases there are, got {max(chosen)}")
    settings = replace(settings, sizes=chosen, rate_size=max(chosen))
    if executor not in list(Executor):
        raise UserError("--executor", f"wanted {' or '.join(Executor)}, got {executor!r}")
    if executor == Executor.SLURM and budget is not None:
        raise UserError("--budget", "wanted --updates: what a step costs is measured here, not where SLURM runs it")
    if jobs is not None and jobs < 1:
        raise UserError("--jobs", f"wanted 1 or more, got {jobs}")
    slots = _SLURM_JOBS if jobs is None else jobs
    devices = _devices(device, jobs) if executor == Executor.LOCAL else ["cpu"] * slots
    settings, costs = settle(folder, settings, budget=budget, updates=updates, devices=devices, keep=not dry_run)
    cells = settings.cells()
    check_labels(settings, everyone, scored)
    counts = ", ".join(f"{len(cases)} {name}" for name, cases in scored.items())
    logger.info(
        "%d cells of %d updates, %d learning rates an arm on the validation cases; cases: %s",
        len(cells), settings.updates, len(settings.rates), counts,
    )  # fmt: skip
    progress = StudyProgress(folder, cells, costs, len(devices))
    if dry_run:
        return progress.table()
    if executor == Executor.SLURM:
        submit_and_wait(folder, slots, slurm)
        return _results(folder, settings, [])
    share_threads(len(devices))
    others = [start_another(folder, place) for place in devices[1:]]
    try:
        failed = work(folder, settings, devices[0], progress)
        for other in others:
            other.wait()
        states = {name: record["state"] for name, record in Ledger(folder).latest().items()}
        ended = [name for name, state in states.items() if state == State.FAILED]
        failed += work(folder, settings, devices[0], progress, given_up=ended)  # what a process that vanished has left
    finally:
        for other in others:
            if other.poll() is None:
                other.terminate()  # it saves and leaves
    return _results(folder, settings, failed)


def _results(folder: Path, settings: StudySettings, failed: list[str]) -> str:
    from genseg_monai.apps.studies.results import results_table, write_results

    summary = write_results(folder, settings)
    latest = Ledger(folder).latest()
    broken = [cell.id for cell in settings.cells() if latest.get(cell.id, {}).get("state") == State.FAILED]
    open_yet = [cell.id for cell in settings.cells() if latest.get(cell.id, {}).get("state") not in _ENDED]
    text = results_table(summary) + f"\nwritten to {folder / 'summary.json'}, summary.csv and scores.csv"
    if broken or failed:
        sys.stdout.write(text + "\n")
        first = latest[(broken or failed)[0]]
        raise RunFailed(
            folder, f"{len(broken)} of {len(settings.cells())} cells failed, {first['cell']} because: "
            f"{first.get('reason')}; the same command tries them again",
        )  # fmt: skip
    if open_yet:
        sys.stdout.write(text + "\n")
        raise RunFailed(
            folder, f"{len(open_yet)} of {len(settings.cells())} cells have not ended, {open_yet[0]} among them: "
            "another process is at work on them or has vanished; the same command goes on with them",
        )  # fmt: skip
    return text


def _devices(given: str | None, jobs: int | None) -> list[str]:
    """Return the device of each process: the one given, else every GPU, else the CPU; in turn where more are wanted."""
    if given is not None:
        from genseg_monai.apps.workflow import checked_device

        found = [checked_device(given)]
    else:
        import torch

        found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    return [found[i % len(found)] for i in range(jobs or len(found))]
