"""How a generator's cells are stacked into a U-Net: widths, skips, norms, depth; the same for both generators."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import nn

from genseg_monai.errors import UserError
from genseg_monai.networks.activation import activation_layer

__all__ = ["CellLayout", "check_sides", "generator_depth"]

_MAX_DEPTH = 7
_MAX_WIDTH_FACTOR = 8


def generator_depth(image_size: Sequence[int]) -> int:
    """Return the largest depth, at most 7, for which 2**depth divides every side.

    Raises:
        UserError: a side is odd.

    Example:
        >>> generator_depth((128, 96))
        5
    """
    depth = 0
    while depth < _MAX_DEPTH and all(side > 0 and side % 2 ** (depth + 1) == 0 for side in image_size):
        depth += 1
    if depth == 0:
        raise UserError(
            "image_size", f"wanted sides that divide by 2, better by 16, got {tuple(image_size)}; pad the images"
        )
    return depth


@dataclass(frozen=True)
class CellLayout:
    """The shape of a generator, searchable or plain; see `SearchableGenerator` for the meaning of each.

    Raises:
        UserError: an image size or a depth that does not fit.
    """

    spatial_dims: int
    in_channels: int
    out_channels: int
    image_size: tuple[int, ...]
    _: KW_ONLY
    base_width: int
    depth: int
    norm: str | tuple
    activation: str | tuple

    def __post_init__(self) -> None:
        if len(self.image_size) != self.spatial_dims:
            raise UserError("image_size", f"wanted {self.spatial_dims} sides (spatial_dims), got {self.image_size}")
        if self.depth < 1 or any(side % 2**self.depth for side in self.image_size):
            problem = f"wanted at least 1, and that 2**depth divides every side of {self.image_size}, got {self.depth}"
            raise UserError("depth", problem)

    def cells(self, make_conv: Callable[[str, int, int, bool, bool], nn.Module]) -> tuple[nn.ModuleList, nn.ModuleList]:
        """Build the encoder (outermost first) and the decoder (innermost first).

        ``make_conv`` gets the name of the cell, its input and output channels, whether it is transposed, and whether it
        has a bias.
        """
        widths = [self.base_width * min(2**level, _MAX_WIDTH_FACTOR) for level in range(self.depth)]
        encoder, decoder = nn.ModuleList(), nn.ModuleList()
        for i in range(self.depth):
            inputs = widths[i - 1] if i else self.in_channels
            normed = i > 0 and self._can_norm(i + 1)
            conv = make_conv(f"encoder.{i}", inputs, widths[i], False, not normed)
            encoder.append(
                self._cell(conv, widths[i] if normed else 0, get_act_layer(activation_layer(self.activation)))
            )
        for i in range(self.depth):
            level = self.depth - 1 - i  # the number of halvings left in this cell's output
            inputs = widths[level] * (2 if i else 1)  # all but the innermost also get the encoder's output
            outputs = widths[level - 1] if level else self.out_channels
            normed = level > 0 and self._can_norm(level)
            conv = make_conv(f"decoder.{i}", inputs, outputs, True, not normed)
            activation = get_act_layer(activation_layer(self.activation)) if level else nn.Sigmoid()
            decoder.append(self._cell(conv, outputs if normed else 0, activation))
        return encoder, decoder

    def _can_norm(self, level: int) -> bool:
        """Whether more than one voxel is left to normalise over after so many halvings."""
        return any(side > 2**level for side in self.image_size)

    def _cell(self, conv: nn.Module, norm_channels: int, activation: nn.Module) -> nn.Sequential:
        layers = OrderedDict(conv=conv)
        if norm_channels:
            layers["norm"] = get_norm_layer(self.norm, spatial_dims=self.spatial_dims, channels=norm_channels)
        layers["activation"] = activation
        return nn.Sequential(layers)


def check_sides(shape: list[int], depth: int) -> None:
    """Raise unless every side divides by 2**depth; in words that TorchScript can compile."""
    for side in shape[2:]:
        if side % 2**depth != 0:
            raise ValueError(f"wanted masks B K H W [D] whose sides divide by 2**{depth}, got {shape}; pad them")
