"""Running mean and deviation of all views so far, kept in a module's buffers."""

from __future__ import annotations

import torch
from torch import Tensor

DEVIATION_FLOOR = 1e-2
"""Added to deviations, as rsl_rl does: what hardly differs is not blown up."""


@torch.no_grad()
def update_moments(mean: Tensor, scale: Tensor, seen: Tensor, views: Tensor) -> None:
    """Update the mean and deviation of all views by some more (Chan et al. 1979), in place.

    Args:
        mean: of those so far, ``(size,)``.
        scale: their standard deviation and `DEVIATION_FLOOR`.
        seen: how many there were, an integer scalar; while 0, `mean` and `scale` do not count.
        views: more, ``(n, size)``.
    """
    new, before = views.to(torch.float64), seen.to(torch.float64)  # on the device: nothing waits for it
    total = before + len(new)
    shift = new.mean(0) - mean
    spread = before * (scale - DEVIATION_FLOOR).square() + len(new) * new.var(0, correction=0)
    spread += shift.square() * before * len(new) / total
    mean += shift * len(new) / total
    scale.copy_((spread / total).sqrt() + DEVIATION_FLOOR)
    seen += len(new)
