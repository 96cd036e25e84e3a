"""UniverSeg with its examples inside: a segmenter like the others."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from genseg_monai.errors import UserError
from genseg_monai.networks.in_context_network import InContextNetwork
from tests.networks.base import NetworkTests, Shape
from tests.networks.base import pytest_generate_tests as pytest_generate_tests


def made(dims: int = 2, inputs: int = 1, outputs: int = 2, size: tuple[int, ...] = (16, 16), held: int = 3):
    network = InContextNetwork(
        spatial_dims=dims,
        in_channels=inputs,
        out_channels=outputs,
        image_size=size,
        support_size=4,
        features=(4, 4, 4, 4),
    )
    if held:
        network.hold(torch.rand(held, inputs, *size), torch.randint(outputs, (held, 1, *size)))
    return network


class TestInContextNetwork(NetworkTests):
    shapes: ClassVar[list[Shape]] = [(2, 1, 2, (16, 24)), (2, 3, 4, (17, 20)), (3, 1, 3, (8, 9, 16))]

    def make(self, dims: int, inputs: int, outputs: int, size: tuple[int, ...]) -> InContextNetwork:
        return made(dims, inputs, outputs, size)


def test_one_pass_a_class_and_the_background_at_nought():
    network = made(outputs=3).eval()
    image = torch.rand(2, 1, 16, 16)
    logits = network(image)
    images, labels = network.support_images[:3], network.support_labels[:3]
    assert not logits[:, 0].any()
    for k in (1, 2):
        alone = network.network(image, images.expand(2, -1, -1, -1, -1), (labels == k).float().expand(2, 3, 1, 16, 16))
        torch.testing.assert_close(logits[:, k : k + 1], alone)


def test_in_training_no_image_is_segmented_by_itself():
    """Its own label is not used: whatever it is, the logits are the same; those of others are."""
    network = made(held=4)
    image, labels = network.support_images[1:2].clone(), network.support_labels.clone()

    def changed(case: int) -> torch.Tensor:
        network.support_labels.copy_(labels)
        network.support_labels[case] = 1 - labels[case]
        return network(image)

    plain = network.train()(image)
    torch.testing.assert_close(changed(1), plain, rtol=0, atol=0)
    assert not torch.allclose(changed(0), plain)
    network.support_labels.copy_(labels)
    plain = network.eval()(image)
    assert not torch.allclose(changed(1), plain)


def test_a_single_support_is_used_in_training_too():
    network = made(held=1).train()
    assert network(torch.rand(2, 1, 16, 16)).isfinite().all()


def test_fewer_supports_than_fit_are_as_if_there_was_no_room_for_more():
    network, roomy = made(held=2).eval(), made(held=0).eval()
    roomy.network.load_state_dict(network.network.state_dict())
    images, labels = network.support_images[:2].clone(), network.support_labels[:2].clone()
    roomy.hold(torch.rand(4, 1, 16, 16), torch.ones(4, 1, 16, 16))
    roomy.hold(images, labels)
    assert not roomy.support_images[2:].any()
    image = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(roomy(image), network(image))


def test_supports_are_part_of_the_weights():
    network, other = made().eval(), made(held=0).eval()
    other.load_state_dict(network.state_dict())
    image = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(other(image), network(image), rtol=0, atol=0)


def test_colour_is_seen_as_grey():
    network = made(inputs=3).eval()
    image = torch.rand(1, 3, 16, 16)
    grey = 0.299 * image[:, :1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:]
    torch.testing.assert_close(network(grey.expand(-1, 3, -1, -1)), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "labels"), [((0, 1, 16, 16), (0, 1, 16, 16)), ((5, 1, 16, 16), (5, 1, 16, 16)), ((2, 1, 8, 16), None)]
)
def test_wrong_supports_are_told(images, labels):
    with pytest.raises(UserError, match=r"supports: wanted 1 to 4 images \[16, 16\] with as many labels, got"):
        made().hold(torch.zeros(images), torch.zeros(labels or (2, 1, 16, 16)))


def test_wrong_use_is_told():
    with pytest.raises(UserError, match="wanted labelled images to segment by, it holds none; train it first"):
        made(held=0)(torch.rand(1, 1, 16, 16))
    with pytest.raises(UserError, match=r"wanted images of 1 channels, got \[1, 3, 16, 16\]"):
        made()(torch.rand(1, 3, 16, 16))
    with pytest.raises(UserError, match="wanted the background and at least one class, got 1 in all"):
        made(outputs=1)
    with pytest.raises(UserError, match="support_size: wanted at least 1 labelled image, got 0"):
        InContextNetwork(spatial_dims=2, in_channels=1, out_channels=2, image_size=(8, 8), support_size=0)
