from __future__ import annotations

import torch
from torch import Tensor

from genseg_monai.inferers.in_context import InContextSettings
from genseg_monai.inferers.in_context_inferer import InContextInferer
from genseg_monai.inferers.support_cases import Supports
from genseg_monai.inferers.support_set import SupportSet
from genseg_monai.inferers.thresholds import fit_offsets
from genseg_monai.transforms.planes import PlaneGrid


class Shy(torch.nn.Module):
    """Tells bright from dark, with too little confidence; counts its passes and keeps the supports it saw."""

    def __init__(self, shift: float = -2.5) -> None:
        super().__init__()
        self.shift = shift
        self.seen: list[Tensor] = []

    def forward(self, query: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        self.seen.append(images)
        return 4 * (query - 0.5) + self.shift


def _supports(classes: int = 2, cases: Tensor | None = None) -> SupportSet:
    random = torch.Generator().manual_seed(0)
    labels = torch.zeros(6, 1, 16, 16, dtype=torch.uint8)
    for index in range(1, classes):
        labels[:, :, 3 * index : 3 * index + 3, 3:12] = index
    images = 0.9 * (labels > 0) + 0.02 * torch.rand(labels.shape, generator=random)
    return SupportSet(
        images, labels, [str(k) for k in range(classes)], cases=cases if cases is not None else torch.arange(6)
    )


def test_a_shy_network_is_believed_more_and_a_bold_one_less() -> None:
    # bright is 0.4 x 4 - 2.5 = -0.9, dark -4.5: any offset between is right, the least is taken
    assert 0.9 < float(fit_offsets(Shy(), _supports())) <= 1.25
    assert -1.0 > float(fit_offsets(Shy(3.0), _supports())) >= -1.5
    assert float(fit_offsets(Shy(0.0), _supports())) == 0, "it is right as it is"


def test_a_support_is_never_its_own_example() -> None:
    network, supports = Shy(), _supports(cases=torch.tensor([0, 0, 1, 1, 2, 2]))
    fit_offsets(network, supports, held=6)
    assert len(network.seen) == 6
    assert all(images.shape[1] == 4 for images in network.seen), "nor are other planes of its case"


def test_each_class_for_itself_and_passes_are_bounded() -> None:
    network = Shy()
    offsets = fit_offsets(network, _supports(classes=3), held=2, support_size=3)
    assert offsets.shape == (2,)
    assert len(network.seen) == 4
    assert all(images.shape[1] == 3 for images in network.seen)
    assert fit_offsets(network, _supports(), held=0).tolist() == [0]


def test_too_few_cases_tell_nothing() -> None:
    network = Shy()
    assert fit_offsets(network, _supports(cases=torch.zeros(6, dtype=torch.long))).tolist() == [0]
    supports = _supports()
    supports.labels[1:] = 0
    assert fit_offsets(network, supports).tolist() == [0]
    assert not network.seen


def test_the_inferer_fits_once_and_uses_it() -> None:
    supports = Supports(_supports(), PlaneGrid(16), axis=None)
    query = supports.planes.images[:1]
    for calibrate, found in ((4, True), (0, False)):
        network = Shy()
        inferer = InContextInferer(supports, InContextSettings(ensemble=1, augment=False, calibrate=calibrate))
        for passes in (calibrate + 1, calibrate + 2):
            mask = inferer(query, network).argmax(1)
            assert len(network.seen) == passes
        assert bool((mask[0] == supports.planes.labels[0, 0]).all()) is found
