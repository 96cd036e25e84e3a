"""A trainer so small that a whole run, all six phases, takes a second; for tests of what surrounds the arithmetic."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from monai.networks.layers.factories import Conv, Dropout, Norm
from torch import Tensor, nn

from genseg_monai.data.resident import ResidentCases, ResidentLoader
from genseg_monai.engines import GenSegTrainer, LoopSettings, Shares, take_state
from genseg_monai.losses import AdversarialLoss, SegmentationLoss
from genseg_monai.networks import PatchDiscriminator, SearchableGenerator
from genseg_monai.transforms import BatchAugment

__all__ = ["EPOCHS", "LENGTH", "SHARES", "differing", "frozen_state", "make_cases", "make_network", "make_trainer"]

SHARES = Shares(warm_up=0.2, search=0.35, fine_tune=0.1, final_fit=0.35)
EPOCHS, LENGTH = 6, 4
"""24 iterations: warm_up 2, search 4, fine_tune 1, final_fit 3, plain 7, augment 7."""


def make_cases(count: int = 6, dims: int = 2, size: int = 16, seed: int = 0) -> ResidentCases:
    """Draw bright blocks on noise; every case its own patient."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.zeros(count, 1, *[size] * dims, dtype=torch.uint8)
    for i in range(count):
        labels[i, :, 1 + i : 7 + i, 3:11] = 1
    images = 0.5 * labels + 0.4 * torch.rand(labels.shape, generator=random)
    return ResidentCases(images, labels, [f"patient {i}" for i in range(count)])


def make_network(dims: int = 2, kind: str = "plain") -> nn.Module:
    """Build two convolutions, with ``dropout`` or ``batch_norm`` between them."""
    between: dict[str, Any] = {
        "plain": nn.Identity,
        "dropout": lambda: Dropout["dropout", dims](0.3),
        "batch_norm": lambda: Norm["batch", dims](4),
    }
    convolution = Conv["conv", dims]
    return nn.Sequential(convolution(1, 4, 3, padding=1), between[kind](), nn.SiLU(), convolution(4, 2, 3, padding=1))


def make_trainer(
    *,
    dims: int = 2,
    kind: str = "plain",
    cases: ResidentCases | None = None,
    settings: LoopSettings | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    loss: Any = None,
    sgd: bool = False,
    fused: bool = False,
    device: str = "cpu",
    shards: int = 1,
    shard: int | None = None,
    **arguments: Any,
) -> GenSegTrainer:
    """Build a trainer; the same arguments build the same one to the bit.

    Args:
        dims: 2 or 3.
        kind: of the segmenter, see `make_network`.
        cases: the labelled cases; by default 6 of 16 pixels a side.
        settings: by default a stage III step in every iteration but the first of the search.
        seed: of the weights.
        dtype: of networks and images.
        loss: of the segmenter.
        sgd: give segmenter and generator plain gradient descent instead of Adam.
        fused: let every optimiser step in one kernel.
        device: where everything lies.
        shards: of the loader.
        shard: of the loader.
        **arguments: of `GenSegTrainer`.
    """
    torch.manual_seed(seed)
    cases = cases or make_cases(dims=dims)
    cases.images, cases.labels = cases.images.to(device, dtype), cases.labels.to(device)
    size = tuple(cases.images.shape[2:])
    network = make_network(dims, kind).to(device, dtype)
    settings = settings or LoopSettings(SHARES, outer_every=1, outer_after=1)
    scene = settings.synthesis != "masks"
    generator = SearchableGenerator(dims, 2, 1, size, base_width=2, depth=2, scene=scene).to(device, dtype)
    discriminator = PatchDiscriminator(dims, 1, 2, width=4, layers=1).to(device, dtype)
    weights = list(generator.weight_parameters().values())
    descend = partial(torch.optim.SGD, fused=fused)
    adam, decayed = partial(torch.optim.Adam, betas=(0.5, 0.999), fused=fused), partial(torch.optim.AdamW, fused=fused)
    given = {"max_epochs": EPOCHS, "epoch_length": LENGTH, "augment": BatchAugment()} | arguments
    return GenSegTrainer(
        device=device,
        train_data_loader=ResidentLoader(cases, batch_size=2, seed=seed, shards=shards, shard=shard),
        network=network,
        optimizer=(descend if sgd else decayed)(network.parameters(), 1e-2),
        loss_function=loss or SegmentationLoss(),
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=(descend if sgd else adam)(weights, 1e-3),
        discriminator_optimizer=adam(discriminator.parameters(), 1e-3),
        arch_optimizer=adam(generator.arch_parameters().values(), 1e-2),
        adversarial_loss=AdversarialLoss(),
        settings=settings,
        **given,
    )


def frozen_state(trainer: GenSegTrainer) -> dict[str, Any]:
    """Return a copy of the whole state, that later steps do not reach."""
    return _copied(take_state(trainer))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list | tuple) else value


def differing(left: Any, right: Any, where: str = "") -> list[str]:
    """Return the paths at which two states differ in a single bit, a type or a name."""
    if isinstance(left, dict) and isinstance(right, dict):
        if list(left) != list(right):
            return [f"{where}: {list(left)} against {list(right)}"]
        return [path for key in left for path in differing(left[key], right[key], f"{where}/{key}")]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            return [f"{where}: {len(left)} entries against {len(right)}"]
        return [p for i, pair in enumerate(zip(left, right, strict=True)) for p in differing(*pair, f"{where}/{i}")]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        same = left.dtype == right.dtype and left.shape == right.shape
        # bits, so that two NaN are equal and 0 and -0 are not
        same = same and left.contiguous().numpy().tobytes() == right.contiguous().numpy().tobytes()
    else:
        same = type(left) is type(right) and left == right
    return [] if same else [where]
