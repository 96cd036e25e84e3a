"""The conditional adversarial loss with a reconstruction term, of generator and discriminator.

Isola et al., "Image-to-image translation with conditional adversarial networks" (pix2pix), CVPR 2017. We differ in two
defaults: least squares in place of cross-entropy (Mao et al., ICCV 2017), and the Charbonnier function in place of the
absolute value, since a hypergradient differentiates this loss twice and the absolute value has a kink where it matters.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AdversarialKind", "AdversarialLoss", "ReconstructionKind", "charbonnier"]

_Kind = TypeVar("_Kind", bound=StrEnum)


class AdversarialKind(StrEnum):
    """How a logit is compared with what it should be."""

    LEAST_SQUARES = "least_squares"
    BCE = "bce"


class ReconstructionKind(StrEnum):
    """How a synthetic image is compared with the real one."""

    CHARBONNIER = "charbonnier"
    L1 = "l1"


def charbonnier(fake: Tensor, real: Tensor, eps: float = 1e-3) -> Tensor:
    r"""Return the mean of :math:`\sqrt{(fake - real)^2 + \epsilon^2} - \epsilon`: an absolute value without its kink.

    Args:
        fake: B C H W [D].
        real: B C H W [D].
        eps: width of the rounded tip, in the unit of the images.

    Returns:
        A scalar: 0 for equal images, never above the mean absolute difference.

    Example:
        >>> float(charbonnier(torch.ones(2), torch.ones(2)))
        0.0
    """
    return ((fake - real).square() + eps**2).sqrt().mean() - eps


class AdversarialLoss(nn.Module):
    r"""The losses of the generator and of the discriminator.

    With D the logits and t = 1 for real, 0 for synthetic, :math:`\ell` the squared or the cross-entropy loss:

    .. math::
        L_G = \ell(D(\hat x), 1) + \lambda\, |\hat x - x|, \qquad
        L_D = \tfrac12 [\ell(D(x), 1) + \ell(D(\hat x), 0)]

    Args:
        lambda_rec: weight of the reconstruction term, 0 or more.
        kind: `least_squares` or `bce`.
        reconstruction: `charbonnier` or `l1`.

    Example:
        >>> loss = AdversarialLoss(lambda_rec=100)
        >>> real = torch.rand(1, 3, 8, 8)
        >>> float(loss.generator(torch.ones(1, 1, 2, 2), real, real))
        0.0
    """

    def __init__(
        self,
        lambda_rec: float = 100.0,
        kind: AdversarialKind | str = AdversarialKind.LEAST_SQUARES,
        reconstruction: ReconstructionKind | str = ReconstructionKind.CHARBONNIER,
    ) -> None:
        super().__init__()
        if lambda_rec < 0:
            raise ValueError(f"lambda_rec: wanted a weight of 0 or more, got {lambda_rec}")
        self.lambda_rec = lambda_rec
        self.kind = _member(AdversarialKind, "kind", kind)
        self.reconstruction = _member(ReconstructionKind, "reconstruction", reconstruction)

    def generator(self, fake_logits: Tensor, fake: Tensor, real: Tensor) -> Tensor:
        """Return the loss of the generator.

        Args:
            fake_logits: B 1 h w [d], what the discriminator says of the synthetic images.
            fake: B C H W [D], the synthetic images.
            real: B C H W [D], the real images of the same masks.

        Returns:
            A scalar.

        Raises:
            ValueError: the images differ in shape.
        """
        if fake.shape != real.shape:
            raise ValueError(f"wanted images of one shape, got {tuple(fake.shape)} and {tuple(real.shape)}")
        # L_G = l(D(fake), 1) + lambda |fake - real|
        distance = (
            charbonnier(fake, real) if self.reconstruction is ReconstructionKind.CHARBONNIER else F.l1_loss(fake, real)
        )
        return self._compare(fake_logits, 1.0) + self.lambda_rec * distance

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the loss of the discriminator.

        Args:
            real_logits: B 1 h w [d], what it says of real images.
            fake_logits: B 1 h w [d], what it says of synthetic ones (detached from the generator).

        Returns:
            A scalar.
        """
        # L_D = 1/2 [l(D(real), 1) + l(D(fake), 0)]
        return (self._compare(real_logits, 1.0) + self._compare(fake_logits, 0.0)) / 2

    def _compare(self, logits: Tensor, target: float) -> Tensor:
        """Return the mean loss of the logits against one target."""
        if self.kind is AdversarialKind.LEAST_SQUARES:
            return (logits - target).square().mean()
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _member(kinds: type[_Kind], name: str, value: str) -> _Kind:
    """Return the member, or say which there are."""
    try:
        return kinds(value)
    except ValueError:
        raise ValueError(f"{name}: wanted one of {', '.join(kinds)}, got {value!r}") from None
