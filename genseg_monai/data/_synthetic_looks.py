"""The looks of a synthetic task: brightness and texture of each label, and what the imaging does to all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from genseg_monai.data._synthetic_shapes import Draw
from genseg_monai.transforms._spline import spline_field

__all__ = ["Looks", "draw_looks", "paint"]

TEXTURES = 4
"""Grain, lumps, clouds, stripes."""


@dataclass(frozen=True)
class Looks:
    """Of L regions and K shapes together, C = L + K labels; brightness is on [0, 1].

    Attributes:
        mean: C.
        texture: C TEXTURES, how strong each one is.
        edge: K, width of the soft border, in halves of the picture's size.
        shade: K, how much the middle differs from the border.
        vary: 3, how far subjects differ: label brightness, overall brightness, contrast and gamma (logarithm).
        points: 2, control points of lumps and clouds.
        stripes: 2, their frequency and angle.
        bias: strength of the uneven lighting.
        blur: standard deviation in pixels.
        noise: standard deviation.
        aperture: radius of the round field of view, 0 for none.
        surround: brightness outside it.
        stretch: whether each picture is stretched to [0, 1].
    """

    mean: Tensor
    texture: Tensor
    edge: Tensor
    shade: Tensor
    vary: Tensor
    points: tuple[int, int]
    stripes: tuple[float, float]
    bias: float
    blur: float
    noise: float
    aperture: float
    surround: float
    stretch: bool

    def to(self, device: torch.device | str) -> Looks:
        """Move the numbers to a device."""
        return replace(
            self,
            mean=self.mean.to(device),
            texture=self.texture.to(device),
            edge=self.edge.to(device),
            shade=self.shade.to(device),
            vary=self.vary.to(device),
        )


def draw_looks(draw: Draw, regions: int, owner: Tensor, size: int) -> Looks:
    """Draw the looks of ``regions`` regions and of shapes that bear the labels ``owner`` (K)."""
    shapes = len(owner)
    base, reach = draw.number(0.05, 0.95), draw.number(0.02, 0.5)
    calm = (base + reach * draw.uniform(-1, 1, regions)).clamp(0, 1)
    ground = draw.uniform(0, 1, regions) if shapes == 0 or draw.decide(0.3) else calm
    # a shape differs from the ground by little or by much, either way
    contrast = draw.log_uniform(0.1, 0.8, shapes) * torch.where(draw.chance(0.5, shapes), 1.0, -1.0)
    middle = ground.mean() + contrast
    middle = torch.where((middle < -0.1) | (middle > 1.1), ground.mean() - contrast, middle)
    rough = 0.12 * draw.number(0, 1) ** 2
    texture = rough * draw.normal(regions + shapes, TEXTURES).abs()
    texture[:, 3] *= draw.decide(0.25)
    looks = torch.cat([ground, middle[owner]]), torch.cat([texture[:regions], texture[regions:][owner]])
    soft, shade = draw.log_uniform(0.005, 0.12, shapes), 0.15 * draw.normal(shapes) * draw.chance(0.4, shapes)
    return Looks(
        mean=looks[0],
        texture=looks[1],
        edge=soft[owner],
        shade=shade[owner],
        vary=torch.tensor([draw.number(0, 0.07), draw.number(0, 0.12), draw.number(0, 0.4)]),
        points=(draw.whole(14, max(16, size // 3)), draw.whole(5, 12)),
        stripes=(draw.number(6, 40), draw.number(0, math.pi)),
        bias=0.35 * draw.number(0, 1) ** 2,
        blur=draw.number(0, 1) if draw.decide(0.6) else draw.number(0, size / 40),
        noise=0.08 * draw.number(0, 1) ** 2,
        aperture=draw.number(0.8, 1.3) if draw.decide(0.2) else 0.0,
        surround=draw.number(0, 0.15) if draw.decide(0.8) else draw.number(0, 1),
        stretch=draw.decide(0.6),
    )


def paint(looks: Looks, regions: Tensor, depth: Tensor, draw: Draw) -> Tensor:
    """Return the pictures ``N 1 H W`` in [0, 1] of regions ``N H W`` and of shapes of depth ``N K H W``."""
    count, size = len(regions), regions.shape[-1]
    labels, shapes = len(looks.mean), depth.shape[1]
    ground = labels - shapes
    mean = looks.mean + looks.vary[0] * draw.normal(count, labels)
    texture = _textures(looks, draw, count, size)
    number = torch.arange(count, device=regions.device)[:, None, None]
    image = mean[number, regions]
    for field, strength in zip(texture.unbind(1), looks.texture.unbind(1), strict=True):
        image = image + strength[regions] * field
    for k in range(shapes):
        share = (0.5 + depth[:, k] / (2 * looks.edge[k])).clamp(0, 1)
        inside = mean[:, ground + k, None, None] + looks.shade[k] * (depth[:, k] / 0.3).clamp(0, 1)
        inside = inside + torch.einsum("t,nthw->nhw", looks.texture[ground + k], texture)
        image = image + share * (inside - image)
    return _expose(looks, image.unsqueeze(1), draw)


def _textures(looks: Looks, draw: Draw, count: int, size: int) -> Tensor:
    """Return N TEXTURES H W, each of about standard deviation one."""
    lumps, clouds = (spline_field(draw.normal(count, 1, p, p), (size, size)) * 2 for p in looks.points)
    axis = torch.linspace(-1, 1, size, device=draw.generator.device)
    frequency, angle = looks.stripes
    across = math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None]
    phase = draw.uniform(0, 2 * math.pi, count, 1, 1, 1) + 1.5 * clouds
    return torch.cat([draw.normal(count, 1, size, size), lumps, clouds, torch.sin(frequency * across + phase)], dim=1)


def _expose(looks: Looks, image: Tensor, draw: Draw) -> Tensor:
    """Return N 1 H W in [0, 1]: lighting, contrast, gamma, blur, field of view, noise."""
    count, size = len(image), image.shape[-1]
    light = spline_field(draw.normal(count, 1, 4, 4), (size, size))
    image = image * (looks.bias * light).exp()
    tone = looks.vary[2] * draw.normal(count, 2, 1, 1, 1).clamp(-2, 2)
    image = 0.5 + (image - 0.5) * tone[:, 0].exp() + looks.vary[1] * draw.normal(count, 1, 1, 1)
    image = image.clamp(1e-3, 1) ** (tone[:, 1] / 2).exp()
    if looks.blur > 0.2:
        image = _blur(image, looks.blur)
    if looks.aperture > 0:
        axis = torch.linspace(-1, 1, size, device=image.device)
        edge = looks.aperture + 0.04 * draw.normal(count, 1, 1, 1)
        away = (axis[None, :] ** 2 + axis[:, None] ** 2).sqrt()
        image = image + ((away - edge) * size / 4).clamp(0, 1) * (looks.surround - image)
    image = image + looks.noise * draw.normal(*image.shape)
    if looks.stretch:
        low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
        image = (image - low) / (high - low).clamp(min=1e-3)
    return image.clamp(0, 1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    radius = max(1, math.ceil(2.5 * sigma))
    offset = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-(offset**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    image = F.conv2d(F.pad(image, (radius, radius, 0, 0), mode="replicate"), kernel.reshape(1, 1, 1, -1))
    return F.conv2d(F.pad(image, (0, 0, radius, radius), mode="replicate"), kernel.reshape(1, 1, -1, 1))
