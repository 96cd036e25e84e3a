"""The grey in which an object stands out: the direction in colour that labelled pictures tell it by.

Luminance hides what differs in hue alone, as a red wound on skin does. The direction is Fisher's linear discriminant
("The use of multiple measurements in taxonomic problems", Annals of Eugenics 7, 1936) between the colours inside and
outside the labels, each picture first centred on its median colour: light and camera differ, the object stays redder
than what is around it.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

__all__ = ["colour_axis", "project"]

_SOFT = 1e-4  # added to the variances: colours that never vary must not decide
_ENDS = (0.005, 0.995)  # quantiles that become 0 and 1
_MOST_PIXELS = 2_000_000


def colour_axis(images: Tensor, masks: Tensor) -> Tensor:
    """Return the direction in colour along which the object is brighter than the rest.

    Args:
        images: N 3 H W in [0, 1].
        masks: N 1 H W, true inside.

    Returns:
        3, with absolute values that sum to one; even shares where the labels tell nothing.

    Example:
        >>> images, masks = torch.zeros(1, 3, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.bool)
        >>> images[:, 0, 0], masks[:, :, 0] = 1.0, True
        >>> [round(share, 3) for share in colour_axis(images, masks).tolist()]
        [1.0, 0.0, 0.0]
    """
    centred = images - rearrange(images, "N C H W -> N C (H W)").median(2).values[..., None, None]
    colours, inside = rearrange(centred, "N C H W -> (N H W) C").double(), rearrange(masks > 0, "N 1 H W -> (N H W)")
    step = len(colours) // _MOST_PIXELS + 1
    ours, theirs = colours[inside][::step], colours[~inside][::step]
    even = torch.full((3,), 1 / 3, device=images.device)
    if len(ours) < 2 or len(theirs) < 2:
        return even
    # w = (S_in + S_out)^-1 (m_in - m_out)
    spread = ours.T.cov() + theirs.T.cov() + _SOFT * torch.eye(3, dtype=ours.dtype, device=ours.device)
    axis = torch.linalg.solve(spread, ours.mean(0) - theirs.mean(0))
    length = axis.abs().sum()
    return (axis / length).to(images) if length > 0 else even


def project(images: Tensor, axis: Tensor) -> Tensor:
    """Return the grey pictures of a direction, each stretched to its own range.

    Args:
        images: N 3 H W.
        axis: 3.

    Returns:
        N 1 H W in [0, 1].

    Example:
        >>> project(torch.rand(2, 3, 8, 8), torch.tensor([0.5, -0.5, 0.0])).shape
        torch.Size([2, 1, 8, 8])
    """
    grey = torch.einsum("nchw,c->nhw", images.float(), axis)
    ends = torch.quantile(grey.flatten(1), grey.new_tensor(_ENDS), dim=1)[..., None, None]
    return ((grey - ends[0]) / (ends[1] - ends[0]).clamp_min(1e-3)).clamp(0, 1)[:, None]
