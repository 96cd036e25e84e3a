"""UniverSeg: equal to its plain definition in value and gradient, whatever it does to be fast."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from genseg_monai.errors import UserError
from genseg_monai.networks.universeg import UniverSeg
from tests.networks.base import ScriptedNetworkTests, Shape
from tests.networks.base import pytest_generate_tests as pytest_generate_tests
from tests.networks.plain_universeg import plain_universeg

WAYS = {
    "whole": {},
    "chunks": {"support_chunk": 2},
    "chunks of one": {"support_chunk": 1},
    "recomputed": {"recompute": True},
    "recomputed chunks": {"support_chunk": 2, "recompute": True},
}
# a first level as wide as this takes both convolutions of raw supports in one, a narrower one does not
EPISODES = {
    "wide 2D": ((20, 3, 4, 5), (8, 16)),
    "narrow 2D": ((4, 5, 6, 7), (16, 8)),
    "wide 3D": ((55, 2), (2, 4, 2)),
    "narrow 3D": ((2, 3, 4), (4, 8, 4)),
}


class TestUniverSeg(ScriptedNetworkTests):
    shapes: ClassVar[list[Shape]] = [(2, 1, 1, (32, 20)), (2, 3, 2, (17, 24)), (3, 1, 2, (16, 8, 9))]
    scriptable = False

    def make(self, dims: int, inputs: int, outputs: int, size: tuple[int, ...]) -> UniverSeg:
        network = UniverSeg(spatial_dims=dims, in_channels=inputs, out_channels=outputs, features=(6, 4, 4, 4))
        network.range_checks = False  # a branch on values, which a trace warns about
        return network

    def inputs(self, shape: Shape, batch: int = 2) -> tuple[Tensor, ...]:
        _, channels, _, size = shape
        images, labels = torch.rand(batch, 3, channels, *size), torch.rand(batch, 3, 1, *size).round()
        return torch.rand(batch, channels, *size), images, labels

    def test_training_moves_every_weight_and_no_buffer(self, shape: Shape) -> None:
        """All but the official weights that nothing reads."""
        network = self.make(*shape)
        names = {name for name, _ in network.named_parameters()}
        network.drop_last_supports()
        dropped = names - {name for name, _ in network.named_parameters()}
        assert dropped == {f"dec_blocks.2.support.vmapped.conv.{kind}" for kind in ("weight", "bias")}
        network(*self.inputs(shape)).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def episode(size: tuple[int, ...], dtype: torch.dtype, supports: int = 5, batch: int = 2) -> tuple[Tensor, ...]:
    images = torch.rand(batch, supports, 1, *size, dtype=dtype)
    labels = torch.rand(batch, supports, 1, *size).round().to(dtype)
    return torch.rand(batch, 1, *size, dtype=dtype), images, labels


def results(network: UniverSeg, function: Any, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the logits and their gradients in query, support images and weights."""
    query, images, labels = inputs
    query, images = query.clone().requires_grad_(), images.clone().requires_grad_()
    logits = function(query, images, labels)
    slopes = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).reshape(logits.shape)
    weights = list(network.parameters())
    found = torch.autograd.grad(logits, [query, images, *weights], slopes, allow_unused=True)
    return [logits, *(grad for grad in found if grad is not None)]


def tell_apart(network: UniverSeg, inputs: tuple[Tensor, ...], tolerance: float) -> None:
    ours = results(network, network, inputs)
    theirs = results(network, lambda *given: plain_universeg(network, *given), inputs)
    assert len(ours) == len(theirs) == 3 + len(list(network.parameters())) - 2  # two that nothing reads
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() <= tolerance * other.abs().max().clamp_min(1)


