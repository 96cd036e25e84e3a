"""What synthetic images are worth: do they obey their masks, do they repeat training images, do they differ?

- Obedience: a segmenter looks at the synthetic image; Dice of what it sees against the mask the image was made from.
- Memorisation: the distance of each synthetic image to its nearest training image, against the distances of training
  images to their own nearest neighbours (after Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect
  data-copying in generative models", AISTATS 2020, arXiv 2004.05675, reduced to what ten images can tell). Smooth
  images lie near everything; so it is also asked how often the nearest real image is one the generator was trained on
  rather than one it has never seen.
- Diversity: mean distance between two synthetic images, against that of two real ones.

Distances are taken between small pictures of the images, so that noise does not hide a copy: the root of the mean
squared difference, in units of intensity. They see copies, not a patient's features in another pose: a clean result is
no proof of anonymity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Memorisation", "distances", "diversity", "memorisation", "nearest_is_trained", "obedience", "thumbnails"]


def obedience(logits: Tensor, masks: Tensor) -> Tensor:
    """Return Dice between what a segmenter sees in synthetic images and the masks they were made from.

    Args:
        logits: B K H W [D], of the synthetic images; or probabilities.
        masks: B K H W [D], one-hot or soft, the background first.

    Returns:
        B, mean over the foreground classes; a class that neither has counts as 1.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> masks = torch.eye(2)[torch.tensor([[[0, 1], [1, 1]]])].movedim(-1, 1)
        >>> obedience(masks, masks)
        tensor([1.])
    """
    if logits.shape != masks.shape or logits.ndim < 3 or logits.shape[1] < 2:
        raise ValueError(f"wanted logits and masks B K H W [D] of one shape, got {logits.shape} and {masks.shape}")
    classes = logits.shape[1]
    seen, wanted = (F.one_hot(x.argmax(1).flatten(1), classes)[..., 1:].float() for x in (logits, masks))
    both, either = (seen * wanted).sum(1), seen.sum(1) + wanted.sum(1)  # B K-1
    return torch.where(either > 0, 2 * both / either.clamp(min=1), 1.0).mean(1)


def thumbnails(images: Tensor, size: int = 32) -> Tensor:
    """Return small pictures of images as vectors.

    Args:
        images: B C H W [D].
        size: longest side of the small pictures; smaller images stay as they are.

    Returns:
        B F.

    Example:
        >>> thumbnails(torch.zeros(2, 1, 64, 128)).shape
        torch.Size([2, 512])
    """
    sides = images.shape[2:]
    shrink = min(1.0, size / max(sides))
    small = [max(1, round(side * shrink)) for side in sides]
    pool: Callable[..., Tensor] = F.adaptive_avg_pool2d if len(sides) == 2 else F.adaptive_avg_pool3d
    return pool(images.float(), small).flatten(1)


def distances(left: Tensor, right: Tensor) -> Tensor:
    """Return the root mean squared difference of every pair, N M.

    Args:
        left: N F.
        right: M F.

    Example:
        >>> distances(torch.zeros(1, 4), torch.ones(2, 4))
        tensor([[1., 1.]])
    """
    exact = torch.cdist(left.double(), right.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return (exact / left.shape[1] ** 0.5).to(left.dtype)


@dataclass(frozen=True)
class Memorisation:
    """How near synthetic images come to training images.

    Attributes:
        nearest: distance of each synthetic image to its nearest training image.
        neighbour: which one that is.
        real: distance of each training image to its nearest neighbour, of another patient where groups are known.

    Example:
        >>> real = torch.tensor([[0.0], [1.0], [3.0]])
        >>> found = memorisation(torch.tensor([[1.0], [4.0]]), real)
        >>> found.nearest, found.neighbour, found.closer
        ((0.0, 1.0), (1, 2), 0.5)
    """

    nearest: tuple[float, ...]
    neighbour: tuple[int, ...]
    real: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median distance of synthetic images over that of training images: near 0 they are copies, 1 is as usual."""
        return _median(self.nearest) / max(_median(self.real), 1e-12)

    @property
    def closer(self) -> float:
        """Share of synthetic images nearer to a training image than any two training images are to each other."""
        closest = min(self.real)
        return sum(distance < closest for distance in self.nearest) / len(self.nearest)


def memorisation(synthetic: Tensor, real: Tensor, groups: Sequence[str] | None = None) -> Memorisation:
    """Look for training images among synthetic ones.

    Args:
        synthetic: N F, such as `thumbnails` gives.
        real: M F, the training images.
        groups: patient of each training image: two images of one patient may be as near as they like.

    Raises:
        ValueError: no synthetic image, or fewer than two training images or patients.
    """
    if not len(synthetic) or len(real) < 2:
        raise ValueError(f"wanted synthetic images and two real ones or more, got {len(synthetic)} and {len(real)}")
    names = list(groups) if groups is not None else [str(i) for i in range(len(real))]
    if len(names) != len(real) or len(set(names)) < 2:
        raise ValueError(f"wanted a group for each of {len(real)} images, two groups or more, got {sorted(set(names))}")
    among = distances(real, real)
    same = torch.tensor([[one == other for other in names] for one in names], device=among.device)
    near, which = distances(synthetic, real).min(dim=1)
    own = among.masked_fill(same, float("inf")).min(dim=1).values
    return Memorisation(tuple(near.tolist()), tuple(which.tolist()), tuple(own.tolist()))


def nearest_is_trained(synthetic: Tensor, trained: Tensor, unseen: Tensor) -> float:
    """Return the share of synthetic images whose nearest real image is one of the training images.

    Without copying it is about the share that training images have among all real ones.

    Args:
        synthetic: N F, such as `thumbnails` gives.
        trained: M F, images that the generator was trained on.
        unseen: L F, images of other patients that it was not.

    Raises:
        ValueError: one of the three is empty.

    Example:
        >>> nearest_is_trained(torch.tensor([[0.1], [0.9]]), torch.tensor([[0.0]]), torch.tensor([[1.0]]))
        0.5
    """
    if not (len(synthetic) and len(trained) and len(unseen)):
        raise ValueError(f"wanted images of each kind, got {len(synthetic)}, {len(trained)} and {len(unseen)}")
    nearest = distances(synthetic, torch.cat([trained, unseen])).argmin(dim=1)
    return float((nearest < len(trained)).double().mean())


def diversity(images: Tensor) -> float:
    """Return the mean distance between two images, 0 where all are alike or there is one.

    Args:
        images: N F, such as `thumbnails` gives.

    Example:
        >>> diversity(torch.tensor([[0.0], [0.0], [3.0]]))
        2.0
    """
    count = len(images)
    return float(distances(images, images).sum()) / (count * (count - 1)) if count > 1 else 0.0


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))
