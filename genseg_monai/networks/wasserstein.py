"""A generator of image and mask together, from noise, and its critic: the WGAN-GP baseline of synthetic pairs.

Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017, in the shape of DCGAN (Radford et al., ICLR
2016) with resize-convolutions. The generator knows nothing of the segmenter; its mask is one more output beside the
image. One class serves 2D and 3D.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from genseg_monai.errors import UserError

__all__ = ["PairCritic", "PairGenerator"]

_HALVINGS = 4


def _start(image_size: Sequence[int]) -> list[int]:
    """Return the grid of the innermost layer."""
    if any(side % 2**_HALVINGS for side in image_size):
        raise UserError("image size", f"wanted sides that divide by {2**_HALVINGS}, got {tuple(image_size)}")
    return [side // 2**_HALVINGS for side in image_size]


class PairGenerator(nn.Module):
    """Turn noise into an image and its soft mask.

    Args:
        out_channels: image channels C.
        classes: mask classes K, background included.
        image_size: `H W [D]`, sides that divide by 16.
        noise: length Z of the noise.
        width: channels of the last hidden layer; doubled inwards, at most eightfold.

    Shape:
        Noise `B Z` to images `B C H W [D]` in [0, 1] and masks `B K H W [D]`, positive, summing to one over K.

    Example:
        >>> generator = PairGenerator(3, classes=2, image_size=(32, 32), noise=8, width=4)
        >>> image, masks = generator(torch.zeros(2, 8))
        >>> image.shape, masks.shape
        (torch.Size([2, 3, 32, 32]), torch.Size([2, 2, 32, 32]))
    """

    def __init__(
        self, out_channels: int, classes: int, image_size: Sequence[int], *, noise: int = 128, width: int = 32
    ) -> None:
        super().__init__()
        self.noise, self.out_channels, self.grid = noise, out_channels, _start(image_size)
        dims = len(image_size)
        convolution = Conv["conv", dims]
        widths = [width * 2**level for level in (3, 3, 2, 1, 0)]
        self.project = nn.Linear(noise, widths[0] * int(torch.tensor(self.grid).prod()))
        steps: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            steps += [
                nn.Upsample(scale_factor=2, mode="nearest"),
                convolution(inputs, outputs, 3, padding=1),
                nn.GroupNorm(1, outputs),
                nn.SiLU(),
            ]
        self.network = nn.Sequential(*steps, convolution(width, out_channels + classes, 3, padding=1))

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and masks."""
        axes = dict(zip("xyz", self.grid, strict=False))
        names = " ".join(axes)
        out = self.network(rearrange(self.project(noise), f"B (W {names}) -> B W {names}", **axes))
        return torch.sigmoid(out[:, : self.out_channels]), torch.softmax(out[:, self.out_channels :], dim=1)


class PairCritic(nn.Module):
    """Score pairs of image and mask: higher for real ones; no norm, as the gradient penalty wants it.

    Args:
        in_channels: image channels C.
        classes: mask classes K, background included.
        image_size: `H W [D]`, sides that divide by 16.
        width: channels of the first layer.

    Shape:
        Images `B C H W [D]` and masks `B K H W [D]` to scores `B`.

    Example:
        >>> critic = PairCritic(3, classes=2, image_size=(32, 32), width=4)
        >>> critic(torch.zeros(2, 3, 32, 32), torch.zeros(2, 2, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(self, in_channels: int, classes: int, image_size: Sequence[int], *, width: int = 32) -> None:
        super().__init__()
        grid, dims = _start(image_size), len(image_size)
        widths = [in_channels + classes, *(width * 2**level for level in (0, 1, 2, 3))]
        steps: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            steps += [Conv["conv", dims](inputs, outputs, 4, stride=2, padding=1), nn.SiLU()]
        self.network = nn.Sequential(
            *steps, nn.Flatten(), nn.Linear(widths[-1] * int(torch.tensor(grid).prod()), 1), nn.Flatten(0)
        )

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        """Return one score a pair."""
        scores: Tensor = self.network(torch.cat([image, masks], dim=1))
        return scores
