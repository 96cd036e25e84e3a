"""The searchable generator as a function of its collapsed kernels, for derivatives that need no more than those.

theta and alpha act through kappa(theta, alpha) alone: the kernel and the bias of each cell, and the affine weights of
the norms as they are. kappa is linear in theta, cell by cell. See `genseg_monai.multilevel.reduced`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.func import functional_call

from genseg_monai.multilevel import Block, Tree
from genseg_monai.networks.generator import SearchableGenerator

__all__ = ["blocks_of", "draw", "reduce_all"]


def blocks_of(generator: SearchableGenerator) -> list[Block]:
    """Return the cells' mixtures as blocks, and one block of all the rest; for masks of ``image_size``."""
    blocks = [block for name in generator.mixtures() for block in _cell(generator, name)]
    mixed = {name for block in blocks for name in block.names}
    rest = tuple(name for name in generator.weight_parameters() if name not in mixed)
    # copies, so that an optimiser's step in place leaves graphs made of them alone
    return [*blocks, Block(rest, (), lambda theta, _: {name: value.clone() for name, value in theta.items()})]


def _cell(generator: SearchableGenerator, name: str) -> list[Block]:
    """Return the block of a cell's kernels, and that of its biases if it has any."""
    mixture, sides, alpha = generator.mixtures()[name], generator.sides(name), f"{name}.conv.alpha"
    kernels = tuple(f"{name}.conv.weights.{i}" for i in range(len(mixture.weights)))
    bias = f"{name}.conv.bias"

    def kernel_of(theta: Tree, outer: Tree) -> Tree:
        return {f"{name}.kernel": mixture.kernel(outer[alpha], [theta[key] for key in kernels], sides)}

    def bias_of(theta: Tree, outer: Tree) -> Tree:
        return {f"{name}.kernel_bias": mixture.mixed_bias(outer[alpha], theta[bias])}

    blocks = [Block(kernels, (alpha,), kernel_of, by_rows=True)]
    return blocks if mixture.bias is None else [*blocks, Block((bias,), (alpha,), bias_of)]


def reduce_all(blocks: list[Block], theta: Mapping[str, Tensor], outer: Mapping[str, Tensor]) -> Tree:
    """Return kappa(theta, alpha) of all blocks together."""
    return {name: value for block in blocks for name, value in block.reduce(block.of(theta), dict(outer)).items()}


def draw(generator: SearchableGenerator, masks: Tensor, kappa: Mapping[str, Tensor]) -> Tensor:
    """Draw images `B C H W [D]` for masks `B K H W [D]` with what theta and alpha were reduced to.

    Example:
        >>> import torch
        >>> generator, masks = SearchableGenerator(2, 2, 1, (16, 16), base_width=4), torch.rand(1, 2, 16, 16)
        >>> weights, alpha = generator.weight_parameters(), generator.arch_parameters()
        >>> kappa = reduce_all(blocks_of(generator), weights, alpha)
        >>> bool(torch.equal(draw(generator, masks, kappa), generator(masks)))
        True
    """
    kernels = {name: (kappa[f"{name}.kernel"], kappa.get(f"{name}.kernel_bias")) for name in generator.mixtures()}
    rest = {name: kappa[name] for name in generator.weight_parameters() if name in kappa}
    return functional_call(generator, rest, (masks, kernels))
