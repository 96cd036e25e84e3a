"""Several processes that talk to each other through gloo; forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

__all__ = ["together"]

_ROOT = Path(__file__).resolve().parents[2]


def together(work: Callable[..., Any], folder: Path, *given: Any, world: int = 2, seconds: float = 120) -> list[Any]:
    """Run ``work(folder, *given)`` in several processes and return what each one does.

    Args:
        work: a function of a test module; what it returns has to load with ``weights_only``.
        folder: for the files between the processes.
        *given: further arguments.
        world: how many processes.
        seconds: after which they are killed.

    Returns:
        By rank the result, or the exit code of a process that has none, with what it said: ``(code, text)``.
    """
    context = multiprocessing.get_context("forkserver")
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    context.set_forkserver_preload(["tests.engines.preloaded"])
    folder.mkdir(parents=True, exist_ok=True)
    processes = [
        context.Process(target=_run, args=(work, str(folder), given, rank, world), daemon=True) for rank in range(world)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    late = [process for process in processes if process.exitcode is None]
    for process in late:
        process.kill()
    said = [(folder / f"said_{rank}").read_text(encoding="utf-8") for rank in range(world)]
    if late:
        raise TimeoutError("\n".join(said))
    results = [folder / f"result_{rank}" for rank in range(world)]
    return [
        torch.load(result, weights_only=True) if result.exists() else (process.exitcode, text)
        for result, process, text in zip(results, processes, said, strict=True)
    ]


def _run(work: Callable[..., Any], folder: str, given: tuple[Any, ...], rank: int, world: int) -> None:
    descriptor = os.open(f"{folder}/said_{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", store, timedelta(seconds=60), rank=rank, world_size=world)
    result = work(Path(folder), *given)
    if result is not None:
        torch.save(result, f"{folder}/result_{rank}")
    dist.destroy_process_group()
