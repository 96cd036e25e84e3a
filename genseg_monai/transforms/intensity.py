"""Random changes of intensity, a batch at a time on the device: brightness, contrast, gamma, blur, noise.

The same pair as in `mask_warp`: `draw_intensity` draws, `apply_intensity` applies what was drawn. The strengths follow
nnU-Net (Isensee et al., Nature Methods 2021), on images in [0, 1]; each change hits an item with its own probability.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from genseg_monai.transforms._transfer import send
from genseg_monai.transforms.mask_warp import Range

__all__ = ["Intensity", "IntensityRanges", "apply_intensity", "draw_intensity"]


@dataclass(frozen=True)
class IntensityRanges:
    """How far the intensity may change.

    Args:
        brightness: added to the image, which lies in [0, 1].
        contrast: factor about the mean of the image.
        gamma: exponent; below 1 brightens.
        blur: standard deviation of the Gaussian, in voxels.
        noise: standard deviation of the Gaussian noise.
        probability: chance of each change, for each item, in [0, 1].

    Example:
        >>> IntensityRanges(gamma=(0.5, 2.0)).gamma
        (0.5, 2.0)
    """

    brightness: Range = (-0.1, 0.1)
    contrast: Range = (0.75, 1.25)
    gamma: Range = (0.7, 1.5)
    blur: Range = (0.5, 1.0)
    noise: Range = (0.0, 0.1)
    probability: float = 0.3

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be drawn from; tensors are whoever's learns them."""
        for name in ("brightness", "contrast", "gamma", "blur", "noise"):
            bounds = getattr(self, name)
            if len(bounds) != 2:
                raise ValueError(f"{name}: wanted (lower, upper), got {bounds}")
            lower, upper = bounds
            if isinstance(lower, Tensor) or isinstance(upper, Tensor):
                continue
            if not lower <= upper or (name != "brightness" and lower < 0) or (name == "gamma" and lower == 0):
                least = {"brightness": "", "gamma": ", above 0"}.get(name, ", 0 or more")
                raise ValueError(f"{name}: wanted lower <= upper{least}, got {bounds}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability: wanted a number in [0, 1], got {self.probability}")


@dataclass(frozen=True)
class Intensity:
    """The drawn numbers of one batch, each of shape B; what is not hit has the number that changes nothing.

    Attributes:
        brightness: added.
        contrast: factor about the mean.
        gamma: exponent.
        blur: standard deviation in voxels; 0 for none.
        noise: standard deviation; 0 for none.
        seed: B, whole numbers: the seed of the noise of each item.

    Example:
        >>> draw_intensity(IntensityRanges(probability=0), 2, torch.Generator().manual_seed(0)).gamma
        tensor([1., 1.])
    """

    brightness: Tensor
    contrast: Tensor
    gamma: Tensor
    blur: Tensor
    noise: Tensor
    seed: Tensor

    def to(self, device: torch.device | str) -> Intensity:
        """Move the numbers to a device; the seeds stay on the CPU."""
        return replace(
            self,
            **{field.name: send(getattr(self, field.name), device) for field in fields(self) if field.name != "seed"},
        )


def draw_intensity(ranges: IntensityRanges, batch: int, generator: torch.Generator) -> Intensity:
    """Draw one change of intensity for each item of a batch.

    Args:
        ranges: how far it may go.
        batch: number of items.
        generator: where every number comes from.
    """
    device = generator.device

    def uniform(bounds: Range, nothing: float) -> Tensor:
        lower, upper = (torch.as_tensor(bound, device=device, dtype=torch.get_default_dtype()) for bound in bounds)
        value = lower + (upper - lower) * torch.rand(batch, generator=generator, device=device)
        hit = torch.rand(batch, generator=generator, device=device) < ranges.probability
        return torch.where(hit, value, nothing)

    return Intensity(
        brightness=uniform(ranges.brightness, 0.0),
        contrast=uniform(ranges.contrast, 1.0),
        gamma=uniform(ranges.gamma, 1.0),
        blur=uniform(ranges.blur, 0.0),
        noise=uniform(ranges.noise, 0.0),
        seed=torch.randint(2**62, (batch,), generator=generator, device=device).cpu(),
    )


def apply_intensity(images: Tensor, intensity: Intensity) -> Tensor:
    """Change the intensity of images: contrast, brightness, gamma, blur, noise, in this order.

    Args:
        images: B C H W [D] in [0, 1].
        intensity: the drawn numbers.

    Returns:
        B C H W [D] in [0, 1].

    Raises:
        ValueError: the number of items does not fit.

    Example:
        >>> images = torch.rand(2, 1, 8, 8)
        >>> nothing = draw_intensity(IntensityRanges(probability=0), 2, torch.Generator().manual_seed(0))
        >>> torch.equal(apply_intensity(images, nothing), images)
        True
    """
    if len(images) != len(intensity.seed):
        raise ValueError(f"wanted {len(intensity.seed)} items, one for each draw, got {len(images)}")
    drawn = intensity.to(images.device)  # what is asked below is asked of the draws themselves, which lie on the CPU
    spatial = images.ndim - 2

    def each(value: Tensor) -> Tensor:
        return value.to(images.dtype).reshape(-1, *[1] * (spatial + 1))

    # (x - mean) contrast + mean + brightness, written so that contrast 1, brightness 0 leaves x as it is, to the bit
    mean = images.mean(dim=tuple(range(1, images.ndim)), keepdim=True)
    out = images + (images - mean) * (each(drawn.contrast) - 1) + each(drawn.brightness)
    out = out.clamp(0, 1)
    if bool((intensity.gamma != 1).any()):
        out = out.clamp(min=1e-6) ** each(drawn.gamma)  # the slope of x^gamma is infinite at 0 below gamma 1
    if bool((intensity.blur > 0).any()):
        radius = max(1, int(torch.ceil(3 * intensity.blur.to(images.dtype).max()).item()))
        out = _blur(out, drawn.blur.to(images.dtype), radius)
    if bool((intensity.noise > 0).any()):
        out = out + each(drawn.noise) * _noise(images, intensity.seed)
    return out.clamp(0, 1)


def _blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur each item by its own Gaussian, cut at three standard deviations of the widest; the edge is repeated."""
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma.clamp(min=1e-3).unsqueeze(1) ** 2))  # B T; one tap at sigma 0
    kernel = kernel / kernel.sum(1, keepdim=True)
    for axis in range(2, images.ndim):
        places = torch.arange(images.shape[axis], device=images.device)
        blurred = torch.zeros_like(images)
        for weight, offset in zip(kernel.unbind(1), range(-radius, radius + 1), strict=True):
            shifted = images.index_select(axis, (places + offset).clamp(0, images.shape[axis] - 1))
            blurred = blurred + weight.reshape(-1, *[1] * (images.ndim - 1)) * shifted
        images = blurred
    return images


def _noise(images: Tensor, seeds: Tensor) -> Tensor:
    """Return standard normal noise, each item from its own seed, drawn on the device of the images."""
    noise = torch.empty_like(images)
    for item, seed in zip(noise, seeds.tolist(), strict=True):
        item.normal_(generator=torch.Generator(images.device).manual_seed(seed))
    return noise
