"""Mask-to-image generators: the searchable U-Net, and the plain one built from what the search chose.

After the mixed generator of Zhang et al., "Generative AI enables medical image segmentation in ultra low-data regimes",
Nature Communications 16:6486, 2025 (arXiv 2408.17421), itself the U-Net of pix2pix (Isola et al., CVPR 2017, arXiv
1611.07004). Differences: encoder cells are searched as well as decoder cells, each mixture is one collapsed
convolution, the norm is instance norm (batches are tiny), the activation is smooth (the hypergradient takes differences
of it), there is no dropout, and the output is a sigmoid, since images lie in [0, 1]. One class serves 2D and 3D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from genseg_monai.networks.activation import SMOOTH
from genseg_monai.networks.candidates import SearchSpace, candidates, make_candidate
from genseg_monai.networks.cell_layout import CellLayout, check_sides, generator_depth
from genseg_monai.networks.genotype import Genotype
from genseg_monai.networks.mixed_conv import MixedConv
from genseg_monai.transforms.scene import composed

__all__ = ["DiscreteGenerator", "SearchableGenerator", "generator_depth"]

_NORM = ("instance", {"affine": True})

Kernels = Mapping[str, tuple[Tensor, Tensor | None]]


class SearchableGenerator(nn.Module):
    """U-Net of searchable cells that turns masks into images.

    Widths are base_width * (1, 2, 4, 8, 8, ...); every encoder cell halves the resolution and every decoder cell
    doubles it, with a skip connection at each level but the innermost.

    Args:
        spatial_dims: 2 or 3.
        in_channels: mask classes K, background included.
        out_channels: image channels C.
        image_size: `H W [D]`, sides that divide by ``2**depth``; sets the depth and which cells see a single voxel.
        base_width: channels after the first cell.
        depth: number of encoder cells; None takes `generator_depth`.
        space: a `SearchSpace` or its name.
        norm: norm of the cells, as MONAI names it; neither the outermost cells nor 1 x 1 outputs have one.
        activation: activation of the cells, as MONAI names it. "silu" is smooth; ``("leakyrelu",
            {"negative_slope": 0.2})`` is that of pix2pix.
        scene: draw into the holes of real images, see `genseg_monai.transforms.scene`.

    Raises:
        UserError: a size, depth or search space that does not fit.

    Shape:
        One-hot or soft masks `B K H W [D]`, or scenes `B K+C+1 H W [D]`, to images `B C H W [D]` in [0, 1].

    Example:
        >>> generator = SearchableGenerator(2, in_channels=2, out_channels=3, image_size=(32, 32), base_width=4)
        >>> generator(torch.zeros(1, 2, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
        >>> generator.derive().depth
        5
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        image_size: Sequence[int],
        *,
        base_width: int = 32,
        depth: int | None = None,
        space: SearchSpace | str = SearchSpace.PAPER,
        norm: str | tuple = _NORM,
        activation: str | tuple = SMOOTH,
        scene: bool = False,
    ) -> None:
        super().__init__()
        self._layout = CellLayout(
            spatial_dims,
            in_channels + scene * (out_channels + 1),
            out_channels,
            tuple(image_size),
            base_width=base_width,
            depth=generator_depth(image_size) if depth is None else depth,
            norm=norm,
            activation=activation,
        )
        self.encoder, self.decoder = self._layout.cells(
            lambda name, inputs, outputs, transposed, bias: MixedConv(
                spatial_dims, inputs, outputs, transposed, space, bias=bias, sides=self.sides(name)
            )
        )
        self.space = SearchSpace(space)
        self.in_channels, self.out_channels, self.scene = in_channels, out_channels, scene

    @property
    def depth(self) -> int:
        """The number of encoder cells."""
        return self._layout.depth

    def mixtures(self) -> dict[str, MixedConv]:
        """Return the searchable convolution of each cell, by the cell's name."""
        sides = (("encoder", self.encoder), ("decoder", self.decoder))
        return {f"{side}.{i}": cell.get_submodule("conv") for side, cells in sides for i, cell in enumerate(cells)}  # type: ignore[misc]

    def arch_parameters(self) -> dict[str, nn.Parameter]:
        """Return the architecture weights alpha by their names in the state dict."""
        return {f"{name}.conv.alpha": mixture.alpha for name, mixture in self.mixtures().items()}

    def weight_parameters(self) -> dict[str, nn.Parameter]:
        """Return every parameter that is not an architecture weight, by its name in the state dict."""
        arch = self.arch_parameters()
        return {name: parameter for name, parameter in self.named_parameters() if name not in arch}

    def arch_weights(self) -> dict[str, Tensor]:
        """Return each cell's softmax(alpha), one weight a candidate, detached."""
        return {name: torch.softmax(mixture.alpha.detach(), dim=0) for name, mixture in self.mixtures().items()}

    def collapsed(self) -> Kernels:
        """Return the kernel and the bias of each cell for ``image_size``, to share while nothing moves."""
        return {name: mixture.collapsed(self.sides(name)) for name, mixture in self.mixtures().items()}

    def sides(self, cell: str) -> list[int]:
        """Return `H W [D]` of what a cell sees of masks of ``image_size``."""
        side, _, index = cell.partition(".")
        level = int(index) if side == "encoder" else self.depth - int(index)  # halvings in the cell's input
        return [length // 2**level for length in self._layout.image_size]

    def derive(self) -> Genotype:
        """Return the architecture in which each cell keeps its heaviest candidate (the first of equals)."""
        chosen = {name: mixture.specs[int(mixture.alpha.argmax())].name for name, mixture in self.mixtures().items()}
        names = [tuple(v for k, v in chosen.items() if k.startswith(side)) for side in ("encoder", "decoder")]
        return Genotype(self.space, *names)

    def candidate_names(self) -> dict[str, tuple[str, ...]]:
        """Return the names of each cell's candidates, in the order of its alpha."""
        return {name: tuple(spec.name for spec in mixture.specs) for name, mixture in self.mixtures().items()}

    def discretise(self, genotype: Genotype | None = None) -> DiscreteGenerator:
        """Build the generator of ``genotype`` with copies of the weights that its candidates and norms have here.

        Args:
            genotype: by default that of `derive`.
        """
        layout = self._layout
        genotype = genotype or self.derive()
        chosen = {f"encoder.{i}": name for i, name in enumerate(genotype.encoder)}
        chosen |= {f"decoder.{i}": name for i, name in enumerate(genotype.decoder)}
        result = DiscreteGenerator(
            genotype,
            layout.spatial_dims,
            self.in_channels,
            self.out_channels,
            layout.image_size,
            base_width=layout.base_width,
            norm=layout.norm,
            activation=layout.activation,
            scene=self.scene,
        )
        state = {name: value for name, value in self.state_dict().items() if ".norm." in name}
        for name, mixture in self.mixtures().items():
            index = self.candidate_names()[name].index(chosen[name])
            weight, bias = mixture.candidate(index)
            state[f"{name}.conv.conv.weight"] = weight
            if bias is not None:
                state[f"{name}.conv.conv.bias"] = bias
        result.to(next(self.parameters()))  # its device and type
        result.load_state_dict(state)
        return result.train(self.training)

    def forward(self, masks: Tensor, kernels: Kernels | None = None) -> Tensor:
        """Draw images for masks.

        Args:
            masks: `B K H W [D]`, or scenes.
            kernels: what `collapsed` returned, for masks of ``image_size``; by default the kernels are collapsed anew.
        """
        check_sides(list(masks.shape), self.depth)

        def run(name: str, cell: nn.Module, x: Tensor) -> Tensor:
            conv, *rest = cell.children()
            x = conv(x) if kernels is None else conv(x, kernels[name])
            for layer in rest:
                x = layer(x)
            return x

        x, skips = masks, []
        for i, cell in enumerate(self.encoder):
            x = run(f"encoder.{i}", cell, x)
            skips.append(x)
        skips.pop()
        for i, cell in enumerate(self.decoder):
            x = run(f"decoder.{i}", cell, torch.cat([x, skips.pop()], dim=1) if i else x)
        return composed(x, masks) if self.scene else x


class DiscreteGenerator(nn.Module):
    """The plain U-Net that a genotype describes; TorchScript can compile it.

    Args:
        genotype: one candidate for each cell; sets the depth.
        spatial_dims: 2 or 3.
        in_channels: mask classes K, background included.
        out_channels: image channels C.
        image_size: `H W [D]`, as the generator it was derived from had.
        base_width: channels after the first cell.
        norm: norm of the cells, as MONAI names it.
        activation: activation of the cells, as MONAI names it.
        scene: draw into the holes of real images.

    Raises:
        UserError: an image size that does not fit the genotype's depth.

    Shape:
        One-hot or soft masks `B K H W [D]`, or scenes `B K+C+1 H W [D]`, to images `B C H W [D]` in [0, 1].

    Example:
        >>> genotype = Genotype("wide", encoder=("conv_4", "pool_1"), decoder=("conv_8", "resize_3"))
        >>> generator = DiscreteGenerator(genotype, 2, in_channels=2, out_channels=1, image_size=(16, 16), base_width=4)
        >>> generator(torch.zeros(1, 2, 16, 16)).shape
        torch.Size([1, 1, 16, 16])
    """

    def __init__(
        self,
        genotype: Genotype,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        image_size: Sequence[int],
        *,
        base_width: int = 32,
        norm: str | tuple = _NORM,
        activation: str | tuple = SMOOTH,
        scene: bool = False,
    ) -> None:
        super().__init__()
        layout = CellLayout(
            spatial_dims,
            in_channels + scene * (out_channels + 1),
            out_channels,
            tuple(image_size),
            base_width=base_width,
            depth=genotype.depth,
            norm=norm,
            activation=activation,
        )
        self.depth = genotype.depth
        self.in_channels, self.out_channels, self.scene = in_channels, out_channels, scene

        def make_conv(cell: str, inputs: int, outputs: int, transposed: bool, bias: bool) -> nn.Module:
            side, _, index = cell.partition(".")
            name = getattr(genotype, side)[int(index)]
            spec = next(spec for spec in candidates(genotype.space, transposed) if spec.name == name)
            return make_candidate(spec, spatial_dims, inputs, outputs, transposed=transposed, bias=bias)

        self.encoder, self.decoder = layout.cells(make_conv)

    def forward(self, masks: Tensor) -> Tensor:
        """Draw images for masks, `B K H W [D]`."""
        check_sides(list(masks.shape), self.depth)
        x = masks
        skips: list[Tensor] = []
        for cell in self.encoder:
            x = cell(x)
            skips.append(x)
        skips.pop()
        for i, cell in enumerate(self.decoder):
            if i > 0:
                x = torch.cat([x, skips.pop()], dim=1)
            x = cell(x)
        if self.scene:
            x = composed(x, masks)
        return x
