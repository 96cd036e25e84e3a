"""The segmentation loss on every output of a network that is supervised at several depths.

Lee et al., "Deeply-supervised nets", AISTATS 2015, with the weights of nnU-Net (Isensee et al., Nature Methods 2021):
each output counts half as much as the finer one before it, together one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genseg_monai.losses.segmentation import SegmentationLoss

__all__ = ["DeepSupervisionLoss"]


class DeepSupervisionLoss(nn.Module):
    """`SegmentationLoss` of stacked outputs, the finest first; of a single output it is that loss itself.

    Args:
        lambda_dice: weight of the Dice loss.
        lambda_ce: weight of the cross-entropy.

    Example:
        >>> masks = torch.zeros(1, 2, 4, 4)
        >>> masks[:, 0] = 1
        >>> loss, logits = DeepSupervisionLoss(), 0.1 * masks
        >>> bool(torch.isclose(loss(torch.stack([logits, logits], 1), masks), loss(logits, masks)))
        True
    """

    def __init__(self, lambda_dice: float = 1.0, lambda_ce: float = 1.0) -> None:
        super().__init__()
        self.loss = SegmentationLoss(lambda_dice, lambda_ce)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: B S K H W [D], S outputs at the size of the image; or B K H W [D].
            masks: B K H W [D], one-hot or soft.

        Returns:
            A scalar.

        Raises:
            ValueError: the shapes do not fit.
        """
        if logits.ndim == masks.ndim:
            loss: Tensor = self.loss(logits, masks)
            return loss
        if logits.ndim != masks.ndim + 1:
            raise ValueError(f"wanted logits B [S] K H W [D], got {tuple(logits.shape)} for masks {tuple(masks.shape)}")
        outputs = logits.unbind(1)
        # w_s = 2^-s / sum_s 2^-s
        weights = [0.5**depth for depth in range(len(outputs))]
        return torch.stack(
            [weight * self.loss(output, masks) for weight, output in zip(weights, outputs, strict=True)]
        ).sum() / sum(weights)
