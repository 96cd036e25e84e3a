"""The two segmenters of the server, made when they are asked for and made again when what they rest on has changed."""

from __future__ import annotations

import filecmp
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from genseg_monai.apps.incontext import universeg_weights
from genseg_monai.apps.workflow import shipped_bundle
from genseg_monai.data.plan import Plan
from genseg_monai.errors import UserError
from genseg_monai.inferers.in_context import InContextSettings
from genseg_monai.inferers.in_context_segmenter import InContextSegmenter
from genseg_monai.inferers.support_cases import support_plan
from genseg_monai.inferers.trained_segmenter import TrainedSegmenter

__all__ = ["QUICK", "Models"]

logger = logging.getLogger(__name__)

QUICK = {"size": 64, "support_size": 8, "ensemble": 1}
"""UniverSeg on a CPU: a twentieth of the work of a pass with 40 supports of 128 x 128."""

Cases = Sequence[Mapping[str, Any]]


@dataclass
class Models:
    """What a bundle and the labelled cases of a datastore give.

    Args:
        bundle: the folder of the bundle, trained in place.
        labelled: returns the labelled cases, each with `image` and `label`, paths.
        weights: the file of UniverSeg's weights; None for those of this package.
    """

    bundle: Path
    labelled: Callable[[], Cases]
    weights: str | None = None
    _kept: dict[str, tuple[Any, Any]] = field(default_factory=dict, repr=False)
    _making: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def is_trained(self) -> bool:
        """Whether the bundle has other weights than those it is shipped with, which mean nothing."""
        ours, shipped = self.bundle / "models" / "model.pt", shipped_bundle() / "models" / "model.pt"
        return ours.is_file() and not (shipped.is_file() and filecmp.cmp(ours, shipped, shallow=False))

    def trained(self, device: str = "cpu") -> TrainedSegmenter:
        """Return the segmenter of the bundle, as its newest training left it.

        Raises:
            UserError: it has not been trained.
        """
        self._check_trained()
        return self._once(
            f"trained {device}", _signature(self._trained_files), lambda: TrainedSegmenter(self.bundle, device)
        )

    def trained_plan(self) -> Plan:
        """Return what the training decided, without its network.

        Raises:
            UserError: it has not been trained.
        """
        self._check_trained()
        config = self.bundle / "configs" / "inference.yaml"
        return self._once(
            "trained plan", _signature([config]), lambda: Plan.from_dict(ConfigParser.load_config_file(config)["plan"])
        )

    def state(self) -> tuple[tuple[str, int, int], ...]:
        """Return what has changed when the models have: their weights, or the labelled cases."""
        return _signature([*self._trained_files, *_files(self.labelled())])

    def _check_trained(self) -> None:
        if not self.is_trained:
            raise UserError(
                "genseg", "wanted a trained bundle, it holds the weights it was shipped with; label some cases and "
                "train, or take the model universeg meanwhile"
            )  # fmt: skip

    @property
    def _trained_files(self) -> list[Path]:
        files = ("models/model.pt", "configs/inference.yaml", "models/calibration/temperature.json")
        return [path for name in files if (path := self.bundle / name).is_file()]

    def shown(
        self,
        device: str = "cpu",
        settings: InContextSettings | None = None,
        *,
        size: int = 128,
        without: str | Path = "",
    ) -> InContextSegmenter:
        """Return UniverSeg with the labelled cases as supports.

        Args:
            device: where it runs.
            settings: how an image is segmented.
            size: pixels on a side the network sees.
            without: an image that is no support, since it is the one to segment.

        Raises:
            UserError: there is no labelled case.
        """
        weights, cases = universeg_weights(self.weights), self._supports(without)
        key = (device, settings, size, _signature(_files(cases)))
        return self._once(
            "shown",
            key,
            lambda: InContextSegmenter(
                weights, cases, settings, plan=self.support_plan(cases), size=size, device=device
            ),
        )

    def quick(self, device: str = "cpu") -> InContextSegmenter:
        """Return UniverSeg as it is cheapest: for an annotator who waits, and for the ranking of many cases."""
        settings = InContextSettings(support_size=QUICK["support_size"], ensemble=1)
        return self.shown(device, settings, size=QUICK["size"])

    def support_plan(self, cases: Cases | None = None) -> Plan:
        """Return what the label values of the labelled cases mean: as the trained bundle says, if it knows them all.

        Raises:
            UserError: there is no labelled case.
        """
        cases = self._supports() if cases is None else cases
        files = [*_files(cases), self.bundle / "configs" / "inference.yaml"]
        return self._once("plan", _signature(files), lambda: self._plan(cases))

    def _plan(self, cases: Cases) -> Plan:
        if self.is_trained:
            known = self.trained_plan()
            try:
                plan = support_plan(cases, label_values=known.label_values, modality=known.modality)
                return replace(plan, classes=known.classes)
            except UserError as problem:
                logger.info("the labels are not those of the trained bundle: %s", problem)
        return support_plan(cases)

    def _supports(self, without: str | Path = "") -> list[dict[str, Any]]:
        cases = [{"image": case["image"], "label": case["label"]} for case in self.labelled()]
        cases = [case for case in cases if str(case["image"]) != str(without)]
        if not cases:
            raise UserError("universeg", "wanted a labelled case to segment by, found none; label one first")
        return cases

    def _once(self, name: str, key: Any, make: Callable[[], Any]) -> Any:
        """Make something again only where its key has changed; requests come in several threads."""
        with self._making:
            if name not in self._kept or self._kept[name][0] != key:
                self._kept[name] = (key, make())
            return self._kept[name][1]


def _files(cases: Cases) -> list[Path]:
    return [Path(case[key]) for case in cases for key in ("image", "label")]


def _signature(files: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """Return what tells that files have changed."""
    return tuple((str(path), (state := path.stat()).st_mtime_ns, state.st_size) for path in files)
