"""What a study is about, kept in ``study.json`` so that every run of it means the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from genseg_monai._atomic import whole_file
from genseg_monai.apps.studies.cells import Arm, Cell, Purpose, pilots_of, scored_cells
from genseg_monai.apps.train import config_files
from genseg_monai.errors import UserError

__all__ = ["StudySettings", "data_name", "joined", "merged_overrides", "read_config", "read_study", "write_study"]

_FILE = "study.json"
_FIXED = ("data", "test", "preset", "rates", "overrides", "weights", "ensemble")
"""What cannot change once cells have run; more arms, seeds, sizes and segmenters may be asked for."""


@dataclass(frozen=True)
class StudySettings:
    """One study.

    Attributes:
        data: the data set, as for `train`.
        arms: what is compared.
        seeds: of the trainings.
        sizes: numbers of training cases, rising.
        segmenters: their names.
        test: further data sets to score on, out of domain.
        preset: name of a file in ``configs/``.
        rates: factors on the learning rate of each arm, of which the validation cases choose one.
        updates: of the segmenter in every cell.
        epoch: iterations an epoch.
        overrides: of ``train.yaml``, for all arms alike, as typed.
        weights: file of UniverSeg's weights, for the arm ``incontext``; its bundled ones if None.
        rate_size: training cases of the runs that choose learning rates; the largest size if 0.
        ensemble: passes that the arm ``incontext`` averages.

    Example:
        >>> settings = StudySettings("data", (Arm.PLAIN,), (0, 1), (40,), ("unet_small",), updates=100, epoch=20)
        >>> [cell.id for cell in settings.cells() if cell.seed == 1]
        ['plain_n40_s1_unet_small']
    """

    data: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    sizes: tuple[int, ...]
    segmenters: tuple[str, ...]
    test: tuple[str, ...] = ()
    preset: str | None = None
    rates: tuple[float, ...] = (0.3, 1.0, 3.0)
    updates: int = 2000
    epoch: int = 20
    overrides: dict[str, str] = field(default_factory=dict)
    weights: str | None = None
    rate_size: int = 0
    ensemble: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate_size", self.rate_size or max(self.sizes))

    def pilots(self, cell: Cell) -> list[Cell]:
        """Return the shorter runs that choose the learning rate of a cell."""
        if cell.purpose is Purpose.RATE:
            return []
        return pilots_of(cell, self.rates, seed=self.seeds[0], size=self.rate_size, epoch=self.epoch)

    def cells(self) -> list[Cell]:
        """Return every cell, in the order in which they run."""
        factor = self.rates[0] if len(self.rates) == 1 else None
        scored = scored_cells(self.arms, self.seeds, self.sizes, self.segmenters, self.updates, factor)
        pilots = [pilot for cell in scored for pilot in self.pilots(cell)]
        return list(dict.fromkeys([*pilots, *scored]))

    def resolved(self, name: str) -> Any:
        """Return the value of an id of the configuration, such as ``label_values``, expressions worked out."""
        return ConfigParser(self.config()).get_parsed_content(name)

    def config(self) -> dict[str, Any]:
        """Return ``train.yaml`` with preset and overrides, unresolved."""
        return merged_overrides(read_config(self.preset), self.overrides)


def read_config(preset: str | None) -> dict[str, Any]:
    """Return ``train.yaml`` with a preset over it, unresolved.

    Raises:
        UserError: there is no such preset.
    """
    config: dict[str, Any] = {}
    for path in config_files(preset):
        config |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def merged_overrides(config: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """Return a configuration with overrides such as ``batch_size`` or ``shares#search`` in their places.

    Example:
        >>> merged_overrides({"shares": {"search": 1}}, {"shares#search": "2", "batch_size": "8"})
        {'shares': {'search': 2}, 'batch_size': 8}
    """
    merged: dict[str, Any] = json.loads(json.dumps(dict(config), default=str))
    for name, text in overrides.items():
        *above, last = name.replace("::", "#").split("#")
        place = merged
        for part in above:
            place = place.setdefault(part, {}) if isinstance(place, dict) else {}
        if isinstance(place, dict):
            place[last] = yaml.safe_load(text)
    return merged


def data_name(root: str) -> str:
    """Return what a data set is called in tables and files.

    Example:
        >>> data_name("sets/isic2017"), data_name("phantom://2d?cases=8")
        ('isic2017', 'phantom_2d')
    """
    if "://" in root:
        return root.split("?")[0].replace("://", "_")
    return Path(root).expanduser().absolute().name.removesuffix(".json")


def write_study(folder: Path, settings: StudySettings, facts: Mapping[str, Any]) -> None:
    """Keep the settings, and what was measured to make them.

    Args:
        folder: of the study.
        settings: of all cells so far.
        facts: further entries.
    """
    with whole_file(folder / _FILE) as temporary:
        content = {**json.loads(json.dumps(asdict(settings))), **facts}
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_study(folder: Path) -> tuple[StudySettings, dict[str, Any]] | None:
    """Return the settings of a study and the further entries; None where there is none."""
    path = folder / _FILE
    if not path.is_file():
        return None
    held = json.loads(path.read_text(encoding="utf-8"))
    own = {name: held.pop(name) for name in StudySettings.__dataclass_fields__ if name in held}
    tuples = {name: tuple(value) for name, value in own.items() if isinstance(value, list)}
    return StudySettings(**own | tuples | {"arms": tuple(Arm(arm) for arm in own["arms"])}), held


def joined(old: StudySettings, new: StudySettings, folder: Path) -> StudySettings:
    """Return the settings of a study that is run again, perhaps with more arms, seeds, sizes or segmenters.

    Raises:
        UserError: what cannot change has changed.
    """
    for name in _FIXED:
        if getattr(old, name) != getattr(new, name):
            raise UserError(
                folder, f"wanted the study that is there, with {name} {getattr(old, name)!r}, got "
                f"{getattr(new, name)!r}; give another --out for another study",
            )  # fmt: skip

    def both(name: str) -> Any:
        return tuple(dict.fromkeys([*getattr(old, name), *getattr(new, name)]))

    many: dict[str, Sequence[Any]] = {name: both(name) for name in ("arms", "seeds", "segmenters")}
    values = asdict(old) | many | {"sizes": tuple(sorted(both("sizes")))}
    return StudySettings(**values)
