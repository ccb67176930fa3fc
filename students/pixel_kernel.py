"""Putting images of bytes side by side in memory, on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.envs.batched.ray_caster import kernel

Array = np.ndarray[Any, Any]


@kernel
def interleave(image: Array, first: int, joined: Array) -> None:
    """Write an image into some channels of a larger one.

    Args:
        image: uint8 ``(pixels, k)``.
        first: the first channel, of ``k``.
        joined: uint8 ``(pixels, channels)``.
    """
    pixels, count = image.shape
    for i in range(pixels):
        for j in range(count):
            joined[i, first + j] = image[i, j]
