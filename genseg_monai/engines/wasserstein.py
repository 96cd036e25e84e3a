"""Train the WGAN-GP baseline on the labelled cases and draw its synthetic pairs; goes on where it was stopped.

Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017: five steps of the critic a step of the
generator, gradient penalty 10, Adam 1e-4 with betas (0, 0.9).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn

from genseg_monai.data.resident import ResidentCases, ResidentLoader
from genseg_monai.engines.state import load_file, save_file
from genseg_monai.networks.wasserstein import PairCritic, PairGenerator

__all__ = ["draw_pairs", "gradient_penalty", "train_pairs"]

logger = logging.getLogger(__name__)

_CRITIC_STEPS = 5
_PENALTY = 10.0
_SAVED_EVERY = 100


def gradient_penalty(
    critic: nn.Module, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], random: torch.Generator
) -> Tensor:
    """Return the mean of (|grad D(x)| - 1)^2 at random points x between real and synthetic pairs.

    Args:
        critic: (images, masks) -> B scores.
        real: images ``B C H W [D]`` and masks ``B K H W [D]``.
        fake: likewise; no gradient passes to them.
        random: where the points come from.
    """
    share = torch.rand(len(real[0]), *[1] * (real[0].ndim - 1), generator=random, device=real[0].device)
    between = [
        (share * one + (1 - share) * other.detach()).requires_grad_() for one, other in zip(real, fake, strict=True)
    ]
    slopes = torch.autograd.grad(critic(*between).sum(), between, create_graph=True)
    norm = (torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0) + 1e-12).sqrt()
    return (norm - 1).square().mean()


def train_pairs(
    cases: ResidentCases,
    classes: int,
    steps: int,
    *,
    batch_size: int = 8,
    width: int = 32,
    rate: float = 1e-4,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> PairGenerator:
    """Train a generator of pairs.

    Args:
        cases: the labelled cases.
        classes: K, background included.
        steps: of the generator; the critic takes five times as many.
        batch_size: pairs a batch.
        width: of both networks.
        rate: learning rate of both.
        seed: of every draw; the random state of the process is left alone.
        checkpoint: file to go on from, written every hundred steps.
    """
    device = cases.images.device
    random = torch.Generator(device).manual_seed(seed)
    loader = ResidentLoader(cases, batch_size=min(batch_size, len(cases)), seed=seed)
    with _own_random_state(seed):
        size, channels = cases.images.shape[2:], cases.images.shape[1]
        generator = PairGenerator(channels, classes, size, width=width).to(device)
        critic = PairCritic(channels, classes, size, width=width).to(device)
    optimizers = {
        name: torch.optim.Adam(network.parameters(), rate, betas=(0.0, 0.9))
        for name, network in (("generator", generator), ("critic", critic))
    }
    parts: dict[str, Any] = {"generator": generator, "critic": critic, "loader": loader}
    parts |= {f"{name}_optimizer": optimizer for name, optimizer in optimizers.items()}
    done = 0
    if checkpoint is not None and checkpoint.is_file():
        held = load_file(checkpoint, device)
        for name, part in parts.items():
            part.load_state_dict(held[name])
        random.set_state(held["random"].cpu())
        done = int(held["step"])
    for step in range(done, steps):
        for _ in range(_CRITIC_STEPS):
            batch = loader.draw()
            masks = nn.functional.one_hot(batch[Keys.LABEL][:, 0].long(), classes).movedim(-1, 1)
            real = (batch[Keys.IMAGE], masks.to(batch[Keys.IMAGE].dtype))
            with torch.no_grad():
                fake = generator(_noise(generator, len(masks), random))
            # L_D = E[D(fake)] - E[D(real)] + 10 E[(|grad D| - 1)^2]
            loss = critic(*fake).mean() - critic(*real).mean()
            loss = loss + _PENALTY * gradient_penalty(critic, real, fake, random)
            _descend(optimizers["critic"], loss)
        # L_G = -E[D(fake)]
        _descend(optimizers["generator"], -critic(*generator(_noise(generator, len(masks), random))).mean())
        last = step + 1 == steps
        if checkpoint is not None and (last or (step + 1) % _SAVED_EVERY == 0):
            state = {name: part.state_dict() for name, part in parts.items()}
            save_file({**state, "random": random.get_state(), "step": step + 1}, checkpoint)
    return generator


def draw_pairs(generator: PairGenerator, count: int, *, seed: int = 0, batch_size: int = 16) -> ResidentCases:
    """Draw synthetic pairs; a mask is the likeliest class of each voxel.

    Args:
        generator: a trained one.
        count: how many.
        seed: of the noise.
        batch_size: pairs at a time.
    """
    device = generator.project.weight.device
    random = torch.Generator(device).manual_seed(seed)
    images, labels = [], []
    with torch.no_grad():
        for start in range(0, count, batch_size):
            drawn, masks = generator(_noise(generator, min(batch_size, count - start), random))
            images.append(drawn)
            labels.append(masks.argmax(1, keepdim=True).to(torch.uint8))
    return ResidentCases(torch.cat(images), torch.cat(labels), [f"synthetic {i}" for i in range(count)])


def _noise(generator: PairGenerator, count: int, random: torch.Generator) -> Tensor:
    return torch.randn(count, generator.noise, generator=random, device=random.device)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Draw from ``seed`` inside the block, and put the state of the process back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
