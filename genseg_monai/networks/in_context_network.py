"""UniverSeg as a segmenter like the others: image in, logits of all classes out, its examples held inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from genseg_monai.errors import UserError
from genseg_monai.networks.universeg import UniverSeg
from genseg_monai.transforms.one_channel import LUMINANCE

__all__ = ["SUPPORT_SIZE", "InContextNetwork"]

SUPPORT_SIZE = 8
"""Labelled images held, unless the settings say otherwise."""


class InContextNetwork(nn.Module):
    """UniverSeg with a support set of its own, fit to be trained further by the three stages.

    One binary pass a class against the same supports; the background has logit 0, so that one class alone has the
    sigmoid of its pass. In training the support most like each query is left out, which is the query itself wherever it
    is among them: what is to be learnt is to read a label off others.

    Patient data: the supports are images and masks of the training cases, and they stand in the state dict, so that
    ``model.pt`` segments without further files. Whoever is given that file is given those cases, `support_size` of
    them at the working size. No other segmenter holds any.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image; UniverSeg sees their grey value.
        out_channels: classes K, background included.
        image_size: `H W [D]` of images and supports.
        support_size: labelled images held at most; a pass takes time in proportion.
        features: as of `UniverSeg`.
        support_chunk: as of `UniverSeg`.
        recompute: as of `UniverSeg`.

    Shape:
        Images `B C H W [D]` in [0, 1] to logits `B K H W [D]`.

    Raises:
        UserError: no class beside the background, or no support to be held.

    Example:
        >>> import torch
        >>> network = InContextNetwork(
        ...     spatial_dims=2, in_channels=3, out_channels=2, image_size=(32, 32), features=(4, 4, 4, 4)
        ... )
        >>> network.hold(torch.rand(5, 3, 32, 32), torch.rand(5, 1, 32, 32).round())
        >>> network(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 2, 32, 32])
    """

    grey: Tensor
    support_images: Tensor
    support_labels: Tensor
    support_held: Tensor

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        image_size: Sequence[int],
        support_size: int = SUPPORT_SIZE,
        features: Sequence[int] = (64, 64, 64, 64),
        support_chunk: int | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if out_channels < 2:
            raise UserError("universeg", f"wanted the background and at least one class, got {out_channels} in all")
        if support_size < 1:
            raise UserError("support_size", f"wanted at least 1 labelled image, got {support_size}")
        self.classes = out_channels
        self.network = UniverSeg(
            spatial_dims=spatial_dims, features=features, support_chunk=support_chunk, recompute=recompute
        )
        # images are normalised before they come, and synthetic ones made so: no look at each of them
        self.network.range_checks = False
        # read by nothing; an optimiser would never step it, which the hypergradient takes for an error
        self.network.drop_last_supports()
        shares = LUMINANCE if in_channels == 3 and spatial_dims == 2 else [1 / in_channels] * in_channels
        self.register_buffer("grey", torch.tensor(shares), persistent=False)
        self.register_buffer("support_images", torch.zeros(support_size, 1, *image_size))
        self.register_buffer("support_labels", torch.zeros(support_size, 1, *image_size, dtype=torch.uint8))
        self.register_buffer("support_held", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def hold(self, images: Tensor, labels: Tensor) -> None:
        """Take a support set in place of the present one.

        Args:
            images: `S C H W [D]` in [0, 1], S from 1 to `support_size`.
            labels: `S 1 H W [D]`, class indices.

        Raises:
            UserError: none, too many, or other shapes than those held.
        """
        size, count = list(self.support_images.shape[2:]), len(images)
        wanted = [count, 1, *size]
        if not 1 <= count <= len(self.support_images) or [*images.shape[2:]] != size or [*labels.shape] != wanted:
            expected = f"1 to {len(self.support_images)} images {size} with as many labels"
            raise UserError("supports", f"wanted {expected}, got {list(images.shape)} and {list(labels.shape)}")
        for held, given in ((self.support_images, self._grey(images)), (self.support_labels, labels)):
            held.zero_()
            held[:count] = given.to(held)
        self.support_held.fill_(count)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits.

        Raises:
            UserError: no supports are held, or the image is of another size.
        """
        count = int(self.support_held)
        if not count:
            raise UserError("universeg", "wanted labelled images to segment by, it holds none; train it first")
        query = self._grey(image)
        chosen = repeat(torch.arange(count, device=image.device), "S -> B S", B=len(image))
        if self.training and count > 1:
            held = rearrange(self.support_images[:count], "S ... -> S (...)")
            distances = torch.cdist(rearrange(query.detach(), "B ... -> B (...)"), held)
            chosen = distances.argsort(dim=1)[:, 1:]
        images, labels = self.support_images[chosen], self.support_labels[chosen]
        logits = [self.network(query, images, (labels == k).to(images.dtype)) for k in range(1, self.classes)]
        return torch.cat([torch.zeros_like(logits[0]), *logits], dim=1)

    def _grey(self, images: Tensor) -> Tensor:
        """Return `N 1 H W [D]` of `N C H W [D]`."""
        if images.shape[1] != len(self.grey):
            raise UserError("universeg", f"wanted images of {len(self.grey)} channels, got {list(images.shape)}")
        if len(self.grey) == 1:
            return images
        return torch.tensordot(images, self.grey, dims=([1], [0])).unsqueeze(1)