@pytest.mark.parametrize("cross_activation", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", EPISODES)
def test_equal_to_the_plain_definition(kind, way, cross_activation):
    features, size = EPISODES[kind]
    settings = WAYS[way] | {"cross_activation": cross_activation}
    network = UniverSeg(spatial_dims=len(size), features=features, **settings).double()
    tell_apart(network, episode(size, torch.double), 1e-12)


def test_equal_in_single_precision_at_full_width():
    torch.manual_seed(0)
    network = UniverSeg()
    inputs = episode((32, 32), torch.float32, batch=1)
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), plain_universeg(network, *inputs), rtol=1e-5, atol=1e-5)
    tell_apart(network, inputs, 1e-5)


@pytest.mark.parametrize("supports", [1, 2])
def test_few_supports(supports):
    network = UniverSeg(features=(4, 4, 4, 4)).double()
    tell_apart(network, episode((16, 16), torch.double, supports), 1e-12)


def test_one_level_is_enough():
    network = UniverSeg(features=(4,)).double()
    inputs = episode((5, 7), torch.double)
    torch.testing.assert_close(network(*inputs), plain_universeg(network, *inputs))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cross_activation", [False, True])
def test_mask_is_as_if_the_others_were_not_there(way, cross_activation):
    network = UniverSeg(features=(20, 4, 4), cross_activation=cross_activation, **WAYS[way]).double()
    query, images, labels = episode((8, 12), torch.double)
    mask = torch.tensor([[True, False, True, True, False], [False, False, False, True, False]])
    given = images.masked_fill(~mask[:, :, None, None, None], torch.nan)
    logits = network(query, given, labels, mask)
    for row in range(2):
        chosen = mask[row]
        alone = network(query[row : row + 1], images[row : row + 1, chosen], labels[row : row + 1, chosen])
        torch.testing.assert_close(logits[row : row + 1], alone)
    weights = [p for name, p in network.named_parameters() if not name.startswith("dec_blocks.1.support")]
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(logits.sum(), weights))


def test_order_of_supports_does_not_matter():
    network = UniverSeg(features=(4, 4, 4)).double()
    query, images, labels = episode((16, 16), torch.double)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(network(query, images[:, order], labels[:, order]), network(query, images, labels))


def test_any_size_is_padded_at_the_end_with_what_lies_at_the_edge():
    network = UniverSeg(features=(4, 4, 4, 4))
    inputs = episode((11, 22), torch.float32)
    padded = [nn.functional.pad(x.flatten(0, -4), (0, 2, 0, 5), mode="replicate") for x in inputs]
    padded = [x.reshape(*y.shape[:-2], 16, 24) for x, y in zip(padded, inputs, strict=True)]
    torch.testing.assert_close(network(*inputs), network(*padded)[..., :11, :22])


def test_recomputed_with_the_weights_of_the_call():
    """Weights lent for one call are gone when the backward pass computes again."""
    network = UniverSeg(features=(4, 4, 4), support_chunk=2, recompute=True).double()
    inputs = episode((8, 8), torch.double)
    lent = {name: (2 * value.detach()).requires_grad_() for name, value in network.named_parameters()}
    found = torch.autograd.grad(functional_call(network, lent, inputs).sum(), list(lent.values()), allow_unused=True)
    network.load_state_dict({name: value.detach() for name, value in lent.items()})
    network.recompute = False
    wanted = torch.autograd.grad(network(*inputs).sum(), list(network.parameters()), allow_unused=True)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other)


def test_official_names_and_shapes():
    shapes = {name: tuple(value.shape) for name, value in UniverSeg().state_dict().items()}
    wanted: dict[str, tuple[int, ...]] = {"out_conv.conv.weight": (1, 64, 1, 1), "out_conv.conv.bias": (1,)}
    inputs = [("enc_blocks", [3, 128, 128, 128]), ("dec_blocks", [256, 256, 256])]
    for group, channels in inputs:
        for index, width in enumerate(channels):
            wanted[f"{group}.{index}.cross.cross_conv.weight"] = (64, width, 3, 3)
            wanted[f"{group}.{index}.cross.cross_conv.bias"] = (64,)
            for stream in ("target", "support"):
                wanted[f"{group}.{index}.{stream}.vmapped.conv.weight"] = (64, 64, 3, 3)
                wanted[f"{group}.{index}.{stream}.vmapped.conv.bias"] = (64,)
    assert shapes == wanted
    assert len(shapes) == 44
    assert sum(p.numel() for p in UniverSeg().parameters()) == 1_182_785


