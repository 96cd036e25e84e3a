"""Are the probabilities right? Reliability, expected calibration error, Brier score, and a temperature that mends them.

Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017 (arXiv 1706.04599): of all voxels
given a probability of 0.8, eight in ten should be what was said. One number T, fitted on cases that trained nothing,
divides the logits; the most probable class stays what it was. Nearly all voxels of most images are plain background,
which keeps every mean over voxels small: compare such numbers between models, not with an absolute bar.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Calibration", "Reliability", "calibrate", "fit_temperature", "reliability", "sample_voxels", "temper"]

_COLDEST, _HOTTEST = 0.05, 20.0
"""Bounds of the temperature: without them a model that makes no mistake would be given none at all."""


@dataclass(frozen=True)
class Reliability:
    """How often an event came true, by the probability it was given; bins of equal width over [0, 1].

    Attributes:
        probability: mean of the probabilities in each bin; NaN in an empty one.
        frequency: share of them that came true; NaN in an empty bin.
        count: how many there are.

    Example:
        >>> Reliability((0.5,), (0.25,), (4,)).error
        0.25
    """

    probability: tuple[float, ...]
    frequency: tuple[float, ...]
    count: tuple[int, ...]

    @property
    def error(self) -> float:
        """The expected calibration error (ECE), in [0, 1]: the mean gap, weighted by count."""
        # ECE = sum_b n_b / n |frequency_b - probability_b|   (Guo et al., eq. 3)
        rows = [row for row in zip(self.probability, self.frequency, self.count, strict=True) if row[2]]
        return sum(n * abs(f - p) for p, f, n in rows) / max(sum(self.count), 1)


@dataclass(frozen=True)
class Calibration:
    """How well probabilities fit what is there.

    Attributes:
        nll: mean negative log likelihood, in nats.
        brier: half the mean squared distance to the truth, in [0, 1]; of two classes the usual (p - y)^2.
        ece: expected calibration error of the most probable class, in [0, 1].
        foreground: reliability of the probability that a voxel is not background.

    Example:
        >>> calibrate(torch.tensor([[0.0, 2.0], [1.0, 0.0]]).softmax(1), torch.tensor([1, 0])).brier < 0.1
        True
    """

    nll: float
    brier: float
    ece: float
    foreground: Reliability

    def as_dict(self) -> dict[str, Any]:
        """Return numbers and lists ready for JSON, None for what is not a number."""
        told = asdict(self)
        for name in ("probability", "frequency"):
            told["foreground"][name] = [None if math.isnan(x) else round(x, 6) for x in told["foreground"][name]]
        return told


def reliability(probability: Tensor, came_true: Tensor, bins: int = 15) -> Reliability:
    """Sort events by the probability they were given.

    Args:
        probability: N, in [0, 1].
        came_true: N, bool.
        bins: of equal width; the last one includes 1.

    Raises:
        ValueError: the two do not fit, or a probability is none.

    Example:
        >>> reliability(torch.tensor([0.1, 0.9]), torch.tensor([False, True]), bins=2).frequency
        (0.0, 1.0)
    """
    if probability.shape != came_true.shape or probability.ndim != 1:
        raise ValueError(f"wanted N probabilities and N events, got {probability.shape} and {came_true.shape}")
    if bins < 1 or not bool(((probability >= 0) & (probability <= 1)).all()):
        raise ValueError(f"wanted probabilities in [0, 1] and a bin or more, got {bins} bins or others")
    p = probability.double()
    place = (p * bins).long().clamp(max=bins - 1)
    count = torch.bincount(place, minlength=bins)
    mean, share = (torch.bincount(place, weights=x, minlength=bins) / count for x in (p, came_true.double()))
    return Reliability(tuple(mean.tolist()), tuple(share.tolist()), tuple(count.tolist()))


def calibrate(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Calibration:
    """Measure how well probabilities fit what is there.

    Args:
        probabilities: N K, summing to one over the classes, the background first.
        labels: N class indices.
        bins: of the reliability curves.

    Raises:
        ValueError: the shapes do not fit, or there is nothing to measure.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(f"wanted probabilities N K and N labels, got {probabilities.shape} and {labels.shape}")
    p, y = probabilities.double(), labels.long()
    truth = F.one_hot(y, p.shape[1]).double()
    confidence, guess = p.max(dim=1)
    return Calibration(
        nll=float(-p.gather(1, y[:, None]).clamp(min=1e-12).log().mean()),
        brier=float(0.5 * (p - truth).square().sum(dim=1).mean()),
        ece=reliability(confidence.clamp(0, 1), guess == y, bins).error,
        foreground=reliability((1 - p[:, 0]).clamp(0, 1), y > 0, bins),
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the T > 0 for which softmax(logits / T) explains the labels best.

    Args:
        logits: N K, of cases that trained nothing.
        labels: N class indices.

    Returns:
        T, within [0.05, 20]; above 1 the model was too sure of itself.

    Raises:
        ValueError: the shapes do not fit, or there is nothing to fit to.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]] * 100)
        >>> labels = torch.tensor([0] * 73 + [1] * 27)  # softmax([1, 0]) = 0.731
        >>> round(fit_temperature(logits, labels), 1)
        2.0
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(f"wanted logits N K and N labels, got {logits.shape} and {labels.shape}")
    z, y = logits.detach().double(), labels.long()
    # min_T  - 1/N sum_i log softmax(z_i / T)[y_i], over log T so that T stays positive: one convex-like dimension
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_t], lr=1.0, max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        nll = F.cross_entropy(z / log_t.exp(), y)
        nll.backward()
        return nll

    with torch.enable_grad():
        optimiser.step(loss)
    found = float(log_t.detach().clamp(math.log(_COLDEST), math.log(_HOTTEST)).exp())
    return found if math.isfinite(found) else 1.0


def temper(probabilities: Tensor, temperature: float, dim: int = 1) -> Tensor:
    """Apply a temperature to probabilities: softmax(z / T) is p^(1/T), scaled to sum to one.

    Args:
        probabilities: summing to one along `dim`.
        temperature: above 0; 1 changes nothing, to the bit.
        dim: of the classes.

    Example:
        >>> temper(torch.tensor([[0.8, 0.2]]), 2.0)
        tensor([[0.6667, 0.3333]])
    """
    if temperature == 1.0:
        return probabilities
    return (probabilities.clamp(min=1e-12).log() / temperature).softmax(dim)


def sample_voxels(
    logits: Tensor, labels: Tensor, count: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw voxels of each image, without replacement, so that large volumes cost no more than small ones.

    Args:
        logits: B K H W [D]; or probabilities.
        labels: B 1 H W [D], class indices.
        count: voxels an image; all of them where it has fewer.
        generator: of the draw.

    Returns:
        N K and N.

    Example:
        >>> logits, labels = sample_voxels(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8), 10)
        >>> logits.shape, labels.shape
        (torch.Size([20, 3]), torch.Size([20]))
    """
    flat, truth = logits.flatten(2), labels.flatten(1).long()
    drawn = [torch.randperm(truth.shape[1], generator=generator)[:count].to(truth.device) for _ in range(len(truth))]
    voxels = [one[:, places].T for one, places in zip(flat, drawn, strict=True)]
    return torch.cat(voxels), torch.cat([one[places] for one, places in zip(truth, drawn, strict=True)])
