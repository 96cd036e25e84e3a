"""What collapsing a mixture into one convolution saves: forward + backward of a cell and of the whole generator.

    python benchmarks/collapse.py [--threads 1] [--repeats 5]

Prints CPU seconds of the explicit mixture (each candidate runs, the outputs are added) and of the collapsed one, the
best of the repeats, and their ratio. Both compute the gradient of the input, of alpha and of every kernel. A good part
of either is the kernel of the operating system handing out fresh pages; MALLOC_MMAP_MAX_=0 together with
MALLOC_TRIM_THRESHOLD_=100000000000 in the environment (glibc) keeps them in the process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from genseg_monai.networks import MixedConv, SearchableGenerator, make_candidate


class ExplicitMixture(nn.Module):
    """A cell as the paper's release runs it."""

    def __init__(self, spatial_dims: int, mixed: MixedConv, inputs: int, outputs: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(len(mixed.specs)))
        bias = mixed.bias is not None
        self.candidates = nn.ModuleList(
            make_candidate(spec, spatial_dims, inputs, outputs, transposed=mixed.transposed, bias=bias)
            for spec in mixed.specs
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run each candidate and add their outputs."""
        probabilities = torch.softmax(self.alpha, dim=0)
        return torch.stack([p * c(x) for p, c in zip(probabilities, self.candidates, strict=True)]).sum(dim=0)


def explicit_generator(generator: SearchableGenerator, spatial_dims: int) -> nn.Module:
    """Return the generator with each cell's mixture explicit."""
    for cell in [*generator.encoder, *generator.decoder]:
        mixed = cell.conv
        first, second = mixed.weights[0].shape[:2]
        inputs, outputs = (first, second) if mixed.transposed else (second, first)
        cell.conv = ExplicitMixture(spatial_dims, mixed, inputs, outputs)
    return generator


def cpu_seconds(module: nn.Module, x: Tensor, repeats: int) -> float:
    """Return the best CPU time of one forward + backward."""

    def step() -> None:
        module.zero_grad()
        module(x).square().mean().backward()

    return min(measured(step) for _ in range(repeats + 1))


def measured(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def row(name: str, explicit: nn.Module, collapsed: nn.Module, x: Tensor, repeats: int) -> None:
    slow, fast = cpu_seconds(explicit, x, repeats), cpu_seconds(collapsed, x, repeats)
    print(f"{name:<58} {slow:>10.3f} {fast:>10.3f} {slow / fast:>7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, {arguments.threads} thread(s), batch 2, CPU s, best of {arguments.repeats + 1}\n"
    )
    print(f"{'forward + backward':<58} {'explicit':>10} {'collapsed':>10} {'ratio':>7}")
    for dims, inputs, outputs, side, transposed in [
        (2, 64, 128, 32, False),
        (2, 256, 256, 8, False),
        (2, 128, 64, 32, True),
        (2, 512, 256, 4, True),
        (3, 16, 32, 16, False),
        (3, 64, 16, 8, True),
    ]:
        for space in ("paper", "wide"):
            mixed = MixedConv(dims, inputs, outputs, transposed, space, bias=False)
            x = torch.randn(2, inputs, *(side,) * dims, requires_grad=True)
            name = f"{dims}D {'decoder' if transposed else 'encoder'} cell {inputs}->{outputs} at {side}, {space}"
            row(name, ExplicitMixture(dims, mixed, inputs, outputs), mixed, x, arguments.repeats)
    for dims, side, width in [(2, 128, 32), (3, 32, 8)]:
        for space in ("paper", "wide"):
            collapsed = SearchableGenerator(dims, 2, 3, (side,) * dims, base_width=width, space=space)
            explicit = explicit_generator(
                SearchableGenerator(dims, 2, 3, (side,) * dims, base_width=width, space=space), dims
            )
            x = torch.rand(2, 2, *(side,) * dims)
            row(f"{dims}D generator, width {width}, {side} voxels, {space}", explicit, collapsed, x, arguments.repeats)


if __name__ == "__main__":
    main()
