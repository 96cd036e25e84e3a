"""The loss of the segmenter: Dice plus cross-entropy, on logits and soft one-hot masks.

Milletari et al., "V-Net", 3DV 2016, with the cross-entropy added as in nnU-Net (Isensee et al., Nature Methods 2021).
The computation is MONAI's; what is fixed here is what the three stages rely on: background left out of the Dice, the
Dice taken over the batch (an empty mask then makes no jump), soft targets, smooth everywhere.
"""

from __future__ import annotations

from monai.losses import DiceCELoss
from torch import Tensor, nn

__all__ = ["SegmentationLoss"]


class SegmentationLoss(nn.Module):
    """Dice plus cross-entropy.

    Args:
        lambda_dice: weight of the Dice loss.
        lambda_ce: weight of the cross-entropy.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 2, 4, 4)
        >>> masks[:, 0] = 1
        >>> masks[:, :, 1:3, 1:3] = masks[:, :, 1:3, 1:3].flip(1)
        >>> round(float(SegmentationLoss()(100 * (masks - 0.5), masks)), 4)
        0.0
    """

    def __init__(self, lambda_dice: float = 1.0, lambda_ce: float = 1.0) -> None:
        super().__init__()
        self.loss = DiceCELoss(
            softmax=True, include_background=False, batch=True, lambda_dice=lambda_dice, lambda_ce=lambda_ce
        )

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: B K H W [D], K of 2 or more, class 0 background.
            masks: B K H W [D], one-hot or soft, summing to one over K.

        Returns:
            A scalar.

        Raises:
            ValueError: the shapes differ, or there is only one class.
        """
        if logits.shape != masks.shape:
            raise ValueError(
                f"wanted logits and masks of one shape, got {tuple(logits.shape)} and {tuple(masks.shape)}"
            )
        if logits.shape[1] < 2:
            raise ValueError(f"wanted two classes or more, background among them, got {logits.shape[1]}")
        return self.loss(logits, masks)