def test_begins_as_the_official_weights_do():
    """Kaiming over what comes in: gain sqrt 2 before the leaky ReLU, else 1; no bias."""
    torch.manual_seed(0)
    block = UniverSeg().enc_blocks[1]
    for conv, gain in ((block.cross.cross_conv, 1.0), (block.support_conv, 2.0)):
        fan_in = conv.weight[0].numel()
        assert float(conv.weight.detach().var() * fan_in) == pytest.approx(gain, rel=0.03)
        assert not conv.bias.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 0, 1, 8, 8), "labels": torch.zeros(2, 0, 1, 8, 8)}, r"S >= 1 \| 2 0 1 8 8 <- dif"),
        ({"query": torch.zeros(2, 8, 8)}, r"query \| B 1 H W \| 2 8 8 <- differs"),
        ({"query": torch.zeros(2, 3, 8, 8)}, r"query \| B 1 H W \| 2 3 8 8 <- differs"),
        ({"images": torch.zeros(2, 3, 1, 8, 9)}, r"support_images \| 2 S 1 8 8, S >= 1 \| 2 3 1 8 9 <- differs"),
        ({"labels": torch.zeros(2, 3, 8, 8)}, r"support_labels \| 2 3 1 8 8 \| 2 3 8 8 <- differs"),
        ({"mask": torch.ones(2, 4)}, r"support_mask \| 2 3 \| 2 4 <- differs"),
        ({"mask": torch.tensor([[True] * 3, [False] * 3])}, "support_mask: wanted at least one valid support a row"),
        ({"query": torch.full((2, 1, 8, 8), 255.0)}, r"query: wanted values in \[0, 1\], got 255 to 255; scale"),
        ({"images": torch.full((2, 3, 1, 8, 8), -0.5)}, r"support_images: wanted values in \[0, 1\], got -0.5 to -0.5"),
        ({"labels": torch.full((2, 3, 1, 8, 8), 3.0)}, r"support_labels: wanted values in \[0, 1\], got 3 to 3"),
        ({"labels": torch.full((2, 3, 1, 8, 8), torch.nan)}, r"support_labels: wanted values in \[0, 1\], got nan"),
    ],
)
def test_wrong_input_is_told(change, message):
    given = {"query": torch.zeros(2, 1, 8, 8), "images": torch.zeros(2, 3, 1, 8, 8)}
    given |= {"labels": torch.zeros(2, 3, 1, 8, 8)} | change
    with pytest.raises(UserError, match=message):
        UniverSeg(features=(2, 2))(given["query"], given["images"], given["labels"], given.get("mask"))


def test_range_checks_can_be_spared():
    network = UniverSeg(features=(2, 2))
    network.range_checks = False
    query, images, labels = episode((8, 8), torch.float32)
    assert network(query + 1, images, labels).isfinite().all()


def test_labels_may_be_truth_values():
    network = UniverSeg(features=(2, 2))
    query, images, labels = episode((8, 8), torch.float32)
    torch.testing.assert_close(network(query, images, labels.bool()), network(query, images, labels))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spatial_dims": 1}, "wanted spatial_dims 2 or 3, got 1"),
        ({"features": ()}, r"universeg features: wanted a width of at least 1 for each level, got \(\)"),
        ({"features": (4, 0)}, r"got \(4, 0\)"),
        ({"support_chunk": 0}, "universeg support_chunk: wanted at least 1 or None, got 0"),
    ],
)
def test_wrong_settings_are_told(settings, message):
    with pytest.raises(UserError, match=message):
        UniverSeg(**settings)
