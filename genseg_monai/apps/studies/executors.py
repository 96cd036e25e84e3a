"""Where a study's processes run: on this machine, one a device, or as jobs of SLURM. The ledger divides the cells."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

from genseg_monai._optional import require
from genseg_monai._outcome import RunFailed
from genseg_monai.errors import UserError

__all__ = ["Executor", "Work", "read_options", "share_threads", "start_another", "submit_and_wait"]

_OPTION = re.compile(r"([a-z_]+)=([\w.:/@+-]+)")
_TAKEN = ("nodes", "tasks_per_node", "name")


class Executor(StrEnum):
    """Who starts the processes."""

    LOCAL = "local"
    """This one, for every GPU of the machine."""
    SLURM = "slurm"
    """SLURM, through submitit."""


def share_threads(processes: int) -> None:
    """Give this process, and those it starts, their share of the processor's cores; a smaller wish stays."""
    import torch

    threads = max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // processes))
    if processes > 1:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)


def start_another(folder: Path, device: str) -> subprocess.Popen[bytes]:
    """Start another process on the same study on this machine, for another device."""
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "genseg_monai.apps.studies", str(folder), device]
    name = device.replace(":", "_")
    with (logs / f"{name}.log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ})


class Work:
    """Work on a study, on whatever device the machine has; what a job of a cluster calls.

    A job that runs out of time, or has to make room, is submitted again: a cell goes on from its last checkpoint.

    Args:
        folder: of the study, on a disk that all machines share.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self) -> int:
        """Run cells until none is left; return 1 if some failed."""
        import torch

        from genseg_monai.apps.studies.__main__ import main

        return main(self.folder, "cuda" if torch.cuda.is_available() else "cpu")

    def checkpoint(self) -> Any:
        """Tell submitit to submit the same again."""
        return require("submitit", "--executor slurm").helpers.DelayedSubmission(self)


def read_options(text: str | None) -> dict[str, str | int]:
    """Read what SLURM is to be told, as ``partition=gpu,timeout_min=600``.

    Args:
        text: pairs with commas between; ``timeout_min``, ``mem_gb``, ``cpus_per_task`` and ``gpus_per_node`` are
            submitit's, any other name is one of sbatch.

    Raises:
        UserError: it is not of that form, or names what the study sets itself.

    Example:
        >>> read_options("partition=gpu,timeout_min=600")
        {'slurm_partition': 'gpu', 'timeout_min': 600}
    """
    found: dict[str, str | int] = {}
    for pair in filter(None, (text or "").split(",")):
        match = _OPTION.fullmatch(pair.strip())
        if match is None or match[1] in _TAKEN:
            raise UserError("--slurm", f"wanted options such as partition=gpu,timeout_min=600, got {pair.strip()!r}")
        name = (
            match[1] if match[1] in ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node") else f"slurm_{match[1]}"
        )
        found[name] = int(match[2]) if match[2].isdigit() else match[2]
    return found


def submit_and_wait(folder: Path, jobs: int, options: str | None, cluster: str = "slurm") -> None:
    """Have a study worked on by several jobs, each with a GPU, and wait until all have ended.

    Args:
        folder: of the study.
        jobs: how many.
        options: for `read_options`.
        cluster: as submitit calls it; ``local`` and ``debug`` are for trying out.

    Raises:
        UserError: submitit is missing, or cannot do with the options.
        RunFailed: a job broke; what cells failed is in the ledger.
    """
    given = {"gpus_per_node": 1, "cpus_per_task": 4, "timeout_min": 24 * 60, **read_options(options)}
    submitit = require("submitit", "--executor slurm")
    logs = folder.resolve() / "logs" / "jobs"
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(name="genseg_study", nodes=1, tasks_per_node=1, **given)
        with executor.batch():
            started = [executor.submit(Work(str(folder.resolve()))) for _ in range(jobs)]
    except (RuntimeError, NameError, TypeError, OSError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise UserError("--executor", f"wanted to submit {jobs} jobs to {cluster}, could not: {reason}") from problem
    broken = [str(job.job_id) for job in started if job.exception() is not None]
    if broken:
        raise RunFailed(folder, f"job {', '.join(broken)} broke, {logs} says why; the same command goes on")
