"""What UniverSeg costs: the package's way of computing it beside the plain definition, and its memory by supports.

    python benchmarks/universeg_cost.py [--size 128] [--supports 1,8,16,64] [--repeats 1] [--json FILE]

The plain definition is that of the released code: the query is copied beside each support, then one convolution of
both. All ways give the same logits and gradients (tests/networks/test_universeg.py). The columns:

    inference, training    CPU seconds of a forward pass without gradients; of a forward and a backward pass
    peak                   highest resident memory of the process above that before the pass, MB (10^6 bytes)
    a support              growth of the peak from the first number of supports to the last, MB
    GMAC a support         multiplications in convolutions and matrix products for one support more, in inference

One thread; each figure comes from a process of its own, after a small pass.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from genseg_monai.networks import UniverSeg

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ours": {},
    "chunks of 4": {"support_chunk": 4},
    "chunks of 4, recomputed": {"support_chunk": 4, "recompute": True},
}


def plain(network: UniverSeg, query: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Return logits as the released code computes them: query `B S C H W` beside supports `B S C H W`."""

    def each(function: Any, x: Tensor) -> Tensor:
        return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def block(module: Any, q: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        z = each(module.cross.cross_conv, torch.cat([q.repeat(1, s.shape[1], 1, 1, 1), s], dim=2))
        target = each(module.target["vmapped"]["conv"], z.mean(dim=1, keepdim=True))
        return F.leaky_relu(target), F.leaky_relu(each(module.support_conv, z))

    def up(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    q, s = query[:, None], torch.cat([images, labels], dim=2)
    skips = []
    *downs, deepest = network.enc_blocks
    for module in downs:
        q, s = block(module, q, s)
        skips.append((q, s))
        q, s = each(network.pool, q), each(network.pool, s)
    q, s = block(deepest, q, s)
    for module in network.dec_blocks:
        skip_q, skip_s = skips.pop()
        q, s = torch.cat([each(up, q), skip_q], dim=2), torch.cat([each(up, s), skip_s], dim=2)
        q, s = block(module, q, s)
    return network.out_conv["conv"](q[:, 0])


def episode(size: int, supports: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a query, support images and support labels of noise."""
    images = torch.rand(1, supports, 1, size, size)
    return torch.rand(1, 1, size, size), images, torch.rand_like(images).round()


def passes(way: str, mode: str) -> Callable[[int, int], None]:
    """Return a function that takes one pass at a size with a number of supports."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = UniverSeg(**WAYS[way])

    def run(size: int, supports: int) -> None:
        inputs = episode(size, supports)
        with torch.set_grad_enabled(mode == "training"):
            logits = plain(network, *inputs) if way == "plain" else network(*inputs)
            if mode == "training":
                logits.square().mean().backward()

    run(size=32, supports=1)
    return run


def seconds(way: str, mode: str, size: int, supports: int, repeats: int) -> float:
    """Return the CPU seconds of a pass, the least of several."""
    run, spent = passes(way, mode), []
    for _ in range(repeats):
        start = time.process_time()
        run(size, supports)
        spent.append(time.process_time() - start)
    return min(spent)


def peak(way: str, mode: str, size: int, supports: int) -> float:
    """Return the highest memory of a pass above what is held before it, MB."""
    run, before, watch = passes(way, mode), resident(), Watch()
    run(size, supports)
    return (watch.stop() - before) / 1e6


def gmac(way: str, size: int) -> float:
    """Return the GMAC that one support more costs."""
    run, counts = passes(way, "inference"), []
    for supports in (1, 2):
        with FlopCounterMode(display=False) as counter:
            run(size, supports)
        counts.append(counter.get_total_flops() / 2e9)
    return counts[1] - counts[0]


def resident() -> int:
    """Return the bytes this process holds in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Watch(threading.Thread):
    """Keep the highest memory, looked at every two milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self._over = 0, threading.Event()
        self.start()

    def run(self) -> None:
        """Look, until stopped."""
        while not self._over.wait(0.002):
            self.highest = max(self.highest, resident())

    def stop(self) -> int:
        """Return the highest value, in bytes."""
        self._over.set()
        self.join()
        return max(self.highest, resident())


def alone(measure: Callable[..., float], *arguments: Any, eager: bool = False) -> float:
    """Return what a measure finds in a process of its own.

    Args:
        measure: the function.
        arguments: of the function.
        eager: give memory back at once when it is freed, or a peak would hide in what an earlier one has left; slower.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run() -> None:
        if eager:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_MMAP_THRESHOLD, 65536)
            libc.mallopt(_TRIM_THRESHOLD, 65536)
        theirs.send(measure(*arguments))

    process = context.Process(target=run)
    process.start()
    theirs.close()
    found: float = ours.recv()
    process.join()
    return found


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of malloc.h


def row(way: str, size: int, supports: int, repeats: int) -> dict[str, Any]:
    """Measure both modes, each figure in a process of its own."""
    found: dict[str, Any] = {"way": way, "supports": supports}
    for mode in ("inference", "training"):
        found[f"{mode} seconds"] = alone(seconds, way, mode, size, supports, repeats)
        found[f"{mode} peak"] = alone(peak, way, mode, size, supports, eager=True)
    found["inference gmac"] = alone(gmac, way, size)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table, the ratios at the most supports, and the memory of a support."""
    head = f"{'':<24}{'S':>4}{'inference':>11}{'peak':>8}{'training':>10}{'peak':>8}{'GMAC a support':>16}"
    lines = [head]
    for found in sorted(rows, key=lambda found: (list(WAYS).index(found["way"]), found["supports"])):
        lines.append(
            f"{found['way']:<24}{found['supports']:>4}{found['inference seconds']:>11.2f}"
            f"{found['inference peak']:>8.0f}{found['training seconds']:>10.2f}{found['training peak']:>8.0f}"
            f"{found['inference gmac']:>16.2f}"
        )
    few, most = (limit(found["supports"] for found in rows) for limit in (min, max))
    at = {(found["way"], found["supports"]): found for found in rows}
    for way in [way for way in WAYS if way != "plain" and (way, most) in at]:
        ratios = [
            f"{mode} {at['plain', most][f'{mode} seconds'] / at[way, most][f'{mode} seconds']:.2f} x CPU, "
            f"{at['plain', most][f'{mode} peak'] / at[way, most][f'{mode} peak']:.2f} x memory"
            for mode in ("inference", "training")
        ]
        lines.append(f"plain over {way} at S = {most}: {'; '.join(ratios)}")
    for way in [way for way in WAYS if (way, most) in at and most > few]:
        growth = [
            f"{mode} {(at[way, most][f'{mode} peak'] - at[way, few][f'{mode} peak']) / (most - few):.2f}"
            for mode in ("inference", "training")
        ]
        lines.append(f"MB a support, {way}: {', '.join(growth)}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and save its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--supports", default="1,8,16,64")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--ways", default=";".join(WAYS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for way in arguments.ways.split(";"):
        for supports in map(int, arguments.supports.split(",")):
            rows.append(row(way, arguments.size, supports, arguments.repeats))
            sys.stderr.write(f"{rows[-1]}\n")
    print(table(rows))
    print(f"size {arguments.size}, 1 thread, torch {torch.__version__}; times in CPU s, memory in MB")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
