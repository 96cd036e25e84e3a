"""A trained generator on disk: its weights and what is needed to build it again.

``models/generator/`` of a bundle holds ``generator.pt``, a plain state dict, and ``generator.json``: the genotype and
the shape. They are in a folder of their own because tools take the file with the shortest name in ``models/`` for the
segmenter.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from genseg_monai._atomic import whole_file
from genseg_monai.errors import UserError
from genseg_monai.networks.generator import DiscreteGenerator
from genseg_monai.networks.genotype import Genotype

__all__ = ["GeneratorShape", "load_generator", "save_generator"]


@dataclass(frozen=True)
class GeneratorShape:
    """The arguments of `DiscreteGenerator` other than its genotype.

    Args:
        spatial_dims: 2 or 3.
        in_channels: mask classes K, background included.
        out_channels: image channels C.
        image_size: ``H W [D]``.
        base_width: channels after the first cell.
        activation: of the cells, as MONAI names it.
        scene: it draws into the holes of real images.

    Example:
        >>> GeneratorShape(2, in_channels=2, out_channels=1, image_size=(32, 32), base_width=8).activation
        'silu'
    """

    spatial_dims: int
    in_channels: int
    out_channels: int
    image_size: tuple[int, ...]
    base_width: int = 32
    activation: str = "silu"
    scene: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", tuple(self.image_size))

    def build(self, genotype: Genotype) -> DiscreteGenerator:
        """Make the generator, with new weights."""
        return DiscreteGenerator(
            genotype,
            self.spatial_dims,
            self.in_channels,
            self.out_channels,
            self.image_size,
            base_width=self.base_width,
            activation=self.activation,
            scene=self.scene,
        )


def save_generator(
    folder: str | Path, generator: DiscreteGenerator | nn.Module, genotype: Genotype, shape: GeneratorShape
) -> None:
    """Write ``generator.pt`` and ``generator.json``.

    Args:
        folder: usually ``models/generator`` of a bundle.
        generator: the derived generator.
        genotype: what it was built from.
        shape: what it was built with.

    Example:
        >>> import tempfile
        >>> shape = GeneratorShape(2, in_channels=2, out_channels=1, image_size=(8, 8), base_width=2)
        >>> genotype = Genotype("paper", encoder=("conv_4",), decoder=("conv_4",))
        >>> folder = tempfile.mkdtemp()
        >>> save_generator(folder, shape.build(genotype), genotype, shape)
        >>> load_generator(folder)(torch.zeros(1, 2, 8, 8)).shape
        torch.Size([1, 1, 8, 8])
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = {"genotype": json.loads(genotype.to_json()), **asdict(shape)}
    # to a stream: given a path, torch writes its name into the file
    with whole_file(folder / "generator.pt") as temporary, open(temporary, "wb") as stream:
        torch.save({name: value.detach().cpu() for name, value in generator.state_dict().items()}, stream)
    with whole_file(folder / "generator.json") as temporary:
        Path(temporary).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def load_generator(folder: str | Path, device: torch.device | str = "cpu") -> DiscreteGenerator:
    """Build a generator from what `save_generator` wrote.

    Args:
        folder: usually ``models/generator`` of a bundle.
        device: where its weights go.

    Returns:
        The generator in evaluation mode.

    Raises:
        UserError: the folder has no generator, or its files do not belong together.
    """
    folder = Path(folder)
    card, weights = folder / "generator.json", folder / "generator.pt"
    for path in (card, weights):
        if not path.is_file():
            raise UserError(path, "wanted a trained generator, there is no such file; give what a training left")
    try:
        told = json.loads(card.read_text(encoding="utf-8"))
        genotype = Genotype.from_json(json.dumps(told.pop("genotype")), where=str(card))
        generator = GeneratorShape(**told).build(genotype)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(card, f"wanted the description of a generator, cannot use it ({error})") from error
    try:
        generator.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file fails in many ways
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(weights, f"wanted the weights of the generator beside it, cannot load: {problem}") from error
    return generator.to(device).eval()
