"""Joining pictures with their opponent colours in one pass over the bytes, on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.envs.batched.cameras.ray_caster import kernel

Array = np.ndarray[Any, Any]


@kernel
def join_with_opponents(pictures: Array, first: int, out: Array) -> None:
    """Write pictures and how far their colours are apart into channels of a wider picture.

    Args:
        pictures: uint8 ``(n, pixels, 3 k)``: red, green and blue of `k` pictures.
        first: channel that the first one begins at; each takes six.
        out: uint8 ``(n, pixels, channels)``.
    """
    for i in range(pictures.shape[0]):
        for j in range(pictures.shape[1]):
            for k in range(pictures.shape[2] // 3):
                red, green, blue = (
                    np.int16(pictures[i, j, 3 * k]),
                    np.int16(pictures[i, j, 3 * k + 1]),
                    np.int16(pictures[i, j, 3 * k + 2]),
                )
                at = first + 6 * k
                out[i, j, at], out[i, j, at + 1], out[i, j, at + 2] = red, green, blue
                out[i, j, at + 3] = abs(red - green)
                out[i, j, at + 4] = abs(green - blue)
                out[i, j, at + 5] = abs(blue - red)
