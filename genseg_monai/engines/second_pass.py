"""Stage II's pass over the synthetic batch, kept so that stage III can differentiate its gradient again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.func import functional_call

from genseg_monai.multilevel import Tree
from genseg_monai.networks.second_order import SecondOrder

__all__ = ["SecondPass"]


class SecondPass:
    """One pass of a segmenter; its gradient in phi, and the derivative of that in the images.

    Copies of phi and of the buffers stand in for them, so that later steps leave the graph alone.

    Args:
        network: images ``B C H W [D]`` -> logits ``B K H W [D]``; its buffers are updated as in any pass.
        loss_function: (logits, masks) -> scalar.
        images: ``B C H W [D]``, leaves.
        masks: ``B K H W [D]``.

    Attributes:
        loss: a detached scalar.

    Example:
        >>> network, images = nn.Conv2d(1, 2, 1, bias=False), torch.ones(1, 1, 2, 2, requires_grad=True)
        >>> again = SecondPass(network, lambda logits, masks: logits.square().sum() / 2, images, images)
        >>> again.backward(gamma=1.0)
        >>> again.response({"weight": torch.ones(2, 1, 1, 1)})["images"].allclose(2 * network.weight.sum())
        True
    """

    def __init__(
        self, network: nn.Module, loss_function: Callable[[Tensor, Tensor], Tensor], images: Tensor, masks: Tensor
    ) -> None:
        self._own = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self._phi = {name: value.detach().clone().requires_grad_() for name, value in self._own.items()}
        self._images = images
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        with SecondOrder(weights=False):
            self._value = loss_function(functional_call(network, self._phi | buffers, (images,)), masks)
        for name, own in network.named_buffers():
            own.copy_(buffers[name])
        self.loss = self._value.detach()

    def backward(self, gamma: float) -> None:
        """Add gamma grad_phi loss to the gradients of phi."""
        slopes = torch.autograd.grad(self._value, list(self._phi.values()), create_graph=True, allow_unused=True)
        self._edges = {}
        for (name, own), slope in zip(self._own.items(), slopes, strict=True):
            if slope is None:
                continue
            if slope.requires_grad:
                # the graph is needed again, the numbers are not
                self._edges[name] = get_gradient_edge(slope)
            own.grad = gamma * slope.detach() if own.grad is None else own.grad.add_(slope.detach(), alpha=gamma)
        del self._value, self._own, self._phi

    def response(self, direction: Tree) -> Tree:
        """Return d/d eps [grad_images loss(phi + eps direction; images)] as ``images``; to be asked once."""
        # <grad_phi loss, direction>, whose gradient in the images is the mixed derivative
        (found,) = torch.autograd.grad(
            list(self._edges.values()),
            self._images,
            [direction[name] for name in self._edges],
            allow_unused=True,
        )
        return {"images": torch.zeros_like(self._images) if found is None else found}
