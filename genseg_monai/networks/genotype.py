"""The architecture that a search found, as a frozen value that goes to a JSON file and back."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from genseg_monai._atomic import whole_file
from genseg_monai.errors import UserError
from genseg_monai.networks.candidates import SearchSpace, candidates

__all__ = ["Genotype"]


@dataclass(frozen=True)
class Genotype:
    """One candidate for each cell of a `SearchableGenerator`.

    Args:
        space: the `SearchSpace` the candidates are from.
        encoder: names of the encoder cells' candidates, outermost first.
        decoder: names of the decoder cells' candidates, innermost first; as many.

    Raises:
        UserError: a name that the search space does not know, or cells that do not pair up.

    Example:
        >>> genotype = Genotype("paper", encoder=("conv_4", "conv_8"), decoder=("conv_6", "conv_4"))
        >>> Genotype.from_json(genotype.to_json()) == genotype
        True
    """

    space: SearchSpace | str
    encoder: tuple[str, ...]
    decoder: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.space not in list(SearchSpace):
            raise UserError("genotype", f"wanted space to be one of {', '.join(SearchSpace)}, got {self.space!r}")
        object.__setattr__(self, "space", SearchSpace(self.space))
        object.__setattr__(self, "encoder", tuple(self.encoder))
        object.__setattr__(self, "decoder", tuple(self.decoder))
        if not self.encoder or len(self.encoder) != len(self.decoder):
            problem = f"wanted as many encoder as decoder cells, at least one, got {self.encoder} and {self.decoder}"
            raise UserError("genotype", problem)
        for side, cells in (("encoder", self.encoder), ("decoder", self.decoder)):
            known = [spec.name for spec in candidates(self.space, transposed=side == "decoder")]
            for i, name in enumerate(cells):
                if name not in known:
                    raise UserError(f"genotype {side}.{i}", f"wanted one of {', '.join(known)}, got {name!r}")

    @property
    def depth(self) -> int:
        """The number of encoder cells, which is that of decoder cells."""
        return len(self.encoder)

    def to_json(self) -> str:
        """Return the genotype as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "genotype") -> Genotype:
        """Read a genotype from JSON text.

        Args:
            text: what `to_json` wrote.
            where: what to name in an error, such as the file.

        Raises:
            UserError: the text is not JSON, lacks a key, or has names that the search space does not know.
        """
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(where, f"wanted a genotype in JSON, got text that is none ({error})") from error
        wanted = {"space", "encoder", "decoder"}
        if not isinstance(fields, dict) or set(fields) != wanted:
            got = sorted(fields) if isinstance(fields, dict) else type(fields).__name__
            raise UserError(where, f"wanted the keys {sorted(wanted)}, got {got}")
        for side in ("encoder", "decoder"):
            if not isinstance(fields[side], list):
                raise UserError(where, f"wanted {side} to be a list of names, got {fields[side]!r}")
        return cls(**fields)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the genotype to a JSON file, which is at every moment either the old or the new one, whole."""
        with whole_file(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Genotype:
        """Read a genotype from a JSON file.

        Raises:
            UserError: the file cannot be read, or holds no genotype.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(path, f"wanted a genotype file, cannot read it ({error})") from error
        return cls.from_json(text, where=str(path))
