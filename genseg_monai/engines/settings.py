"""What a user may set of the three-stage loop, checked on entry."""

from __future__ import annotations

from dataclasses import dataclass, field

from genseg_monai.engines.conditions import PairKind, Place
from genseg_monai.engines.schedule import Shares
from genseg_monai.errors import UserError
from genseg_monai.multilevel import EPSILON, Estimator

__all__ = ["LoopSettings"]


@dataclass(frozen=True)
class LoopSettings:
    """Settings of `GenSegTrainer`; the bundle's `train.yaml` has what was found to be better than these defaults.

    Args:
        shares: how the iterations are divided over the phases.
        baselines: segmenters trained beside GenSeg's for comparison: any of ``plain``, ``augment``.
        gamma: weight of the synthetic pairs against the real ones.
        outer_every: a stage III step every so many iterations of the search phase; 0 never (alpha stays uniform).
        outer_after: iterations of the search phase before the first one, so that Adam's second moments are warm.
        estimator: how the hypergradient is found, see `genseg_monai.multilevel.Estimator`.
        epsilon: length of a difference step.
        search_fraction: part of the training cases that stage III keeps for itself during the search, in [0, 1). With 0
            every case trains, and stage III judges each update by patients who had no part in it.
        search_batch: cases a batch of stage III.
        augment_real: whether GenSeg's own real pairs are augmented as those of the baseline ``augment``.
        synthesis: how synthetic pairs come about, see `PairKind`.
        place: where in a scene the object goes, see `Place`.
        warp_real: whether stage I is shown the real pairs moved and bent, see `Conditions`.
        synthetic: whether the final fit sees synthetic pairs at all; without them its batches are real pairs alone.
        synthetic_until: share of the segmenter's updates, in [0, 1], after which the final fit does without synthetic
            pairs; as many real ones take their place.
        gamma_ramp: share of the segmenter's updates over which gamma grows from nothing, in [0, 1].
        average: what a running mean of the segmenter's weights keeps at each update, in [0, 1); 0.99: a mean over about
            a hundred. The final fit ends with the mean; 0 takes the last weights themselves.

    Raises:
        UserError: naming the setting, what was wanted and what came.

    Example:
        >>> LoopSettings(outer_every=4).estimator
        <Estimator.MIXED: 'mixed'>
    """

    shares: Shares = field(default_factory=Shares)
    baselines: tuple[str, ...] = ("plain", "augment")
    gamma: float = 1.0
    outer_every: int = 4
    outer_after: int = 10
    estimator: Estimator | str = Estimator.MIXED
    epsilon: float = EPSILON
    search_fraction: float = 0.0
    search_batch: int = 4
    augment_real: bool = True
    synthesis: PairKind | str = PairKind.MASKS
    place: Place | str = Place.OWN
    warp_real: bool = False
    synthetic: bool = True
    synthetic_until: float = 1.0
    gamma_ramp: float = 0.0
    average: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "baselines", tuple(self.baselines))
        if self.estimator not in list(Estimator):
            raise UserError("estimator", f"wanted one of {', '.join(Estimator)}, got '{self.estimator}'")
        object.__setattr__(self, "estimator", Estimator(self.estimator))
        for name, low, high in (
            ("gamma", 0.0, float("inf")),
            ("outer_every", 0, float("inf")),
            ("outer_after", 0, float("inf")),
            ("search_batch", 1, float("inf")),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(name, f"wanted a number of at least {low}, got {value}")
        for name in ("search_fraction", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(name, f"wanted a fraction in [0, 1), got {getattr(self, name)}")
        for name in ("gamma_ramp", "synthetic_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(name, f"wanted a share in [0, 1], got {getattr(self, name)}")
        if not self.epsilon > 0:
            raise UserError("epsilon", f"wanted a length above 0, got {self.epsilon}")

    def gamma_after(self, share: float) -> float:
        """Return the weight of the synthetic pairs when the segmenter has made ``share`` of its updates."""
        return self.gamma if share >= self.gamma_ramp else self.gamma * share / self.gamma_ramp

    def synthetic_after(self, share: float) -> bool:
        """Tell whether the final fit's update that makes it ``share`` of all has synthetic pairs."""
        return self.synthetic and share <= self.synthetic_until

    def outer_due(self, step: int) -> bool:
        """Tell whether stage III follows this iteration of the search phase."""
        return self.outer_every > 0 and step >= self.outer_after and (step - self.outer_after) % self.outer_every == 0
